"""What several test files share: MIDI files built in code (no test reads a file that is not in the repository), and scripts run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mido
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy and torch are there: on a busy machine threads wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

from config import DIFFUSION_FILE, VAE_FILE, TokenizerConfig, UserError, run_script
from midi_utils import Riff, riffs_to_midi

if TYPE_CHECKING:
    from torch import Tensor

    from models import SegmentBySegment, StepByStep

Note = tuple[float, float, int]  # onset and length in quarter notes, MIDI pitch
EIGHTHS: list[Note] = [(i / 2, 0.5, 40 + i % 5) for i in range(16)]  # two bars of 4/4
END_OF_TRACK = b"\x00\xff\x2f\x00"


def step_by_step(decoder: StepByStep | SegmentBySegment, inputs: Tensor) -> Tensor:
    """The logits of known inputs, computed as those that are written are. [B, T] and more -> [B, T, V]"""
    from torch import stack

    from stepwise import logits_at

    made = [logits_at(walk, t, place, inputs[:, place]) for walk, places in decoder.stretches() for t, place in enumerate(places)]
    return stack(made, dim=1)


def midi_track(
    notes: Sequence[Note], program: int = 27, name: str = "", channel: int = 0, end: float | None = None, ticks: int = 480
) -> mido.MidiTrack:
    """A track of notes; `end` is where it ends, in quarter notes, by default at the last note's end."""
    track, now = mido.MidiTrack(), 0
    if name:
        track.append(mido.MetaMessage("track_name", name=name))
    track.append(mido.Message("program_change", program=program, channel=channel))
    events = [(round((at + length) * ticks), 0, pitch) for at, length, pitch in notes]
    events += [(round(at * ticks), 1, pitch) for at, _, pitch in notes]
    for tick, on, pitch in sorted(events):
        track.append(mido.Message("note_on" if on else "note_off", note=pitch, velocity=90, channel=channel, time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(0, round((end or 0) * ticks) - now)))
    return track


def midi_bytes(
    *tracks: mido.MidiTrack,
    tempos: Sequence[tuple[float, float]] = ((0, 100),),  # (quarter note, quarter notes per minute)
    meters: Sequence[tuple[float, int, int]] = ((0, 4, 4),),  # (quarter note, numerator, denominator)
    markers: Sequence[tuple[float, str]] = (),
    ticks: int = 480,
) -> bytes:
    """A file of a head track and the tracks given."""
    from io import BytesIO

    head = [(at, mido.MetaMessage("set_tempo", tempo=round(60e6 / bpm))) for at, bpm in tempos]
    head += [(at, mido.MetaMessage("time_signature", numerator=n, denominator=d)) for at, n, d in meters]
    head += [(at, mido.MetaMessage("marker", text=text)) for at, text in markers]
    track, now = mido.MidiTrack(), 0
    for at, message in sorted(head, key=lambda event: event[0]):
        track.append(message.copy(time=round(at * ticks) - now))
        now = round(at * ticks)
    file = mido.MidiFile(type=1, ticks_per_beat=ticks, charset="utf-8")
    file.tracks = [track, *tracks]
    buffer = BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def raw_midi(*chunks: bytes, division: int = 480) -> bytes:
    """A file of track chunks given as raw bytes, for what no MIDI library will write."""
    body = b"".join(b"MTrk" + struct.pack(">I", len(chunk)) + chunk for chunk in chunks)
    return b"MThd" + struct.pack(">IHHH", 6, 1, len(chunks), division) + body


def raw_note(delta: bytes, pitch: int = 40) -> bytes:
    """A note of 96 ticks after a delta time that is already encoded."""
    return delta + bytes([0x90, pitch, 90, 96, 0x80, pitch, 0])


def riff_bytes(tokens: Sequence[int], tokenizer: TokenizerConfig | None = None, **fields) -> bytes:
    """A file of one riff, as our own writer makes it."""
    import numpy as np

    return riffs_to_midi([Riff(np.array(tokens), **fields)], tokenizer or TokenizerConfig())


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write("a.mid", [(0, 1, 40), ...], program=27, meters=...) makes a file in tmp_path and returns its path.

    The second argument may also be finished tracks, or bytes.
    """

    def write_midi(name: str, content=EIGHTHS, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            ours = {key: options.pop(key) for key in ("program", "channel", "end") if key in options}
            ours["ticks"] = options.get("ticks", 480)
            tracks = content if content and isinstance(content[0], mido.MidiTrack) else [midi_track(content, **ours)]
            content = midi_bytes(*tracks, **options)
        path.write_bytes(content)
        return path

    return write_midi


def small_songs(folder: Path, songs: int = 4, phrases: int = 3) -> Path:
    """A folder of riffs of some songs, each phrase its own notes, rests and holds; the same on every call."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for song in range(songs):
        for phrase in range(phrases):
            rng = np.random.default_rng([song, phrase])
            tokens = np.where(rng.random(32) < 0.15, 0, rng.integers(45, 62, size=32))
            for t in range(1, 32):  # some steps go on with the note before
                if tokens[t - 1] != 0 and rng.random() < 0.35:
                    tokens[t] = 128
            tempos = ((0.0, 90.0 + song),)
            (folder / f"song{song}_{'abcdefgh'[phrase]}.mid").write_bytes(riff_bytes(tokens.tolist(), tempos=tempos, program=27))
    return folder


# ---------------------------------------------------------------- scripts


class Result(NamedTuple):
    code: int
    out: str
    err: str


