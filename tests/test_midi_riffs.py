"""Our own riffs: the files are what the notation says, and the set is what it claims to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from config import HOLD, REST, DataConfig, TokenizerConfig, UserError
from dataset import RiffData, load_riffs
from measures.metrics import onset_mask, rest_ratio, restrike_share
from midi_riffs import render
from midi_utils import file_riffs, parse_midi, read_riff, riffs_to_midi

FOLDER = Path(__file__).resolve().parent.parent / "midi_riffs"
NOTATION = (FOLDER / "riffs.txt").read_text(encoding="utf-8")
TOKENIZER = TokenizerConfig()


@pytest.fixture(scope="module")
def data() -> RiffData:
    return load_riffs(DataConfig(data=str(FOLDER)), TOKENIZER)


def test_the_files_are_what_the_notation_says_byte_for_byte() -> None:
    expected = {f"{riff.name}.mid": riffs_to_midi([riff], TOKENIZER) for riff in render.read_notation(NOTATION)}
    assert {path.name: path.read_bytes() for path in FOLDER.glob("*.mid")} == expected
    assert render.main(["--check"]) == 0


def test_all_are_used_and_none_is_a_duplicate(data: RiffData) -> None:
    assert [row for row in data.rows if row.riffs != 1 or row.reason or row.detail] == []
    assert len(data.riffs) == len(data.rows) == len(list(FOLDER.glob("*.mid")))


def test_there_are_enough_songs_of_four_riffs(data: RiffData) -> None:
    riffs_of = np.bincount(data.song)
    assert len(data.riffs) >= 128 and len(riffs_of) >= 32
    assert set(riffs_of.tolist()) == {4}


def test_the_set_is_guitar_writing(data: RiffData) -> None:
    assert 0.10 <= rest_ratio(data.tokens).mean() <= 0.30
    assert 0.30 <= np.nanmean(restrike_share(data.tokens, TOKENIZER)) <= 0.60
    assert all(70 <= round(riff.bpm, 3) <= 150 for riff in data.riffs)
    assert len({riff.bpm for riff in data.riffs}) > 10
    assert all(24 <= riff.program <= 31 for riff in data.riffs)
    assert (onset_mask(data.tokens, TOKENIZER).sum(axis=1) >= 4).all()
    sounding = data.tokens[(data.tokens != REST) & (data.tokens != HOLD)]
    assert sounding.min() == 38 and sounding.max() <= 86


def test_d2_is_played_in_drop_d_only() -> None:
    tuning, dropped = {}, set()
    for line in NOTATION.splitlines():
        if line.startswith("song "):
            song, *fields = [part.strip() for part in line.removeprefix("song ").split("|")]
            tuning[song] = next(field.removeprefix("tuning ") for field in fields if field.startswith("tuning "))
    assert set(tuning.values()) == {"EADGBE", "DADGBE"}
    for riff in render.read_notation(NOTATION):
        sounding = riff.tokens[(riff.tokens != REST) & (riff.tokens != HOLD)]
        song = riff.name.split("_")[0]
        assert sounding.min() >= (38 if tuning[song] == "DADGBE" else 40), riff.name
        if 38 in sounding:
            dropped.add(song)
    assert dropped and all(tuning[song] == "DADGBE" for song in dropped)


def test_every_riff_comes_back_from_its_file(data: RiffData) -> None:
    for riff, path in zip(data.riffs, sorted(FOLDER.glob("*.mid")), strict=True):
        midi = parse_midi(path.read_bytes())
        ((number, window),), left = file_riffs(midi, midi.tracks[0], TOKENIZER)
        back = read_riff(midi, midi.tracks[0], (number, window), TOKENIZER)
        assert left == ""
        np.testing.assert_array_equal(back.tokens, riff.tokens)
        assert midi.markers and midi.markers[0][0] == 0 and midi.tracks[0].name == path.stem


HEAD = "song a | bpm 90 | program 27\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD + "1a " + "E2 " * 31, "line 2: 31 cells, a riff has 32"),
        (HEAD + "1a - " + "E2 " * 31, "line 2: a - with no note before it"),
        (HEAD + "1a H2 " + "E2 " * 31, "line 2: 'H2' is not a pitch"),
        ("# a comment\n\n1a " + "E2 " * 32, "line 3: 'bpm'"),
    ],
)
def test_a_mistake_in_the_notation_is_named_by_its_line(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        render.read_notation(text)
