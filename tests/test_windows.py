"""Windows of songs: which line is read, what becomes of it, and the way back to MIDI; the token file that holds them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import mido
import numpy as np
import pytest
import torch
from conftest import Here, assert_one_line, midi_bytes, midi_track
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from config import DataConfig, SongConfig, TokenizerConfig, UserError, parse_programs
from family import corpus
from family.corpus import find_songs, known_windows, load_windows, make_token_file, named_right, summary, transposed
from family.drums import KITS
from family.measures import KnownWindows
from family.resident import ResidentWindows, fits
from family.windows import given_steps, read_windows, to_pattern, windows_to_midi
from midi_utils import MidiError, parse_midi

T = TokenizerConfig(policy="highest")
KINDS = {kind: dataclasses.replace(T, representation=kind) for kind in ("mono", "drums", "groove", "trio")}  # type: ignore[arg-type]
SONGS = SongConfig(songs=True, min_notes_per_bar=1.0, workers=1)
DATA = DataConfig(low=1, high=127)
Note = tuple[float, float, int]


def line(start: int, bars: int = 4) -> list[Note]:
    """Quarter notes, each bar its own."""
    return [(float(i), 1.0, start + (i * i + i // 4) % 7) for i in range(4 * bars)]


def beats(bars: int = 4) -> list[Note]:
    """Kick on 1 and 3, snare on 2 and 4, closed hats in eighths."""
    kicks = [(float(i), 0.25, 36 if i % 2 == 0 else 38) for i in range(4 * bars)]
    return kicks + [(i / 2, 0.25, 42) for i in range(8 * bars)]


def band(bars: int = 4) -> list[mido.MidiTrack]:
    """A lead, a second melody, a bass and drums."""
    return [
        midi_track(line(72, bars), program=27, name="Lead"),
        midi_track(line(64, bars), program=0, name="Keys", channel=1),
        midi_track(line(40, bars), program=33, name="Bass", channel=2),
        midi_track(beats(bars), program=0, name="Kit", channel=9),
    ]


# ---------------------------------------------------------------- which line


def test_every_line_of_the_programs_is_read(write: Callable[..., Path]) -> None:
    path = write("band.mid", band())
    windows, left = read_windows(path, SONGS, DATA, KINDS["mono"])
    assert sorted({window.part for window in windows}) == ["Bass", "Keys", "Lead"] and not left
    assert [window.first_bar for window in windows] == [1, 1, 1, 3, 3, 3]
    bass, _ = read_windows(path, dataclasses.replace(SONGS, programs="32-39"), DATA, KINDS["mono"])
    assert {(window.part, window.programs) for window in bass} == {("Bass", (33,))}
    for track in ("2", "key"):
        keys, _ = read_windows(path, dataclasses.replace(SONGS, track=track), DATA, KINDS["mono"])
        assert {window.part for window in keys} == {"Keys"}
    assert bass[0].steps[:5].tolist() == [40, 128, 128, 128, 41]


def test_one_file_with_several_lines_says_how_to_choose(write: Callable[..., Path]) -> None:
    with pytest.raises(MidiError, match=r"several lines: 3 fit: 1 Lead \(clean guitar.*, 2 Keys .*, 3 Bass .*; choose one with --track"):
        read_windows(write("band.mid", band()), SONGS, DATA, KINDS["mono"], one_line=True)
    with pytest.raises(MidiError, match=r"2 fit as the melody: 1 Lead .*, 2 Keys .*--track"):
        read_windows(write("band.mid", band()), SONGS, DATA, KINDS["trio"], one_line=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"programs": "80-87"},
            r"no usable line: none of programs 80-87; there: 1 Lead \(clean guitar.*4 Kit \(drums\); choose with --track",
        ),
        ({"track": "violin"}, "none of --track violin; there: 1 Lead"),
        ({"track": "4"}, "none of --track 4"),
    ],
)
def test_no_line_says_what_there_is(write: Callable[..., Path], change: dict[str, str], said: str) -> None:
    with pytest.raises(MidiError, match=said):
        read_windows(write("band.mid", band()), dataclasses.replace(SONGS, **change), DATA, KINDS["mono"])


def test_only_drums_is_no_line_and_no_drums_are_no_drums(write: Callable[..., Path]) -> None:
    with pytest.raises(MidiError, match="it has only drums"):
        read_windows(write("kit.mid", band()[3:]), SONGS, DATA, KINDS["mono"])
    with pytest.raises(MidiError, match="no drums"):
        read_windows(write("lead.mid", band()[:1]), SONGS, DATA, KINDS["drums"])
    with pytest.raises(MidiError, match="no usable line: none of programs 32-39"):
        read_windows(write("nobass.mid", [band()[0], band()[3]]), SONGS, DATA, KINDS["trio"])


def test_a_trio_is_every_melody_with_the_bass_and_the_drums(write: Callable[..., Path]) -> None:
    windows, _ = read_windows(write("band.mid", band()), SONGS, DATA, KINDS["trio"])
    assert [(window.first_bar, window.part, window.programs) for window in windows] == [
        (1, "Lead", (27, 33)), (1, "Keys", (0, 33)), (3, "Lead", (27, 33)), (3, "Keys", (0, 33)),
    ]  # fmt: skip
    first = windows[0].steps
    assert first.shape == (32, 3)
    assert first[0].tolist() == [72, 40, 0b101] and first[4, 2] == 0b110 and first[2].tolist() == [128, 128, 0b100]


@pytest.mark.parametrize("kind", ["mono", "trio"])
def test_a_line_that_is_too_short_costs_no_other(kind: str, write: Callable[..., Path]) -> None:
    """Also when it comes last."""
    late = midi_track([(16.0, 1.0, 80), (17.0, 1.0, 81)], program=5, name="Late", channel=3)
    windows, _ = read_windows(write("late.mid", [*band(), late]), SONGS, DATA, KINDS[kind])
    assert {window.part for window in windows} >= {"Lead", "Keys"} and "Late" not in {window.part for window in windows}


def test_lines_of_one_name_are_told_apart(write: Callable[..., Path]) -> None:
    twice = [midi_track(line(60, bars), program=0, name="Piano", channel=i) for i, bars in enumerate((4, 2))]
    with pytest.raises(MidiError, match=r"1 Piano \(program 0\), 2 Piano \(program 0\); choose one with --track"):
        read_windows(write("two.mid", twice), SONGS, DATA, KINDS["mono"], one_line=True)


def test_reading_too_long_refuses_the_whole_file(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit may strike while one window is read, whose errors are counted and passed over."""
    import time

    import family.windows
    from workers import time_limit

    real = family.windows.read_riff
    monkeypatch.setattr(family.windows, "read_riff", lambda *args, **kwargs: (time.sleep(0.6), real(*args, **kwargs))[1])
    with pytest.raises(MidiError, match="more than 1 s"), time_limit(1):
        read_windows(write("band.mid", band()), SONGS, DATA, KINDS["mono"])