Here = Callable[..., Result]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a script in this process, through the same door as from the shell."""

    def run(script: str, *flags: str) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags])
        with pytest.raises(SystemExit) as stop:
            run_script(importlib.import_module(script).main)
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, out, err)

    return run


def assert_one_line(result: Result, script: str, *words: str) -> None:
    assert result.code == 2, result
    assert result.err.count("\n") == 1 and result.err.startswith(f"{script}.py: "), result.err
    for word in words:
        assert word in result.err


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_is_a_picture(path: Path) -> None:
    """A PNG of a size that can be looked at, with something on it in more than one place."""
    from matplotlib.image import imread

    picture = imread(path)
    height, width = picture.shape[:2]
    assert 100 <= height <= 6000 and 300 <= width <= 3000
    gray = picture[..., :3].mean(axis=2)
    assert gray.std() > 0.02
    for half in (gray[: height // 2], gray[height // 2 :], gray[:, : width // 2], gray[:, width // 2 :]):
        assert half.std() > 0.01


class SmallRun(NamedTuple):
    songs: Path
    folder: Path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A run of both train scripts, some steps each, on 32 riffs of 8 songs; two songs are held out. Not to be written to."""
    import train_diffusion
    import train_vae

    folder = tmp_path_factory.mktemp("small")
    songs, run = small_songs(folder / "songs", songs=8, phrases=4), folder / "run"
    common = [*TINY, "--run-dir", str(run), "--batch-size", "8", "--steps", "40"]
    assert train_vae.main([*common, *SIZES, "--data", str(songs), "--lr", "0.01"]) == 0
    assert train_diffusion.main([*common, *DENOISER]) == 0
    return SmallRun(songs, run)


# ---------------------------------------------------------------- the train scripts, with small options

TINY = ["--preset", "riff_2bar_tiny", "--threads", "1", "--device", "cpu"]
SIZES = ["--embed-size", "12", "--encoder-size", "10", "--decoder-size", "14", "--z-size", "6"]
DENOISER = ["--hidden-size", "16", "--blocks", "1", "--num-timesteps", "20"]
PACE = ["--batch-size", "4", "--steps", "10", "--lr", "0.002", "--warmup", "5"]
PACE += ["--log-interval", "2", "--eval-interval", "3", "--save-interval", "100"]


@dataclasses.dataclass(frozen=True)
class Script:
    """One of the two train scripts; imported when it is needed, for torch takes its time."""

    name: str
    kind: str
    best: str

    @property
    def module(self) -> Any:
        return importlib.import_module(self.name)

    @property
    def last(self) -> str:
        return self.module.LAST_FILE

    @property
    def log(self) -> str:
        return self.module.LOG_FILE

    def run(self, folder: Path, songs: Path, *flags: str) -> int:
        sizes = ["--data", str(songs), *SIZES] if self.name == "train_vae" else DENOISER
        return self.module.main([*TINY, "--run-dir", str(folder), *sizes, *PACE, *flags])

    def prepare(self, folder: Path, vae_file: Path) -> Path:
        """A run folder with what the script needs to start."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.name == "train_diffusion":
            shutil.copy(vae_file, folder / VAE_FILE)
        return folder

    def state(self, folder: Path) -> dict[str, Any]:
        from checkpoints import read_checkpoint

        return read_checkpoint(folder / self.last, self.kind)


VAE = Script("train_vae", "riff_vae", VAE_FILE)
DIFFUSION = Script("train_diffusion", "latent_diffusion", DIFFUSION_FILE)
BOTH = pytest.mark.parametrize("script", [VAE, DIFFUSION], ids=["vae", "diffusion"])


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 riffs of 4 songs, 9 of them to train on."""
    return small_songs(tmp_path_factory.mktemp("songs"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, songs: Path) -> Path:
    """The folder of a run of both scripts, 10 steps each, never stopped. Not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    assert VAE.run(folder, songs) == 0
    assert DIFFUSION.run(folder, songs) == 0
    return folder


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors bit by bit."""
    from torch import Tensor, equal

    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def without_options(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != "options"}


def trained(state: dict[str, Any]) -> dict[str, Any]:
    """What training made: weights (averaged and raw) and optimizer."""
    return {key: state[key] for key in ("weights", "raw_weights", "optimizer", "step") if key in state}


def log_lines(path: Path) -> list[dict[str, Any]]:
    """The log, without what the clock decides."""
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("per_second")} for line in lines]


def stop_after(steps: int) -> type:
    """A StopRequest that is asked, as by Ctrl-C, when the loop has looked at it so many times."""
    from training import StopRequest

    class StopAfter(StopRequest):
        looked = 0

        @property
        def asked(self) -> bool:  # type: ignore[override]
            self.looked += 1
            return self.looked >= steps

        @asked.setter
        def asked(self, value: bool) -> None:
            pass

    return StopAfter


def scored(monkeypatch: pytest.MonkeyPatch, *objectives: float) -> list[str]:
    """Let train_vae.py's looks at the held-out songs find these, then 9.0. The list grows by the hash of the weights at each look."""
    import train_vae
    from checkpoints import weights_hash

    real, scores, hashes = train_vae.evaluate, iter(objectives), []

    def evaluate(model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        hashes.append(weights_hash(model.state_dict()))
        return {**real(model, *args, **kwargs), "objective": next(scores, 9.0)}

    monkeypatch.setattr(train_vae, "evaluate", evaluate)
    return hashes


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)
