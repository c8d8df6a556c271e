"""Songs cut into windows for a base model, from MIDI files built in code."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Note, midi_track

from config import DataConfig, TokenizerConfig, UserError
from dataset import load_riffs
from experiments.cut_lines import LEAST_NOTES, main

Write = Callable[..., Path]
ROOT = Path(__file__).resolve().parent.parent


def bars(*seeds: int, shift: int = 0) -> list[Note]:
    """Bars of quarter notes, each its own by its seed."""
    return [
        (4 * i + at, 1.0, int(np.random.default_rng([seed, at]).integers(45, 60)) + shift)
        for i, seed in enumerate(seeds)
        for at in range(4)
    ]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "lines.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_small_songs(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drums = midi_track(bars(7, 7, 7), channel=9)
    lead, bass = midi_track(bars(1, 2, 3, 4)), midi_track(bars(1, 2, 8, shift=-5), program=33, channel=1)
    write("songs/r1__my_song.mid", [lead, bass, drums])
    sparse = midi_track([(0, 1, 50), (4, 1, 52), (8, 1, 53), (9, 1, 55), (10, 1, 50), (12, 1, 50)])
    write("songs/r2__other.mid", [midi_track(bars(2, 3)), sparse])
    (tmp_path / "songs" / "r3__noise.mid").write_bytes(b"no MIDI at all")
    assert main([str(tmp_path / "songs"), str(tmp_path / "out")]) == 0

    # a window on every bar line: bars 1-2, 2-3 and 3-4 of both lines; bars 1-2 of the bass are the lead's, a fourth lower
    files = sorted(path.name for path in (tmp_path / "out").glob("*.mid"))
    kept = [f"my-song_r1-{place}.mid" for place in ("t00-b001", "t00-b002", "t00-b003", "t01-b002", "t01-b003")]
    assert files == [*kept, "other_r2-t01-b002.mid", "other_r2-t01-b003.mid"]
    first, second, third = table(tmp_path / "out")
    assert first == dict(file="r1__my_song.mid", song="my-song", lines="2", windows="6", kept="5", repeated="1", refused="0", reasons="")
    # of the other song, bars 2 and 3 of the first stand there again; in its second line two bars hold too few notes
    assert second["windows"] == "4" and (second["kept"], second["repeated"], second["refused"]) == ("2", "1", "1")
    assert second["reasons"] == "1 no notes"
    assert (third["song"], third["windows"], third["kept"], third["refused"]) == ("noise", "0", "0", "1")
    assert "7 kept" in capsys.readouterr().out

    data = load_riffs(DataConfig(data=str(tmp_path / "out"), holdout=0), TokenizerConfig())
    assert data.songs == ["my-song", "other"] and [row.riffs for row in data.rows] == [1] * 7  # one riff a file, none a duplicate
    pitches = [note[2] for note in bars(2, 3)]
    assert data.tokens[1][::4].tolist() == pitches


def test_least_notes_is_what_the_text_says() -> None:
    assert LEAST_NOTES == 4


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "c"], ["--help", "b"]])
def test_both_folders_have_to_be_given(arguments: list[str]) -> None:
    with pytest.raises(UserError, match="folder of songs"):
        main(arguments)


def test_a_folder_in_use_is_left_alone(write: Write, tmp_path: Path) -> None:
    write("songs/r1__a.mid", bars(1, 2))
    write("out/mine.mid", bars(3, 4))
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cut_lines", "songs", "out"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.mid"]
