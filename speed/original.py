"""The original MusicVAE as a rival: measured in an interpreter of its own, by turns with ours, so that a machine's moods touch both."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from config import UserError

SERVER = Path(__file__).with_name("original_server.py")


class Original:
    """A process of the original, on the threads TensorFlow chooses by itself; see original_server.py.

    Args:
        interpreter: a Python that has TensorFlow and magenta.
    """

    def __init__(self, interpreter: str) -> None:
        self.interpreter = interpreter
        self._process: subprocess.Popen[str] | None = None  # started when it is first asked

    def rate(self, kind: str, batch: int) -> float:
        """Melodies a second. kind: training or sampling

        Raises:
            UserError: the interpreter cannot be started, or ends instead of answering.
        """
        try:
            if self._process is None:
                command = [self.interpreter, "-W", "ignore", str(SERVER)]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._process.stdin and self._process.stdout
            self._process.stdin.write(f"{kind} {batch}\n")
            self._process.stdin.flush()
            return float(self._process.stdout.readline())
        except (OSError, ValueError):
            raise UserError(f"--original {self.interpreter}: gave no figure; it needs TensorFlow and magenta, see README.md") from None

    def __enter__(self) -> Original:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