def test_hop_overlap_and_sparse_windows(write: Callable[..., Path]) -> None:
    path = write("lead.mid", [midi_track([*line(60, 4), (24.0, 1.0, 60)], program=27)])
    hopped, _ = read_windows(path, dataclasses.replace(SONGS, hop=1), DATA, T)
    assert [window.first_bar for window in hopped] == [1, 2, 3, 4]
    least, left = read_windows(path, dataclasses.replace(SONGS, hop=1, min_notes_per_bar=2.0), DATA, T)
    assert [window.first_bar for window in least] == [1, 2, 3, 4] and left["no notes"] == 2
    assert len(read_windows(path, SONGS, DATA, T)[0]) == 2  # without a hop, bars 5-6 and 7 give nothing


def test_drums_by_kit(write: Callable[..., Path]) -> None:
    """Pitch 45 is a low tom in General MIDI, and the mid tom's rim of the Roland kit."""
    path = write("toms.mid", [midi_track([(float(i), 0.25, 45) for i in range(8)], channel=9)])
    for kit, number in (("general", 4), ("roland", 5)):
        (window,), _ = read_windows(path, dataclasses.replace(SONGS, kit=kit), DATA, KINDS["drums"])  # type: ignore[arg-type]
        assert window.steps[0] == 1 << number
        assert 45 in KITS[kit][number]  # type: ignore[index]


def test_programs_are_read_or_refused() -> None:
    assert parse_programs("0-2, 80", "--programs") == {0, 1, 2, 80} and parse_programs("", "--programs") == set()
    for wrong in ("x", "5-3", "128", "1-", "-1"):
        with pytest.raises(UserError, match="--programs"):
            parse_programs(wrong, "--programs")


# ---------------------------------------------------------------- and back


