"""What lies beside generated riffs, the guitar they are written for, and what check_midi.py writes of a user's files."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path

import guitarpro
import pytest
from conftest import Here, SmallRun, assert_one_line, bytes_below

from config import LONG_FILE


def flags(small_run: SmallRun, output: Path, *more: str) -> list[str]:
    common = [
        "--preset",
        "riff_2bar_tiny",
        "--run-dir",
        str(small_run.folder),
        "--threads",
        "1",
        "--device",
        "cpu",
        "--sampling-steps",
        "10",
    ]
    return ["generate", *common, "--max-copy", "1", "--form", "free", "--output-dir", str(output), *more]


def test_tab_guitar_pro_and_sound_lie_beside_each_riff(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    result = here(*flags(small_run, tmp_path, "--num-outputs", "3", "--wav", "--bpm", "120", "--form", "free"))
    assert result.code == 0 and "tab (.txt), Guitar Pro (.gp5), sound (.wav)" in result.out
    for base in [*sorted((tmp_path / "riffs").glob("*.mid")), tmp_path / LONG_FILE]:
        record = json.loads(base.with_suffix(".json").read_text())
        riffs = 3 if base.name == LONG_FILE else 1
        assert base.with_suffix(".txt").read_text().count("120 bpm") == riffs
        assert len(guitarpro.parse(str(base.with_suffix(".gp5"))).measureHeaders) == 2 * riffs
        with wave.open(str(base.with_suffix(".wav"))) as file:
            assert file.getnframes() == round((4 * riffs + 1) * 44100)
        assert set(record["beside"]) == {".txt", ".gp5", ".wav"} and record["capo"] == 0
        assert record["tuning"].split()[1:] == ["A2", "D3", "G3", "B3", "E4"]


def test_what_is_left_of_an_earlier_call_goes_and_what_was_edited_stays(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    """A sound file of another riff beside a new one would lie; a tab with somebody's fingerings must not be lost."""
    assert here(*flags(small_run, tmp_path, "--num-outputs", "2", "--wav", "--bpm", "120")).code == 0
    assert here(*flags(small_run, tmp_path, "--num-outputs", "2", "--bpm", "120")).code == 0
    assert not list(tmp_path.rglob("*.wav")) and len(list(tmp_path.rglob("*.gp5"))) == 3
    tab = next((tmp_path / "riffs").glob("*000001*.txt"))
    tab.write_text(tab.read_text() + "slide into the last note\n")
    before = bytes_below(tmp_path)
    assert_one_line(here(*flags(small_run, tmp_path, "--num-outputs", "2", "--bpm", "120")), "generate", tab.name, "move it away")
    assert bytes_below(tmp_path) == before
    foreign = tmp_path / "new" / "riffs" / "riff_seed000000_120bpm.wav"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    assert_one_line(here(*flags(small_run, tmp_path / "new", "--bpm", "120")), "generate", foreign.name, "move it away")


@pytest.mark.parametrize(("tuning", "low"), [("bass", 28), ("A2 D3 G3 B3 E4", 45), ("standard", 40)])
def test_every_riff_can_be_played_on_the_guitar_asked_for(small_run: SmallRun, tmp_path: Path, here: Here, tuning: str, low: int) -> None:
    capo = ["--capo", "1"] if tuning == "standard" else []
    result = here(*flags(small_run, tmp_path, "--num-outputs", "60", "--tuning", tuning, "--temperature", "1.5", *capo))
    assert result.code == 0, result
    for path in (tmp_path / "riffs").glob("*.json"):
        record = json.loads(path.read_text())
        pitches = [token for token in record["riff"]["tokens"] if token not in (0, 128)]
        assert all(low + len(capo) // 2 <= pitch for pitch in pitches)
        assert record["pitch_range"][0] >= low + len(capo) // 2
        assert "not on this guitar" not in path.with_suffix(".txt").read_text()


def test_a_guitar_that_has_none_of_the_notes_is_refused(small_run: SmallRun, tmp_path: Path, here: Here) -> None:
    for asked, said in ((["--tuning", "E7"], "--tuning"), (["--tuning", "C6 G6"], "training riffs"), (["--tuning", "h"], "drop-d")):
        assert_one_line(here(*flags(small_run, tmp_path, *asked)), "generate", said)
    assert_one_line(here(*flags(small_run, tmp_path, "--capo", "22")), "generate", "--capo 22")
    assert_one_line(here(*flags(small_run, tmp_path, "--loop")), "generate", "--wav")
    assert not (tmp_path / "riffs").exists()


# ---------------------------------------------------------------- check_midi.py


def test_check_midi_prints_and_writes_the_tab_of_a_file(write: Callable[..., Path], tmp_path: Path, here: Here) -> None:
    path = write("song_verse.mid", [(0, 0.5, 38), (1, 1, 45), (4, 1, 52)])
    before = path.read_bytes()
    out = tmp_path / "tabs"
    result = here("check_midi", str(path), "--tab", "--output-dir", str(out), "--wav", "--loop")
    assert result.code == 0 and "tuning drop-d (DADGBE)" in result.out and "D|0-------" in result.out
    assert sorted(file.name for file in out.iterdir()) == ["song_verse.gp5", "song_verse.txt", "song_verse.wav"]
    assert (out / "song_verse.txt").read_text() in result.out and path.read_bytes() == before
    assert here("check_midi", str(path), "--output-dir", str(out), "--wav", "--loop").code == 0  # the same bytes again are no loss
    (out / "song_verse.txt").write_text("mine")
    assert_one_line(here("check_midi", str(path), "--output-dir", str(out)), "check_midi", "song_verse.txt", "move it away")
    assert (out / "song_verse.txt").read_text() == "mine"


def test_check_midi_says_what_a_guitar_lacks(write: Callable[..., Path], here: Here) -> None:
    path = write("low.mid", [(0, 0.5, 38), (1, 1, 45), (4, 1, 52)])
    result = here("check_midi", str(path), "--tuning", "EADGBE")
    assert result.code == 0 and "not on it: D2 in bar 1, beat 1" in result.out
    table = here("check_midi", str(path.parent), "--tuning", "EADGBE")
    assert "not on standard (EADGBE): notes of 1 file, such as low.mid (D2 in bar 1, beat 1)" in table.out
    facts = json.loads(here("check_midi", str(path), "--json", "--tuning", "EADGBE").out)["files"][0]
    assert (facts["guitar"], facts["unplayable"]) == ("standard (EADGBE)", ["D2 in bar 1, beat 1"])
    assert_one_line(here("check_midi", str(path), "--wav"), "check_midi", "--output-dir")
    assert_one_line(here("check_midi", str(path), "--json", "--tab"), "check_midi", "one of them")
    assert_one_line(here("check_midi", str(path), "--tuning", "xyz"), "check_midi", "--tuning xyz")
