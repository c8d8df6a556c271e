"""check_midi.py: the numbers it prints, what it says of refused files, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import EIGHTHS, END_OF_TRACK, Note, midi_bytes, midi_track, raw_midi, raw_note, riff_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from test_midi_utils import UNREADABLE, shuffled_legal

import check_midi
from config import HOLD, LONG_FILE, REST, DataConfig, TokenizerConfig, UserError
from measures import midi_facts
from measures.metrics import onset_mask, rest_ratio, restrike_share
from midi_utils import Riff, parse_midi, riffs_to_midi, tokens_to_notes

ROOT = Path(__file__).resolve().parent.parent
Write = Callable[..., Path]
TOKENS = [40, HOLD, 40, 40, REST, REST, 43, HOLD, HOLD, HOLD, 52, REST] + [REST] * 20


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the script: exit status, standard output, standard error."""

    def run(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = check_midi.main([str(word) for word in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def facts(check) -> Callable[..., dict]:
    """The facts of one file, from --json."""
    return lambda *argv: json.loads(check(*argv, "--json")[1])["files"][0]


# ---------------------------------------------------------------- the numbers


def test_facts_of_a_known_riff(write: Write, facts) -> None:
    path = write("a.mid", riff_bytes(TOKENS, tempos=((0.0, 90.0), (16.0, 120.0)), program=30, name="pedal", markers=((0.0, "Öl"),)))
    assert facts(path) == {
        "file": str(path), "accepted": True, "riffs": 1, "reason": None, "detail": None, "remarks": [], "first_bars": [1],
        "tempos": [{"bar": 1, "bpm": 90.0}, {"bar": 2, "bpm": 120.0}],
        "meters": [{"bar": 1, "meter": "4/4"}],
        "markers": [{"bar": 1, "text": "Öl"}],
        "bars": 2, "first_bar": 1,
        "tracks": [{"name": "pedal", "program": 30, "is_drum": False, "notes": 5, "read": True}],
        "notes": 5, "range": [40, 52], "pitches": {"E2": 3, "G2": 1, "E3": 1}, "chord_notes": 0,
        "rest_ratio": round(23 / 32, 4), "restrike_share": 0.5, "lengths": {"1": 3, "2": 1, "4": 1},
        "off_grid": 0, "off_grid_share": 0.0, "guitar": "standard (EADGBE)", "unplayable": [],
    }  # fmt: skip


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_riff_is_described_as_the_metrics_do(seed: int) -> None:
    tokenizer = TokenizerConfig()
    tokens = shuffled_legal(seed, tokenizer)
    midi = parse_midi(riff_bytes(tokens.tolist()))
    line = midi_facts.read_line(midi, midi.tracks[0], DataConfig(), tokenizer)
    found = midi_facts.line_facts(line)
    assert found["rest_ratio"] == pytest.approx(rest_ratio(tokens[None])[0], abs=1e-4)
    assert len(line.start) == onset_mask(tokens[None], tokenizer).sum()
    expected = restrike_share(tokens[None], tokenizer)[0]
    assert found["restrike_share"] == (None if np.isnan(expected) else pytest.approx(expected, abs=1e-4))
    for ours, theirs in zip((line.start, line.end, line.pitch), tokens_to_notes(tokens, tokenizer), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_refused_files_are_described_all_the_same(write: Write, facts) -> None:
    triplets = facts(write("triplets.mid", [(i / 3, 1 / 3, 40) for i in range(24)]))
    assert (triplets["reason"], triplets["notes"], triplets["off_grid"]) == ("off the grid", 24, 16)
    assert triplets["off_grid_share"] == round(16 / 24, 4)
    song = facts(write("song.mid", [(float(i), 0.5, 45 + i % 2) for i in range(400)]))
    assert (song["reason"], song["bars"], song["notes"], song["rest_ratio"]) == ("too long", 100, 400, 0.5)
    waltz = facts(write("waltz.mid", [(float(i), 1.0, 40) for i in range(12)], meters=[(0, 3, 4), (9, 4, 4)]))
    assert (waltz["reason"], waltz["bars"], waltz["rest_ratio"]) == ("not 4/4", 4, round(1 - 12 / 13, 4))
    assert waltz["meters"] == [{"bar": 1, "meter": "3/4"}, {"bar": 4, "meter": "4/4"}]
    named = facts(write("riff.gp5", riff_bytes(TOKENS)))
    assert (named["reason"], named["notes"], named["bars"]) == ("not MIDI", 5, 2)
    endless = facts(write("endless.mid", raw_midi(raw_note(b"\xff\xff\xff\x7f") + END_OF_TRACK)))
    assert (endless["reason"], endless["notes"], endless["bars"]) == ("too long", 1, None)
    far = facts(write("far.mid", raw_midi(raw_note(b"\0") + b"\xff\xff\xff\x7f\xff\x2f\0")))
    assert (far["notes"], far["bars"]) == (1, 1)


def test_leading_empty_bars_do_not_count_as_rests(write: Write, facts) -> None:
    found = facts(write("a.mid", [(at + 8, length, pitch) for at, length, pitch in EIGHTHS]))
    assert (found["first_bar"], found["bars"], found["rest_ratio"]) == (3, 4, 0.0)


def test_chords_tracks_and_remarks(write: Write, check, facts) -> None:
    guitar = midi_track([*EIGHTHS, (0, 0.5, 64), (1, 0.5, 64)], program=29, name="Gtr")
    bass = midi_track(EIGHTHS, program=33, name="Bass", channel=1)
    path = write("a.mid", [guitar, bass, midi_track(EIGHTHS, channel=9)])
    found = facts(path)
    assert (found["notes"], found["chord_notes"], found["range"]) == (18, 2, [40, 64])
    assert [(t["name"], t["read"], t["is_drum"]) for t in found["tracks"]] == [
        ("Gtr", True, False),
        ("Bass", False, False),
        ("", False, True),
    ]
    assert found["remarks"] == ["2 tracks: read Gtr, overdriven guitar (program 29)", "2 chord notes left out (lowest kept)"]
    _, text, _ = check(path)
    for words in (
        "3 tracks",
        "Gtr, overdriven guitar (program 29), 18 notes (read here)",
        "Bass, finger bass (program 33), 16 notes",
        "unnamed, drums",
    ):
        assert words in " ".join(text.split())


def test_the_rules_are_flags_under_the_names_of_training(write: Write, check, facts) -> None:
    path = write("a.mid", [*EIGHTHS, (0, 0.5, 64)])
    assert facts(path)["accepted"]
    assert facts(path, "--policy", "reject")["reason"] == "polyphonic"
    assert facts(path, "--low", "45")["reason"] == "out of range"
    assert facts(path, "--min-notes", "17")["reason"] == "no notes"
    assert facts(path, "--bars", "4")["reason"] == "too short"
    long = write("long.mid", [(float(i), 1.0, 40) for i in range(64)])
    assert facts(long)["reason"] == "too long"
    assert facts(long, "--max-bars", "0")["riffs"] == 8
    triplets = write("t.mid", [(i / 3, 1 / 3, 40) for i in range(24)])
    assert facts(triplets, "--max-off-grid", "0.7")["accepted"]
    assert facts(triplets, "--steps-per-beat", "3")["off_grid"] == 0


# ---------------------------------------------------------------- the report and its piano roll


def test_report_of_a_riff(write: Write, check) -> None:
    path = write("a.mid", riff_bytes(TOKENS, program=30, name="pedal", markers=((0.0, "Verse"),)))
    code, out, err = check(path)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        str(path),
        "  training    accepted: 1 riff, from bar 1",
        "  tempo       bar 1: 120.0 bpm",
        "  meter       bar 1: 4/4",
        "  markers     bar 1: Verse",
        "  length      2 bars",
        "  1 track     pedal, distortion guitar (program 30), 5 notes",
        "  notes       5, E2 to E3, 12 semitones",
        "  pitches     E2:3  G2:1  E3:1",
        "  guitar      standard (EADGBE), which has all notes",
        "  lengths     in steps  1:3  2:1  4:1",
        "  rests       71.9% of the steps",
        "  re-strikes  50.0% of the notes repeat the pitch before",
        "  off grid    0 of 5 notes lie more than 0.3 steps from a step",
        "  bars 1-2",
        "  E3 |..........o.....|................|",
        "  G2 |......o===......|................|",
        "  E2 |o=oo............|................|",
        "      1   2   3   4    1   2   3   4   ",
        "",
    ]


def test_only_the_first_bars_are_drawn_unless_asked(write: Write, check) -> None:
    path = write("a.mid", [(float(i), 1.0, 40) for i in range(32)])
    _, out, _ = check(path)
    assert [line.strip() for line in out.splitlines() if line.startswith("  bars ")] == ["bars 1-2", "bars 3-4"]
    assert "  4 more bars: --roll-bars 0 shows all" in out
    _, out, _ = check(path, "--roll-bars", "0")
    assert out.count("\n  bars ") == 4 and "more bar" not in out
    _, out, _ = check(path, "--roll-bars", "3")
    assert "  bars 1-2\n" in out and "  bar 3\n" in out and "  5 more bars" in out


def test_a_note_that_rings_over_a_row_is_not_struck_again(write: Write, check) -> None:
    _, out, _ = check(write("a.mid", [(0, 1, 40), (7, 3, 45), (10, 1, 45), (12, 4, 50)]))
    second = out[out.index("  bars 3-4\n") :].splitlines()
    assert second[2] == "  A2 |========o===....|................|"


def test_other_meters_are_drawn_bar_by_bar(write: Write, check) -> None:
    _, out, _ = check(write("a.mid", [(i / 2, 0.5, 40) for i in range(12)], meters=[(0, 6, 8), (3, 12, 8)], ticks=96))
    assert "  bar 1, 6/8\n  E2 |o=o=o=o=o=o=|\n" in out
    assert "  bar 2, 12/8\n  E2 |o=o=o=o=o=o=....|........|\n" in out


def test_control_characters_of_strangers_do_not_reach_the_terminal(write: Write, check) -> None:
    path = write("a.mid", riff_bytes(TOKENS, name="a\x1b[31m\x07b", markers=((0.0, "two\nlines\r"),)))
    _, out, _ = check(path)
    assert "\x1b" not in out and "\x07" not in out and "\r" not in out


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_file_names_that_are_not_utf8_and_terminals_that_are_not(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xe9.mid"
    try:
        Path(os.fsdecode(name)).write_bytes(riff_bytes(TOKENS, markers=((0.0, "サビ"),)))
    except OSError:
        pytest.skip("this file system refuses such names")
    for extra in ([], ["--json"]):
        command = [sys.executable, ROOT / "check_midi.py", name, *extra]
        done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        done.stdout.decode("ascii")


# ---------------------------------------------------------------- many files


def folder_of(write: Write) -> Path:
    def other(i: int) -> list[Note]:
        return [(at, length, pitch + i) for at, length, pitch in EIGHTHS]

    for i in range(4):
        write(f"set/song{i}_a.mid", other(i), tempos=[(0, 90 + i), (4, 100)] if i else [(0, 90)])
    write("set/short.mid", EIGHTHS[:8])
    write("set/jig.mid", EIGHTHS, meters=[(0, 6, 8)])
    write("set/jig2.mid", EIGHTHS, meters=[(0, 6, 8)])
    write("set/broken.mid", b"MThd")
    return write("set/tab.gp5", b"not MIDI either").parent


def test_a_folder_is_a_table_with_a_total(write: Write, check) -> None:
    code, out, err = check(folder_of(write))
    lines = out.splitlines()
    assert code == 1
    assert err == "check_midi.py: 5 of 9 refused for training: broken.mid (unreadable), jig.mid (not 4/4), jig2.mid (not 4/4), and 2 more\n"
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines[1:10]] == [
        "broken.mid", "jig.mid", "jig2.mid", "short.mid", "song0_a.mid", "song1_a.mid", "song2_a.mid", "song3_a.mid", "tab.gp5",
    ]  # fmt: skip
    assert lines[5].split() == ["song0_a.mid", "accepted", "1", "2", "90", "4/4", "16", "E2-G#2", "0%", "0%", "0%"]
    assert lines[6].split()[4] == "91+"
    assert lines[10].split()[:4] == ["9", "files", "4", "accepted"]
    assert "104" in lines[10].split() and "E2-B2" in lines[10].split()
    assert "refused, not 4/4: 2, such as jig.mid (6/8)" in lines
    assert "refused, unreadable: 1, such as broken.mid (cut off inside its header)" in lines
    assert "|" not in out  # no piano roll


def test_rolls_come_with_a_table_when_asked(write: Write, check) -> None:
    _, out, _ = check(folder_of(write), "--roll-bars", "2")
    assert out.count("  bars 1-2\n") == 4 and "9 files" in out


def test_up_to_three_files_get_a_report_each_and_four_a_table(write: Write, check) -> None:
    paths = [write(f"{i}.mid", riff_bytes(TOKENS)) for i in range(4)]
    assert check(*paths[:3])[1].count("training    accepted") == 3
    assert check(*paths)[1].count("training    accepted") == 0
    assert "4 files" in check(*paths)[1]
    assert check(paths[0], paths[0])[1].count("training    accepted") == 1  # the same file twice is one file


def test_json_is_one_value_with_a_total(write: Write, check) -> None:
    code, out, err = check(folder_of(write), "--json")
    value = json.loads(out)
    assert code == 1 and err.count("\n") == 1
    assert [file["accepted"] for file in value["files"]] == [False] * 4 + [True] * 4 + [False]
    assert value["total"]["refused"] == {"unreadable": 1, "not 4/4": 2, "too short": 1, "not MIDI": 1}
    assert (value["total"]["files"], value["total"]["accepted"], value["total"]["riffs"]) == (9, 4, 4)
    assert value["total"]["notes"] == 4 * 16 + 2 * 16 + 8
    assert value["total"]["rest_ratio"] == round(2 * (1 / 9) / 7, 4)  # the jigs end a quarter note before their third bar does
    silent = json.loads(check(write("bad.mid", b""), "--json")[1])
    assert silent["total"]["rest_ratio"] is None and silent["total"]["range"] is None


@pytest.mark.timeout(20)
def test_no_broken_file_stops_it(write: Write, check) -> None:
    for i, (kind, data) in enumerate(UNREADABLE.items()):
        code, out, _ = check(write(f"{i}.mid", data))
        assert code == 1, kind
        assert "refused, unreadable: " in out
    code, out, _ = check(write("0.mid").parent)
    assert code == 1 and f"refused, unreadable: {len(UNREADABLE) - 1}" in out


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_bytes_are_described_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    good = bytearray(midi_bytes(midi_track(EIGHTHS, name="riff", end=12), markers=[(0, "Verse")], meters=[(0, 4, 4), (8, 3, 4)]))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.mid"
    path.write_bytes(good)
    facts, line, _ = check_midi.check_file(path, DataConfig(), TokenizerConfig())
    assert facts["accepted"] or (facts["reason"] and facts["detail"])
    json.dumps(facts, allow_nan=False)
    check_midi.report(facts, line, DataConfig())
    if line:
        assert 0 <= facts["rest_ratio"] <= 1
        check_midi.piano_roll(line, TokenizerConfig(), 8)


# ---------------------------------------------------------------- starting


def test_no_path_checks_the_long_file_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"generated_riff_long\.mid: not there; run `python generate\.py` first"):
        check_midi.main([])
    run = tmp_path / "runs" / "riff_2bar"
    run.mkdir(parents=True)
    riffs = [Riff(np.array(TOKENS), markers=((0.0, f"riff {i}"),)) for i in range(16)]
    (run / LONG_FILE).write_bytes(riffs_to_midi(riffs, TokenizerConfig()))
    code, out, err = check()
    assert (code, err) == (0, "")
    assert "accepted: 16 riffs" in out and "length      32 bars" in out
    assert check("--run-dir", run)[1].splitlines()[1:] == out.splitlines()[1:]
    with pytest.raises(UserError, match="riff_2bar_tiny"):
        check_midi.main(["--preset", "riff_2bar_tiny"])


def test_what_cannot_start_is_one_line(tmp_path: Path) -> None:
    for argv, words in [
        ([tmp_path / "missing.mid"], "no such file or folder"),
        ([tmp_path], "no .mid or .midi file in it"),
        (["--preset", "nope"], "--preset nope"),
        (["--roll-bars", "-2"], "--roll-bars -2"),
        ([tmp_path, "--low", "99", "--high", "9"], "--low 99 --high 9"),
    ]:
        with pytest.raises(UserError) as error:
            check_midi.main([str(word) for word in argv])
        assert words in str(error.value) and "\n" not in str(error.value)
    command = [sys.executable, "check_midi.py", str(tmp_path / "missing.mid")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("check_midi.py: ") and done.stderr.count("\n") == 1


def test_unknown_flag_exits_2_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        check_midi.main(["--roll-bar", "3"])
    assert stop.value.code == 2
    assert "--roll-bars" in capsys.readouterr().err