def legal_line(tokens: np.ndarray) -> np.ndarray:
    """Without holds that hold nothing."""
    for t in range(len(tokens)):
        if tokens[t] == 128 and (t == 0 or tokens[t - 1] == 0):
            tokens[t] = 0
    return tokens


LINES = hnp.arrays(np.int64, (32,), elements=st.one_of(st.integers(0, 128), st.just(128))).map(legal_line)


@given(LINES, LINES, hnp.arrays(np.int64, (32,), elements=st.integers(0, 511)))
@settings(max_examples=40, deadline=None)
def test_a_trio_survives_midi(high: np.ndarray, low: np.ndarray, kit: np.ndarray) -> None:
    high[0], low[0], kit[0] = 60, 40, 1  # each part is there, from the first bar on
    steps = np.stack([high, low, kit], axis=1)
    midi = parse_midi(windows_to_midi([steps], KINDS["trio"], 110.0, (27, 34)))
    assert [track.program for track in midi.tracks[:2]] == [27, 34] and midi.tracks[2].is_drum
    assert read_back(windows_to_midi([steps, steps], KINDS["trio"], 110.0, (27, 34)), "trio", 2)[0].tolist() == steps.tolist()


@given(LINES, hnp.arrays(np.int64, (32,), elements=st.integers(0, 511)))
@settings(max_examples=40, deadline=None)
def test_lines_and_drums_survive_midi(tokens: np.ndarray, kit: np.ndarray) -> None:
    tokens[0], kit[0] = 60, 3
    for kind, steps in (("mono", tokens), ("drums", kit)):
        assert read_back(windows_to_midi([steps], KINDS[kind], 90.0, (5,)), kind, 1)[0].tolist() == steps.tolist()


