"""The original MusicVAE as a rival: measured in an interpreter of its own, by turns with ours, so that a machine's moods touch both."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from config import UserError

SERVER = Path(__file__).with_name("original_server.py")
READY = "ready"  # what it says first
RIVAL = "times the original"  # how the names of figures begin that need it


class Original:
    """A process of the original, on the threads TensorFlow chooses by itself; see original_server.py.

    Args:
        interpreter: a Python that has TensorFlow and magenta.
    """

    def __init__(self, interpreter: str) -> None:
        self.interpreter = interpreter
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it has found what it needs.

        Raises:
            UserError: the interpreter cannot be started, or lacks something.
        """
        command = [self.interpreter, "-W", "ignore", str(SERVER)]
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads would fill up
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True)
        except OSError as error:
            raise UserError(f"--original {self.interpreter}: cannot be started ({error.strerror}); give a Python interpreter") from None
        if self._line().strip() != READY:
            raise UserError(
                f"--original {self.interpreter}: is no Python with TensorFlow and magenta, see README.md ({self._last_words()})"
            )

    def rate(self, kind: str, batch: int) -> float:
        """Melodies a second. kind: training or sampling

        Raises:
            UserError: it ends instead of answering.
        """
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(f"{kind} {batch}\n")
            self._process.stdin.flush()
            return float(self._line())
        except (OSError, ValueError):
            where = f"while {kind} was measured at batch {batch}"
            raise UserError(f"--original {self.interpreter}: ended {where} ({self._last_words()})") from None

    def _last_words(self) -> str:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._said.seek(0)
        return (self._said.read().strip().splitlines() or ["it said nothing"])[-1]

    def _line(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline()

    def __enter__(self) -> Original:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
