"""cut_riffs.py: songs in, a riff folder out; the same with any number of workers; nothing of a user's is lost."""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mido
import pytest
from conftest import Here, assert_one_line, bytes_below, midi_track

import cut_riffs
from config import DataConfig, TokenizerConfig
from dataset import load_riffs
from guitar.songs import slug
from midi_utils import MidiError

LOW = [40, 40, 43, 45, 40, 40, 46, 45, 45, 45, 48, 50, 45, 43, 41, 40]  # two bars of eighths
HIGH = [52, 50, 48, 47, 45, 43, 41, 40, 45, 43, 41, 40, 40, 41, 43, 45]


def song(write: Callable[..., Path], name: str, *riffs: list[int], markers: tuple = ((0.0, "Verse"),), program: int = 30) -> Path:
    """Two bars for each riff, on one guitar."""
    notes = [(8 * i + j / 2, 0.5, pitch) for i, riff in enumerate(riffs) for j, pitch in enumerate(riff)]
    return write(name, [midi_track(notes, program=program, name="Guitar")], tempos=((0, 96),), markers=markers)


@pytest.fixture
def songs(write: Callable[..., Path], tmp_path: Path) -> Path:
    """Five songs: of two riffs, one of them twice; transposed; another; without a guitar; broken."""
    song(write, "songs/One Song_v2.mid", LOW, HIGH, LOW)
    song(write, "songs/two.mid", [pitch + 2 for pitch in LOW], [pitch + 1 for pitch in reversed(HIGH)])
    song(write, "songs/more/two.mid", [pitch + 3 for pitch in reversed(LOW)], markers=((0.0, "V1"), (8.0, "Chorus")))
    song(write, "songs/piano.mid", LOW, program=0).write_bytes(midi_piano())
    (tmp_path / "songs" / "broken.gp5").write_bytes(b"\x18FICHIER GUITAR PRO v5.10" + bytes(40))
    return tmp_path / "songs"


def midi_piano() -> bytes:
    from conftest import midi_bytes

    return midi_bytes(midi_track([(i / 2, 0.5, pitch) for i, pitch in enumerate(LOW)], program=0, name="Piano"))


def test_songs_become_a_folder_to_train_on(songs: Path, tmp_path: Path, here: Here) -> None:
    before = bytes_below(songs)
    result = here("cut_riffs", str(songs), "--output-dir", str(tmp_path / "riffs"))
    assert result.code == 1 and result.err == "cut_riffs.py: 2 of 5 gave no riffs (--list shows what is in them): broken.gp5, piano.mid\n"
    assert "5 songs: 3 cut, 2 refused; 4 riffs, 2 more were repeats of them" in result.out
    assert "refused, no guitar: 1, such as piano.mid" in result.out and "refused, unreadable: 1, such as broken.gp5" in result.out
    names = sorted(path.name for path in (tmp_path / "riffs").iterdir())
    assert names == [
        "cut_riffs.json",
        "one-song-v2_verse_guitar-1_bar001.mid",
        "one-song-v2_verse_guitar-1_bar003.mid",
        "two_v1_guitar-1_bar001.mid",
        "two_verse_guitar-1_bar003.mid",
    ]
    riffs = load_riffs(DataConfig(data=str(tmp_path / "riffs"), holdout=0.4), TokenizerConfig())
    assert len(riffs.riffs) == 4 and riffs.songs == ["one-song-v2", "two"]
    assert riffs.riffs[0].bpm == pytest.approx(96, abs=0.01) and riffs.riffs[0].program == 30
    assert riffs.tokens[0].tolist() == [token for pitch in LOW for token in (pitch, 128)]
    assert bytes_below(songs) == before
    file = mido.MidiFile(tmp_path / "riffs" / "one-song-v2_verse_guitar-1_bar003.mid", charset="utf-8")
    assert [m.text for m in file.tracks[0] if m.type == "marker"] == ["Verse, bar 3 of One Song_v2.mid"]