def read_back(data: bytes, kind: str, count: int) -> list[np.ndarray]:
    """The windows of a file that was just written; through a file, as users read it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mid"
        path.write_bytes(data)
        songs = dataclasses.replace(SONGS, min_notes_per_bar=0.0, programs="" if kind == "mono" else "0-31")
        windows, _ = read_windows(path, songs, DATA, KINDS[kind], one_line=True)
    assert len(windows) == count
    return [window.steps.astype(np.int64) for window in windows]


def test_files_are_as_long_as_their_bars_and_carry_their_markers() -> None:
    silent = np.zeros(32, dtype=np.int64)
    one = silent.copy()
    one[0] = 50
    for kind, steps in (("mono", one), ("drums", one), ("trio", np.stack([one, one, one], axis=1)), ("groove", np.zeros((32, 27)))):
        file = mido.MidiFile(file=BytesIO(windows_to_midi([steps, steps], KINDS[kind], 120.0, (), ("a", "b"))))
        assert {sum(message.time for message in track) for track in file.tracks} == {file.ticks_per_beat * 16}
        if kind in ("mono", "trio"):
            assert [message.text for message in file.tracks[0] if message.type == "marker"] == ["a", "b"]


def test_what_the_encoder_is_given() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((2, 32, 9)) < 0.3
    groove = np.concatenate([hits, hits * rng.random(hits.shape), hits * (2 * rng.random(hits.shape) - 1)], axis=-1).astype(np.float32)
    assert given_steps(groove, KINDS["groove"]) is groove
    score = given_steps(groove, dataclasses.replace(KINDS["groove"], given="hits"))
    assert np.array_equal(score[..., :9], groove[..., :9]) and not score[..., 9:].any()
    taps = given_steps(groove, dataclasses.replace(KINDS["groove"], given="taps"))
    assert np.array_equal(taps[..., 2], groove[..., :9].max(axis=-1)) and not taps[..., [0, 1, 3, 4, 5, 6, 7, 8]].any()
    assert np.array_equal(taps[..., 11], groove[..., 9:18].max(axis=-1))  # the loudest hit's velocity
    loudest = groove[..., 9:18].argmax(axis=-1)
    assert np.array_equal(taps[..., 20], np.take_along_axis(groove[..., 18:], loudest[..., None], axis=-1)[..., 0])  # and its timing
    pattern = to_pattern(groove[0], KINDS["groove"])
    assert np.allclose(pattern.velocity, groove[0, :, 9:18]) and np.allclose(pattern.offset, groove[0, :, 18:])
    with pytest.raises(UserError, match="--given hits: is for --representation groove"):
        TokenizerConfig(given="hits")


def test_windows_py_shows_a_file(here: Here, write: Callable[..., Path]) -> None:
    shown = here("family.windows", str(write("band.mid", band())), "trio")
    assert shown.code == 0 and "bar 1, 100 bpm Lead" in shown.out and "kick x" in shown.out
    assert_one_line(here("family.windows", str(write("kit.mid", band()[3:]))), "family.windows", "no usable line")


# ---------------------------------------------------------------- the token file


@pytest.fixture
def songs_folder(tmp_path: Path) -> Path:
    """Six songs: four by their own notes, one that repeats another a tone higher, one in three."""
    folder = tmp_path / "songs"
    (folder / "sub").mkdir(parents=True)
    for i in range(4):
        rng = np.random.default_rng(i)
        notes = [(float(at), 1.0, int(pitch)) for at, pitch in enumerate(rng.integers(50, 70, size=32))]
        (folder / f"song{i}.mid").write_bytes(midi_bytes(midi_track(notes, program=24 + i), tempos=((0, 100 + i),)))
        if i == 0:
            higher = [(at, length, pitch + 2) for at, length, pitch in notes]
            (folder / "sub" / "again.mid").write_bytes(midi_bytes(midi_track(higher)))
    (folder / "waltz.mid").write_bytes(midi_bytes(midi_track(line(60)), meters=((0, 3, 4),)))
    return folder


def load(folder: Path, path: Path, songs: SongConfig = SONGS, **data: float) -> corpus.WindowData:
    return load_windows(dataclasses.replace(DATA, data=str(folder), holdout=0.4, **data), songs, T, path)  # type: ignore[arg-type]


def test_a_token_file_is_made_once_and_reused(songs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run" / "tokens.npy"
    first = load(songs_folder, path)
    assert isinstance(first.tokens, np.memmap) and first.tokens.shape == (20, 32) and first.tokens.dtype == np.uint8
    assert [row.reason for row in first.rows if not row.riffs] == ["known", "not 4/4"]  # a transposed song, held out and trained on
    assert sorted(p.name for p in path.parent.iterdir()) == ["tokens.json", "tokens.npy"]
    record = json.loads(path.with_suffix(".json").read_text())
    assert sum(row["windows"] for row in record["files"]) == 20 and record["files"][0]["bars"] == [1, 3, 5, 7]
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "make_token_file", None)  # nothing is cut again
        assert load(songs_folder, path).fingerprint == first.fingerprint
        assert load(path, path).fingerprint == first.fingerprint  # and the file itself will do for data
    os.utime(songs_folder / "song1.mid", (1, 1))
    calls: list[Path] = []
    real = make_token_file
    monkeypatch.setattr(corpus, "make_token_file", lambda *args: (calls.append(args[0]), real(*args))[1])
    assert load(songs_folder, path).fingerprint == first.fingerprint and len(calls) == 1
    assert len(load(songs_folder, path, dataclasses.replace(SONGS, hop=1)).tokens) > 20 and len(calls) == 2


def test_a_run_that_goes_on_keeps_its_token_file(songs_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    first = load(songs_folder, path)
    before = path.read_bytes()
    (songs_folder / "new.mid").write_bytes(midi_bytes(midi_track(line(50))))
    data = dataclasses.replace(DATA, data=str(songs_folder), holdout=0.4)
    with pytest.raises(UserError, match=r"this run began with other windows .the songs changed.*--restart"):
        load_windows(data, SONGS, T, path, may_change=False)
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.glob("tokens*")) == ["tokens.json", "tokens.npy"]
    (songs_folder / "new.mid").unlink()
    os.utime(songs_folder / "song1.mid", (1, 1))  # another date, the same music
    assert load_windows(data, SONGS, T, path, may_change=False).fingerprint == first.fingerprint


def test_a_link_to_nothing_is_one_refused_file(songs_folder: Path, tmp_path: Path) -> None:
    (songs_folder / "zz.mid").symlink_to(tmp_path / "nowhere.mid")
    reasons = {row.file: row.reason for row in load(songs_folder, tmp_path / "t.npy").rows}
    assert reasons["zz.mid"] and reasons["song2.mid"] == ""
    assert load(songs_folder, tmp_path / "t.npy").record["windows"] == 20


def test_a_token_file_is_read_by_its_own_rules(songs_folder: Path, tmp_path: Path) -> None:
    made = load(songs_folder, tmp_path / "t.npy", dataclasses.replace(SONGS, hop=1, programs="24-31"))
    again = load(tmp_path / "t.npy", tmp_path / "t.npy", dataclasses.replace(SONGS, hop=7))
    assert again.songs_config.hop == 1 and again.songs_config.programs == "24-31" and again.fingerprint == made.fingerprint


def test_workers_cut_the_same_bytes(songs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "CHUNK", 2)
    for count in (1, 2):
        make_token_file(
            tmp_path / f"{count}.npy", dataclasses.replace(DATA, data=str(songs_folder)), dataclasses.replace(SONGS, workers=count), T
        )
    assert (tmp_path / "1.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_nobody_elses_file_is_overwritten_or_taken(songs_folder: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "tokens.npy"
    np.save(foreign, np.arange(5))
    for data in (songs_folder, foreign):
        with pytest.raises(UserError, match="no token file of ours"):
            load(data, foreign)
    assert np.array_equal(np.load(foreign), np.arange(5))
    made = tmp_path / "other.npy"
    load(songs_folder, made)
    with pytest.raises(UserError, match=r"holds other tokens \(bars 2 -> 4\)"):
        load_windows(dataclasses.replace(DATA, data=str(made)), SONGS, dataclasses.replace(T, bars=4), made)


def test_held_out_windows_that_are_trained_on_are_left_out(songs_folder: Path, tmp_path: Path) -> None:
    """Song 0 and its transposed copy, on two sides of the split."""
    found = 0
    for seed in range(12):
        windows = load(songs_folder, tmp_path / "t.npy", split_seed=seed)
        sides = {row.song: row.held_out for row in windows.rows}
        apart = sides["song0"] != sides["sub/again"]
        assert windows.known == (4 if apart else 0)
        assert len(windows.train_index) + len(windows.held_out_tokens) + windows.known == 20
        assert str(windows.known) + " of held-out songs left out" in summary(windows)
        found += apart
    assert 0 < found < 12


def test_one_pattern_names_songs_apart_from_files(songs_folder: Path, tmp_path: Path) -> None:
    windows = load(songs_folder, tmp_path / "t.npy", dataclasses.replace(SONGS, song_pattern="^(song)"))
    assert {row.song for row in windows.rows} == {"song", "sub/again", "waltz"}
    with pytest.raises(UserError, match="one group"):
        SongConfig(song_pattern="song")
    with pytest.raises(UserError, match="no regular expression"):
        SongConfig(song_pattern="(")


def test_at_most_so_many_windows(songs_folder: Path, tmp_path: Path) -> None:
    windows = load(songs_folder, tmp_path / "t.npy", dataclasses.replace(SONGS, max_windows=10))
    assert len(windows.train_index) + len(windows.held_out_tokens) + windows.known == 10


def test_groove_file_names_choose_files() -> None:
    stem = "12_rock-folk_90_beat_4-4"
    for change, right in (
        ({}, True), ({"genre": "rock"}, True), ({"genre": "Rock-Folk"}, True), ({"genre": "jazz"}, False),
        ({"beat_type": "beat"}, True), ({"beat_type": "fill"}, False), ({"meter": "4/4"}, True), ({"meter": "3-4"}, False),
        ({"genre": "rock", "beat_type": "fill"}, False),
    ):  # fmt: skip
        assert named_right(stem, SongConfig(**change)) == right, change  # type: ignore[arg-type]
    assert named_right("song", SongConfig()) and not named_right("song", SongConfig(genre="rock"))


def test_recursive_or_not(songs_folder: Path) -> None:
    data = dataclasses.replace(DATA, data=str(songs_folder))
    assert len(find_songs(data, SONGS)) == 6
    assert len(find_songs(data, dataclasses.replace(SONGS, recursive=False))) == 5
    with pytest.raises(UserError, match="none of its 6 files is named as asked"):
        find_songs(data, dataclasses.replace(SONGS, genre="rock"))


def test_what_generate_py_wrote_is_not_trained_on(songs_folder: Path, tmp_path: Path) -> None:
    (songs_folder / "song1.json").write_text('{"sha256": "0"}')
    reasons = {row.file: row.reason for row in load(songs_folder, tmp_path / "t.npy").rows}
    assert reasons["song1.mid"] == "generated" and reasons["song2.mid"] == ""


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "waltz.mid").write_bytes(midi_bytes(midi_track(line(60)), meters=((0, 3, 4),)))
    with pytest.raises(UserError, match=r"none of its 1 files can be used \(1 not 4/4\); the first: waltz.mid, 3/4"):
        load(tmp_path / "songs", tmp_path / "t.npy")
    assert not list(tmp_path.glob("t.*"))


def test_augmentation_is_fresh_and_stays_in_range(songs_folder: Path, tmp_path: Path) -> None:
    windows = load(songs_folder, tmp_path / "t.npy", transpose=3, transpose_low=49, transpose_high=71)
    index = np.arange(len(windows.train_index))
    epochs = [windows.batch(index, [0, step]) for step in range(20)]
    sounds = [batch[(batch > 0) & (batch < 128)] for batch in epochs]
    assert min(map(np.min, sounds)) >= 49 and max(map(np.max, sounds)) <= 71
    assert len({batch.tobytes() for batch in epochs}) > 15  # not frozen
    assert np.array_equal(epochs[0], windows.batch(index, [0, 0]))
    trio = np.stack([epochs[0], epochs[0] - (epochs[0] > 0) * (epochs[0] < 128) * 12, epochs[0] * 0 + 5], axis=-1)
    moved = transposed(trio, dataclasses.replace(windows.config, transpose_low=30), np.random.default_rng(0).random(len(trio)))
    shift = (moved - trio)[..., :2]
    assert (shift[..., 0] == shift[..., 1]).all() and (moved[..., 2] == 5).all() and len(np.unique(shift)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_windows_on_a_device_are_those_of_the_file(kind: str, songs_folder: Path, tmp_path: Path) -> None:
    """Batch by batch, transpositions included; every representation, in the type its token file has."""
    windows = load(songs_folder, tmp_path / "t.npy", transpose=5, transpose_low=45, transpose_high=73)
    tokens, rng = np.asarray(windows.tokens), np.random.default_rng(0)
    if kind == "trio":
        bass = np.where((tokens > 0) & (tokens < 128), tokens - 12, tokens)
        tokens = np.stack([tokens, bass, rng.integers(0, 512, tokens.shape)], axis=-1).astype(np.uint16)
    elif kind != "mono":
        tokens = rng.integers(0, 512, tokens.shape).astype(np.uint16) if kind == "drums" else rng.random((*tokens.shape, 27), np.float32)
    windows = dataclasses.replace(windows, tokens=tokens, tokenizer=KINDS[kind])
    there, batches = ResidentWindows(windows, torch.device("cpu")), []
    for step in range(5):
        index = rng.integers(0, len(windows.train_index), 40)
        batches.append(there.batch(index, [7, step]))
        expected = windows.batch(index, [7, step])
        assert np.array_equal(batches[-1].numpy(), expected) and batches[-1].dtype == (torch.float32 if kind == "groove" else torch.int64)
    assert not fits(windows, torch.device("cpu"))  # there they are mapped


def test_known_trios_in_any_key() -> None:
    rng = np.random.default_rng(0)
    trio = np.stack([rng.integers(60, 70, 32), rng.integers(36, 48, 32), rng.integers(0, 512, 32)], axis=1).astype(np.uint16)
    higher, other_bass = trio.copy(), trio.copy()
    higher[:, :2] += 2
    other_bass[3, 1] += 1
    tokens = np.stack([trio, higher, other_bass])
    assert known_windows(tokens, np.array([0]), np.array([1, 2]), KINDS["trio"]).tolist() == [1]
    known = KnownWindows(tokens[:1], KINDS["trio"])
    nearest = known.nearest(tokens)
    assert nearest.copied[0] == nearest.copied[1] == 1 > nearest.copied[2]
    low = trio.copy()
    low[:, 1] = rng.integers(24, 36, 32)  # far below the melody, and another line
    assert known.nearest(low[None]).copied[0] < 0.95


def test_known_windows_in_any_key() -> None:
    tokens = np.tile(np.array([[60, 128, 0, 62]], dtype=np.uint8), (4, 8))
    tokens[1][tokens[1] == 60], tokens[1][tokens[1] == 62] = 65, 67
    tokens[2, 5] = 61
    assert known_windows(tokens, np.array([0]), np.array([1, 2, 3]), T).tolist() == [1, 3]
    assert known_windows(tokens, np.array([0]), np.array([1, 2, 3]), KINDS["drums"]).tolist() == [3]