def test_the_record_says_what_became_of_each_song(songs: Path, tmp_path: Path, here: Here) -> None:
    here("cut_riffs", str(songs), "--output-dir", str(tmp_path / "riffs"))
    record = json.loads((tmp_path / "riffs" / "cut_riffs.json").read_text())
    by_name = {Path(song["song"]).relative_to(songs).as_posix(): song for song in record["songs"]}
    assert {name: (song["reason"], len(song["riffs"])) for name, song in by_name.items()} == {
        "One Song_v2.mid": (None, 2),
        "broken.gp5": ("unreadable", 0),
        "more/two.mid": (None, 1),
        "piano.mid": ("no guitar", 0),
        "two.mid": (None, 1),
    }
    assert by_name["One Song_v2.mid"]["duplicates"] == 1 and by_name["two.mid"]["duplicates"] == 1
    riff = by_name["One Song_v2.mid"]["riffs"][1]
    assert (riff["section"], riff["bar"], riff["part"], riff["bpm"]) == ("Verse", 3, "Guitar", 96.0)
    assert set(record["files"]) == {path.name for path in (tmp_path / "riffs").glob("*.mid")}
    assert all(song["settings"]["cut"]["section"] == "verse" for song in record["songs"])


def test_any_number_of_workers_cuts_the_same(write: Callable[..., Path], tmp_path: Path, here: Here) -> None:
    for number in range(40):
        song(write, f"many/song{number}.mid", [pitch + number % 7 for pitch in LOW[number % 5 :] + LOW[: number % 5]], HIGH)
    made = {}
    for workers in ("1", "2", "3"):
        flags = ["--output-dir", str(tmp_path / workers), "--workers", workers]
        assert here("cut_riffs", str(tmp_path / "many"), *flags).code == 0
        made[workers] = bytes_below(tmp_path / workers)
    assert made["1"] == made["2"] == made["3"] and len(made["1"]) > 6


def test_a_dask_scheduler_cuts_the_same(songs: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for Dask that runs threads; without Dask, and without an answer, one line."""
    asked = []

    class Client:
        def __init__(self, address: str, timeout: int) -> None:
            asked.append(address)
            if "nobody" in address:
                raise OSError("timed out")

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def get_executor(self) -> ThreadPoolExecutor:
            return ThreadPoolExecutor(2)

    flags = [str(songs), "--scheduler", "tcp://there:8786", "--output-dir"]
    monkeypatch.setitem(sys.modules, "dask", None)
    assert_one_line(here("cut_riffs", *flags, str(tmp_path / "c")), "cut_riffs", "pip install distributed")
    monkeypatch.setitem(sys.modules, "dask", types.ModuleType("dask"))
    distributed = types.ModuleType("dask.distributed")
    distributed.Client = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask.distributed", distributed)
    assert here("cut_riffs", *flags, str(tmp_path / "a")).code == 1
    assert here("cut_riffs", str(songs), "--output-dir", str(tmp_path / "b"), "--workers", "1").code == 1
    assert asked == ["tcp://there:8786"] and bytes_below(tmp_path / "a") == bytes_below(tmp_path / "b")
    assert_one_line(here("cut_riffs", str(songs), "--scheduler", "tcp://nobody:1", "--dry-run"), "cut_riffs", "no answer")


def test_list_and_dry_run_write_nothing(songs: Path, tmp_path: Path, here: Here) -> None:
    result = here("cut_riffs", str(songs / "more"), "--list")
    assert result.code == 0 and not (tmp_path / "riffs").exists()
    assert "part 1: Guitar, distortion guitar (program 30), 16 notes  (guitar)" in result.out
    assert "bars 1-2: V1  <- cut" in result.out and "two.mid: 1 riff" in result.out
    result = here("cut_riffs", str(songs), "--output-dir", str(tmp_path / "riffs"), "--dry-run")
    assert result.code == 1 and "4 riffs" in result.out and not (tmp_path / "riffs").exists()
    assert "one-song-v2_verse_guitar-1_bar003.mid\n" in result.out  # what would be written
    assert "<- cut" not in here("cut_riffs", str(songs / "piano.mid"), "--list").out


def test_a_guess_is_said_to_be_one(write: Callable[..., Path], tmp_path: Path, here: Here) -> None:
    path = song(write, "nameless.mid", LOW, HIGH, LOW, LOW, markers=())
    result = here("cut_riffs", str(path), "--output-dir", str(tmp_path / "riffs"))
    assert result.code == 0 and "guessed: 1 song without markers" in result.out
    assert [path.name for path in (tmp_path / "riffs").glob("*.mid")] == ["nameless_repeated-2-bars_guitar-1_bar001.mid"]
    assert json.loads((tmp_path / "riffs" / "cut_riffs.json").read_text())["songs"][0]["guessed"]


def test_what_was_left_out_is_counted(write: Callable[..., Path], tmp_path: Path, here: Here) -> None:
    notes = [(i / 2, 0.5, 45) for i in range(16)] + [(8 + i / 3, 0.3, 45) for i in range(24)]
    path = write("loose.mid", [midi_track(notes, program=30, name="Guitar")], markers=((0.0, "Verse"),))
    result = here("cut_riffs", str(path), "--output-dir", str(tmp_path / "riffs"))
    assert result.code == 0 and "left out of those, two bars at a time: 1 off the grid" in result.out
    (kept,) = json.loads((tmp_path / "riffs" / "cut_riffs.json").read_text())["songs"]
    assert kept["left_out"] == {"off the grid": 1} and kept["left_out_details"][0].startswith("off the grid: bars 3-4: ")


def test_nothing_of_a_users_is_overwritten(songs: Path, tmp_path: Path, here: Here) -> None:
    out = tmp_path / "riffs"
    cut = ["cut_riffs", str(songs), "--output-dir", str(out)]
    assert here(*cut).code == 1
    first = bytes_below(out)
    assert here(*cut).code == 1 and bytes_below(out) == first  # once more is no harm
    (out / "mine.mid").write_bytes(b"mine")
    nothing = here(*cut, "--section", "bridge")
    assert nothing.code == 1 and bytes_below(out) == {**first, "mine.mid": b"mine"}
    edited = next(out.glob("two_*.mid"))
    edited.write_bytes(b"edited")
    assert_one_line(here(*cut), "cut_riffs", edited.name, "move it away")
    assert edited.read_bytes() == b"edited"
    (out / "cut_riffs.json").write_text("[1]")
    assert_one_line(here(*cut), "cut_riffs", "cut_riffs.json", "move it away")
    assert_one_line(here("cut_riffs", str(songs), "--output-dir", str(songs / "two.mid")), "cut_riffs", "is a file")


def test_a_folder_can_be_filled_song_by_song(songs: Path, tmp_path: Path, here: Here) -> None:
    """Guards against riffs that vanish when other songs are cut into their folder; the record then tells of all."""
    out = tmp_path / "riffs"
    assert here("cut_riffs", str(songs / "One Song_v2.mid"), "--output-dir", str(out)).code == 0
    first = bytes_below(out)
    result = here("cut_riffs", str(songs / "more"), "--output-dir", str(out))
    assert result.code == 0 and "2 riffs of earlier cuts lie there too" in result.out
    assert {name for name in first if name.endswith(".mid")} < set(bytes_below(out))
    record = json.loads((out / "cut_riffs.json").read_text())
    assert {Path(song["song"]).name for song in record["songs"]} == {"One Song_v2.mid", "two.mid"}
    assert set(record["files"]) == {path.name for path in out.glob("*.mid")}


def test_songs_of_one_name_do_not_share_files(write: Callable[..., Path], tmp_path: Path, here: Here) -> None:
    """Cut in one call or in two: both songs are there, and the record tells of both, whatever was cut of them when."""
    song(write, "a/intro.mid", LOW)
    song(write, "b/intro.mid", HIGH, LOW[::-1], markers=((0.0, "Verse"), (8.0, "Chorus")))
    for out, calls in (("one", [["a", "b"]]), ("two", [["a"], ["b"]])):
        for call in calls:
            assert here("cut_riffs", *[str(tmp_path / name) for name in call], "--output-dir", str(tmp_path / out)).code == 0
    names = {"intro_verse_guitar-1_bar001.mid", "intro_verse_guitar-1_bar001-2.mid"}
    made = [bytes_below(tmp_path / name) for name in ("one", "two")]
    assert names < set(made[0]) and all(made[0][name] == made[1][name] for name in names)
    assert here("cut_riffs", str(tmp_path / "b"), "--section", "chorus", "--output-dir", str(tmp_path / "two")).code == 0
    record = json.loads((tmp_path / "two" / "cut_riffs.json").read_text())
    told = {f"{riff['name']}.mid": song["settings"]["cut"]["section"] for song in record["songs"] for riff in song["riffs"]}
    assert told == {**dict.fromkeys(names, "verse"), "intro_chorus_guitar-1_bar003.mid": "chorus"} and set(told) == set(record["files"])


def test_riffs_are_no_songs(songs: Path, here: Here) -> None:
    """The output may lie inside the input: what was cut is not cut again."""
    for _ in range(2):
        assert here("cut_riffs", str(songs), "--output-dir", str(songs / "mine")).code == 1
        assert len(list((songs / "mine").glob("*.mid"))) == 4


def test_names_that_are_no_text_do_no_harm(write: Callable[..., Path], tmp_path: Path, here: Here) -> None:
    path = song(write, "plain.mid", LOW, HIGH)
    odd = path.with_name(os.fsdecode(b"b\xffd_song.mid"))
    path.rename(odd)
    for flags in (["--list"], ["--output-dir", str(tmp_path / "riffs")]):
        result = here("cut_riffs", str(tmp_path), *flags)
        assert (result.code, result.err) == (0, "")
    assert len(list((tmp_path / "riffs").glob("b*d-song_verse_*.mid"))) == 2
    assert here("check_midi", str(odd), "--output-dir", str(tmp_path / "tabs"), "--wav").code == 0
    assert len(list((tmp_path / "tabs").iterdir())) == 3


def test_a_pipe_is_no_song(tmp_path: Path, here: Here) -> None:
    os.mkfifo(tmp_path / "pipe.mid")
    assert "no regular file" in here("cut_riffs", str(tmp_path / "pipe.mid"), "--list").out
    assert here("check_midi", str(tmp_path / "pipe.mid")).code == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "name the songs"),
        (["nowhere"], "nowhere: no such file"),
        ([".", "--dry-run"], "no song in it"),
        (["SONGS"], "--output-dir"),
        (["SONGS", "--dry-run", "--hop", "-1"], "--hop -1"),
        (["SONGS", "--dry-run", "--workers", "-1"], "--workers -1"),
        (["SONGS", "--dry-run", "--section", " "], "--section"),
        (["SONGS", "--dry-run", "--section", "verse,"], "--section"),
        (["SONGS", "--dry-run", "--low", "90"], "--low 90"),
    ],
)
def test_a_mistake_is_one_line(
    flags: list[str], said: str, songs: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert_one_line(here("cut_riffs", *[str(songs) if flag == "SONGS" else flag for flag in flags]), "cut_riffs", said)


def test_a_file_that_takes_too_long_is_refused() -> None:
    with pytest.raises(MidiError, match="more than 1 s"), cut_riffs.time_limit(1):
        time.sleep(5)
    with cut_riffs.time_limit(1):
        pass
    time.sleep(1.1)  # the alarm is off again


def test_names_of_files_are_plain_and_tell_the_song() -> None:
    assert slug("Nub_Hat (v2)  ÉTÉ") == "nub-hat-v2-ete"
    assert slug("벌스 1") == "벌스-1" and slug("///") == "x" and len(slug("a" * 300)) == 40
    assert "_" not in slug("_a__b_") and ".." not in slug("../../etc/passwd")
