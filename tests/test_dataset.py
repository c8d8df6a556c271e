"""A folder of riffs: what is used, what is refused and why, duplicates, the split, and the stream of examples."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import EIGHTHS, Note, midi_track, riff_bytes, small_songs
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset
from config import HOLD, REST, DataConfig, TokenizerConfig, UserError
from dataset import (
    ExampleStream,
    RiffData,
    augmented_batch,
    find_music_files,
    load_riffs,
    mix_bars,
    read_file_riffs,
    save_table,
    shift_range,
    split_by_song,
    summary,
    training_stream,
    transpose,
)
from midi_utils import MAX_FILE_BYTES, MidiError, is_legal

TOKENIZER = TokenizerConfig()
Write = Callable[..., Path]


def tune(seed: int, shift: int = 0) -> list[Note]:
    """Two bars of eighths, different for every seed."""
    pitches = np.random.default_rng(seed).integers(45, 65, size=16)
    return [(i / 2, 0.5, int(pitch) + shift) for i, pitch in enumerate(pitches)]


def load(folder: Path, **options) -> RiffData:
    return load_riffs(DataConfig(data=str(folder), **options), TOKENIZER)


def refusal(path: Path, tokenizer: TokenizerConfig = TOKENIZER, **rules) -> tuple[str, str]:
    with pytest.raises(MidiError) as error:
        read_file_riffs(path, DataConfig(**rules), tokenizer)
    return error.value.reason, error.value.detail


# ---------------------------------------------------------------- one file


def test_a_four_bar_file_gives_two_riffs(write: Write) -> None:
    riffs, remarks = read_file_riffs(write("a.mid", tune(0) + [(at + 8, n, p) for at, n, p in tune(1)]), DataConfig(), TOKENIZER)
    assert [(riff.first_bar, riff.name) for riff in riffs] == [(1, "a"), (3, "a")]
    assert [riff.tokens[0] for riff in riffs] == [tune(0)[0][2], tune(1)[0][2]]
    assert remarks == []


def test_what_is_left_out_is_said(write: Write) -> None:
    _, remarks = read_file_riffs(write("three.mid", [*tune(0), (8, 1, 50)]), DataConfig(), TOKENIZER)
    assert remarks == ["bar 3 left over"]
    _, remarks = read_file_riffs(write("chord.mid", [*tune(0), (0, 0.5, 80)]), DataConfig(), TOKENIZER)
    assert remarks == ["1 chord note left out (lowest kept)"]
    tracks = [midi_track(tune(0), program=29, name="Gtr"), midi_track(tune(1), program=33, name="Bass", channel=1)]
    riffs, remarks = read_file_riffs(write("two.mid", tracks), DataConfig(), TOKENIZER)
    assert remarks == ["2 tracks: read Gtr, overdriven guitar (program 29)"]
    assert (len(riffs), riffs[0].program) == (1, 29)
    held = [*tune(0)[:-1], (7.5, 2.5, 45), *((at + 10, n, p) for at, n, p in tune(1)[4:16])]
    remarks = read_file_riffs(write("held.mid", held), DataConfig(), TOKENIZER)[1]
    assert "bars 3-4: a note that rings in from the bar before is a rest" in remarks
    low = tune(0) + [(at + 8, n, 20) for at, n, _ in tune(0)]
    riffs, remarks = read_file_riffs(write("half.mid", low), DataConfig(), TOKENIZER)
    assert len(riffs) == 1
    assert remarks == ["out of range: bars 3-4: G#0, allowed E1 to E6"]


def test_refusals_of_one_file(write: Write) -> None:
    long = [(float(i), 1.0, 50) for i in range(40)]
    assert refusal(write("long.mid", long)) == ("too long", "10 bars, at most 8 (--max-bars): a song, cut it into riffs first")
    assert len(read_file_riffs(write("long.mid", long), DataConfig(max_bars=0), TOKENIZER)[0]) == 5
    assert len(read_file_riffs(write("eight.mid", long[:32]), DataConfig(), TOKENIZER)[0]) == 4
    assert refusal(write("short.mid", EIGHTHS[:8])) == ("too short", "1 bar, 2 needed")
    assert refusal(write("waltz.mid", [*EIGHTHS, (8, 1, 40)], meters=[(0, 3, 4)])) == ("not 4/4", "3/4")
    assert refusal(write("jig.mid", EIGHTHS, meters=[(0, 6, 8)])) == ("not 4/4", "6/8")
    assert refusal(write("triplets.mid", [(i / 3, 1 / 3, 40) for i in range(24)]))[0] == "off the grid"
    assert refusal(write("low.mid", [(at, n, p - 20) for at, n, p in EIGHTHS]))[0] == "out of range"
    assert refusal(write("drums.mid", EIGHTHS, channel=9)) == ("no notes", "only drums")
    assert refusal(write("sparse.mid", EIGHTHS), min_notes=17)[0] == "no notes"
    assert refusal(write("chord.mid", [*EIGHTHS, (0, 1, 70)]), TokenizerConfig(policy="reject"))[0] == "polyphonic"
    assert refusal(write("empty.mid", b""))[0] == "unreadable"
    assert refusal(write("large.mid", bytes(MAX_FILE_BYTES + 1)))[0] == "unreadable"
    assert refusal(write("good.gp5", EIGHTHS)) == ("not MIDI", "a .gp5 file; cut_riffs.py cuts it into riffs")


def test_the_same_in_another_format_is_passed_over(write: Callable[..., Path], tmp_path: Path) -> None:
    """Guards against a folder of our own riffs whose tab and Guitar Pro files are counted as refused."""
    for name in ("one/a.mid", "one/a.gp5", "one/b.gp5", "one/A.gp5"):
        write(name, EIGHTHS)
    assert [path.name for path in find_music_files(tmp_path / "one")] == ["A.gp5", "a.mid", "b.gp5"]


def test_a_riff_whose_second_bar_is_a_rest_is_accepted_by_its_end_of_track(write: Write) -> None:
    (riff,), _ = read_file_riffs(write("a.mid", EIGHTHS[:8], end=8), DataConfig(), TOKENIZER)
    assert (riff.tokens[16:] == REST).all() and riff.tokens[14] != REST
    (again,), _ = read_file_riffs(write("b.mid", riff_bytes(riff.tokens.tolist())), DataConfig(), TOKENIZER)
    np.testing.assert_array_equal(again.tokens, riff.tokens)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_few_notes_off_the_grid_are_put_on_it(write: Write, share: float) -> None:
    late = round(share * 32)
    notes = [(i / 4 + 0.1 * (i < late), 0.1, 50) for i in range(32)]  # .1 quarter notes are .4 steps
    path = write("a.mid", notes)
    if share > 0.1:
        assert refusal(path)[0] == "off the grid"
    else:
        assert read_file_riffs(path, DataConfig(), TOKENIZER)[0][0].tokens.tolist() == [50] * 32


# ---------------------------------------------------------------- a folder


def test_files_are_found_in_subfolders_in_a_fixed_order(write: Write, tmp_path: Path) -> None:
    for name in ("b.mid", "a.MIDI", "deep/er/c.Mid", "notes.txt", "song.gp5", "x.mid.bak"):
        write(name)
    (tmp_path / "folder.mid").mkdir()
    assert [p.relative_to(tmp_path).as_posix() for p in find_music_files(tmp_path)] == ["a.MIDI", "b.mid", "deep/er/c.Mid", "song.gp5"]


def test_every_file_ends_as_used_or_refused(write: Write, tmp_path: Path) -> None:
    write("a_1.mid", tune(0))
    write("a_2.mid", tune(1))
    write("b_1.mid", b"not MIDI at all")
    write("c_1.mid", EIGHTHS[:8])
    write("tab.gp4", b"")
    data = load(tmp_path)
    assert [(row.file, row.song, row.riffs, row.reason) for row in data.rows] == [
        ("a_1.mid", "a", 1, ""),
        ("a_2.mid", "a", 1, ""),
        ("b_1.mid", "b", 0, "unreadable"),
        ("c_1.mid", "c", 0, "too short"),
        ("tab.gp4", "tab", 0, "not MIDI"),
    ]
    assert data.tokens.shape == (2, 32)
    text = summary(data)
    assert "5 files, 2 used, 3 refused; 2 riffs of 1 song\n" in text
    for reason in ("unreadable: 1: b_1.mid", "too short: 1: c_1.mid (1 bar, 2 needed)", "not MIDI: 1: tab.gp4"):
        assert f"refused, {reason}" in text


def test_one_is_not_said_in_the_plural(write: Write, tmp_path: Path) -> None:
    write("a_1.mid", tune(0))
    text = summary(load(tmp_path))
    assert "1 file, 1 used, 0 refused; 1 riff of 1 song\n" in text and "1 to train on, 0 held out (0 songs)" in text
    assert [dataset.plural(count, "riff") for count in (0, 1, 2)] == ["0 riffs", "1 riff", "2 riffs"]


def test_the_table_is_saved_as_csv(write: Write, tmp_path: Path) -> None:
    for i in range(4):
        write(f"s{i}_a.mid", [*tune(i), (0, 0.5, 80)])
    write('bad, "quoted".mid', b"")
    data = load(tmp_path)
    table = tmp_path / "out" / "table.csv"
    save_table(data.rows, table)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "song", "status", "riffs", "reason", "detail"]
    assert rows[0] == {
        "file": 'bad, "quoted".mid', "song": 'bad, "quoted"', "status": "refused", "riffs": "0",
        "reason": "unreadable", "detail": "the file is empty",
    }  # fmt: skip
    assert [row["status"] == "held out" for row in rows[1:]] == [row.held_out for row in data.rows[1:]]
    assert {row["status"] for row in rows[1:]} == {"train", "held out"}
    assert rows[1]["detail"] == "1 chord note left out (lowest kept)"


def test_exact_and_transposed_duplicates_are_used_once(write: Write, tmp_path: Path) -> None:
    write("a.mid", tune(0))
    write("b.mid", tune(0), program=30, tempos=[(0, 77)])
    write("c.mid", tune(0, shift=3))
    write("d.mid", tune(1))
    write("e.mid", tune(2) + [(at + 8, n, p) for at, n, p in tune(1)])
    data = load(tmp_path)
    assert [(row.riffs, row.reason, row.detail) for row in data.rows] == [
        (1, "", ""),
        (0, "duplicate", "bar 1 repeats a.mid"),
        (0, "duplicate", "bar 1 repeats, transposed, a.mid"),
        (1, "", ""),
        (1, "", "bar 3 repeats d.mid"),
    ]
    assert len(data.tokens) == 3


def test_a_riff_that_repeats_within_its_own_file_is_used_once(write: Write, tmp_path: Path) -> None:
    write("a.mid", tune(0) + [(at + 8, n, p) for at, n, p in tune(0)])
    data = load(tmp_path)
    assert (len(data.tokens), data.rows[0].detail) == (1, "bar 3 repeats a.mid")


def test_no_folder_no_files_and_nothing_usable_are_user_errors(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \.mid or \.midi file"):
        load(tmp_path / "empty")
    write("bad/a.mid", b"")
    write("bad/b.mid", b"x")
    write("bad/c.mid", EIGHTHS[:8])
    with pytest.raises(UserError, match=r"none of its 3 MIDI files can be used \(2 unreadable, 1 too short\); the first: a\.mid") as error:
        load(tmp_path / "bad")
    assert "\n" not in str(error.value)


def test_five_riffs_are_enough(write: Write, tmp_path: Path) -> None:
    for i in range(5):
        write(f"song{i}.mid", tune(i), tempos=[(0, 90 + i)], program=29 if i else 30)
    data = load(tmp_path)
    assert (len(data.train_tokens), len(data.held_out_tokens)) == (4, 1)
    assert data.defaults()["program"] == 29
    assert 90 <= data.defaults()["bpm"] <= 94
    index, shift = ExampleStream(*shift_range(data.train_tokens, data.config), seed=0).batch(0, 64)
    assert set(index.tolist()) == {0, 1, 2, 3} and len(shift) == 64


def test_one_riff_has_nothing_held_out_and_says_so(write: Write, tmp_path: Path) -> None:
    write("a_1.mid", tune(0))
    data = load(tmp_path)
    assert not data.held_out.any()
    assert "nothing is held out" in summary(data)


def test_the_fingerprint_follows_riffs_and_split(write: Write, tmp_path: Path) -> None:
    for i in range(6):
        write(f"s{i}.mid", tune(i))
    first = load(tmp_path).fingerprint
    assert load(tmp_path).fingerprint == first
    others = {load(tmp_path, split_seed=seed).fingerprint for seed in range(1, 5)}
    assert others - {first}
    write("s0.mid", tune(99))
    assert load(tmp_path).fingerprint != first


def test_the_file_shows_itself(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        write(f"s{i}.mid", tune(i))
    assert dataset.main(["--data", str(tmp_path)]) == 0
    assert "3 files, 3 used, 0 refused" in capsys.readouterr().out


# ---------------------------------------------------------------- the split


def test_a_song_is_never_split(write: Write, tmp_path: Path) -> None:
    for i in range(24):
        write(f"{'band/' * (i % 2)}song{i // 4}_verse{i}.mid", tune(i))
    data = load(tmp_path, holdout=0.3)
    sides: dict[str, set[bool]] = {}
    for row in data.rows:
        sides.setdefault(row.song, set()).add(row.held_out)
    assert len(sides) == 6  # song0 in a subfolder is the same song: it may not stand on both sides
    assert all(len(side) == 1 for side in sides.values())
    assert {True, False} == set().union(*sides.values())
    for song in np.unique(data.song):
        assert len(set(data.held_out[data.song == song].tolist())) == 1


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    share=st.sampled_from([0.0, 0.05, 0.15, 0.5, 0.9]),
    seed=st.integers(0, 9),
)
@settings(max_examples=300, deadline=None)
def test_the_split_leaves_something_to_train_on(counts: list[int], share: float, seed: int) -> None:
    held = split_by_song([f"song{i}" for i in range(len(counts))], np.array(counts), share, seed)
    assert held.shape == (len(counts),) and not held.all()
    if share == 0:
        assert not held.any()
    if share <= 0.5 and held.any():
        assert np.array(counts)[held].sum() * 2 <= max(sum(counts), 2 * max(1.0, share * sum(counts)))
    if share > 0 and len(counts) >= 2 and max(counts) * 2 <= sum(counts):
        assert held.any()


@given(songs=st.sets(st.text("abcdefg", min_size=1, max_size=4), min_size=3, max_size=30), new=st.text("xyz", min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_adding_a_song_moves_at_most_one_other(songs: set[str], new: str) -> None:
    def held(names: list[str]) -> set[str]:
        return {name for name, out in zip(names, split_by_song(names, np.full(len(names), 4), 0.2, 0), strict=True) if out}

    before, after = held(sorted(songs)), held(sorted({*songs, new}))
    assert len(before ^ (after - {new})) <= 1


def test_the_split_depends_on_its_seed_and_nothing_else() -> None:
    songs, counts = [f"song{i}" for i in range(20)], np.full(20, 4)
    splits = {tuple(split_by_song(songs, counts, 0.15, seed).tolist()) for seed in range(10)}
    assert len(splits) > 5
    backwards = split_by_song(songs[::-1], counts, 0.15, 3)[::-1]
    np.testing.assert_array_equal(backwards, split_by_song(songs, counts, 0.15, 3))
    assert split_by_song(songs, counts, 0.15, 3).sum() == 3


# ---------------------------------------------------------------- augmentation and the stream of examples


def test_transpose_leaves_rests_and_holds() -> None:
    tokens = np.array([[40, HOLD, REST, 41], [60, 60, REST, HOLD]])
    assert transpose(tokens, np.array([2, -3])).tolist() == [[42, HOLD, REST, 43], [57, 57, REST, HOLD]]


def test_shifts_stay_inside_the_range_and_the_riffs_own_lowest(write: Write, tmp_path: Path) -> None:
    write("a.mid", [(at, n, 33 + i % 3) for i, (at, n, _) in enumerate(EIGHTHS)])  # below the range: may only go up
    write("b.mid", [(at, n, 40 + i % 4) for i, (at, n, _) in enumerate(EIGHTHS)])  # two semitones above the low D
    write("c.mid", [(at, n, 60 + i % 5) for i, (at, n, _) in enumerate(EIGHTHS)])
    write("d.mid", [(at, n, 80 + i % 6) for i, (at, n, _) in enumerate(EIGHTHS)])  # reaches 85, one below the top
    data = load(tmp_path, holdout=0.0)
    low, high = shift_range(data.tokens, data.config)
    assert low.tolist() == [0, -2, -5, -5]
    assert high.tolist() == [5, 5, 5, 1]
    stream = ExampleStream(low, high, seed=1)
    seen = np.full((4, 2), 0)
    for step in range(100):
        index, shift = stream.batch(step, 8)
        assert (low[index] <= shift).all() and (shift <= high[index]).all()
        moved = transpose(data.tokens[index], shift)
        sounds = (moved != REST) & (moved != HOLD)
        assert moved[sounds].max() <= 86 and moved[sounds].min() >= 33
        for i, s in zip(index, shift, strict=True):
            seen[i] = min(seen[i][0], s), max(seen[i][1], s)
    assert seen.tolist() == [[a, b] for a, b in zip(low.tolist(), high.tolist(), strict=True)]  # the ends are reached


def songs_of_riffs(bars: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Three songs of four riffs; each bar holds one pitch, 40 + 10 * song + riff, held from bar to bar in some of them."""
    song = np.repeat(np.arange(3), 4)
    riffs = []
    for i in range(12):
        pitch = 40 + 10 * song[i] + i % 4
        first_bar = [pitch, REST] * 7 + [pitch, HOLD] if i % 2 else [pitch, HOLD] * 7 + [pitch, REST]
        riffs.append((first_bar + [HOLD if i % 2 else pitch] + [HOLD, pitch] * 7 + [REST]) * (bars // 2))
    return np.array(riffs), song


@pytest.mark.parametrize("bars", [2, 4])
@pytest.mark.parametrize(("mix", "rotate"), [(1.0, 0.0), (0.0, 0.7), (0.5, 0.5)])
def test_mixed_riffs_are_legal_and_of_their_own_song(bars: int, mix: float, rotate: float) -> None:
    tokens, song = songs_of_riffs(bars)
    tokenizer, index = TokenizerConfig(bars=bars), np.tile(np.arange(12), 20)
    assert is_legal(tokens, tokenizer)
    mixed = mix_bars(tokens, song, index, DataConfig(mix=mix, rotate=rotate), tokenizer, seed=3)
    assert is_legal(mixed, tokenizer)
    sounds = (mixed != REST) & (mixed != HOLD)
    assert ((mixed - 40) // 10 == song[index][:, None])[sounds].all()
    assert (mixed != tokens[index]).any(axis=1).mean() > 0.15
    for other, same in ((4, False), (3, True)):
        again = mix_bars(tokens, song, index, DataConfig(mix=mix, rotate=rotate), tokenizer, seed=other)
        assert np.array_equal(mixed, again) == same


def test_nothing_is_mixed_when_it_is_off_or_there_is_no_bar_line() -> None:
    tokens, song = songs_of_riffs()
    index = np.array([3, 3, 0])
    off = mix_bars(tokens, song, index, DataConfig(mix=0.0, rotate=0.0), TOKENIZER, seed=0)
    np.testing.assert_array_equal(off, tokens[index])
    one_bar = mix_bars(tokens[:, :16], song, index, DataConfig(mix=1.0, rotate=1.0), TokenizerConfig(bars=1), seed=0)
    np.testing.assert_array_equal(one_bar, tokens[index, :16])
    off[:] = 0
    assert tokens[3, 0] != 0  # a copy


def stream_of(n: int, seed: int = 0) -> ExampleStream:
    return ExampleStream(np.full(n, -5), np.full(n, 5), seed)


@given(n=st.integers(1, 20), batch=st.integers(1, 50), seed=st.integers(0, 5), steps=st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_what_stands_where_is_a_function_of_seed_and_position(n: int, batch: int, seed: int, steps: list[int]) -> None:
    used = stream_of(n, seed)
    for step in steps:  # in any order, as after a resume
        for found, expected in zip(used.batch(step, batch), stream_of(n, seed).batch(step, batch), strict=True):
            np.testing.assert_array_equal(found, expected)
    one_by_one = [stream_of(n, seed).batch(steps[0] * batch + i, 1) for i in range(batch)]
    index, shift = stream_of(n, seed).batch(steps[0], batch)
    assert [int(i[0]) for i, _ in one_by_one] == index.tolist()
    assert [int(s[0]) for _, s in one_by_one] == shift.tolist()


def test_every_epoch_is_a_permutation_with_new_shifts() -> None:
    epochs = [stream_of(30).batch(epoch, 30) for epoch in range(4)]
    for index, _ in epochs:
        assert sorted(index.tolist()) == list(range(30))
    orders = {tuple(index.tolist()) for index, _ in epochs}
    by_riff = {tuple(shift[np.argsort(index)].tolist()) for index, shift in epochs}
    assert len(orders) == len(by_riff) == 4
    assert {int(s) for _, shift in epochs for s in shift} == set(range(-5, 6))


def test_a_batch_may_be_larger_than_the_data_and_seeds_differ() -> None:
    index, shift = stream_of(3).batch(0, 12)
    assert np.bincount(index).tolist() == [4, 4, 4]
    assert len(shift) == 12
    assert stream_of(30, 0).batch(0, 30)[0].tolist() != stream_of(30, 1).batch(0, 30)[0].tolist()


def test_an_augmented_batch_is_legal_in_range_and_a_function_of_seed_and_step(tmp_path: Path) -> None:
    data = load(small_songs(tmp_path, songs=4, phrases=3), holdout=0.0)
    stream = training_stream(data, seed=5)
    batch = augmented_batch(data, stream, step=3, batch_size=64)
    assert is_legal(batch, data.tokenizer)
    sounds = (batch != REST) & (batch != HOLD)
    own = (data.tokens != REST) & (data.tokens != HOLD)
    assert batch[sounds].min() >= min(38, data.tokens[own].min()) and batch[sounds].max() <= 86
    assert np.array_equal(batch, augmented_batch(data, training_stream(data, seed=5), step=3, batch_size=64))
    assert not np.array_equal(batch, augmented_batch(data, stream, step=4, batch_size=64))
    assert not np.array_equal(batch, augmented_batch(data, training_stream(data, seed=6), step=3, batch_size=64))


def test_a_riff_of_more_bars_than_max_bars_is_no_song(write: Write) -> None:
    long = [(float(i), 1.0, 50 + i % 7) for i in range(64)]
    assert len(read_file_riffs(write("long.mid", long), DataConfig(), TokenizerConfig(bars=16))[0]) == 1


def test_the_fingerprint_knows_the_songs(write: Write, tmp_path: Path) -> None:
    """Bars are mixed within songs: other songs are other data."""
    for song in (1, 2):
        for phrase in (1, 2):
            write(f"a/{song}_{phrase}.mid", tune(2 * song + phrase))
            write(f"b/{song}-{phrase}.mid", tune(2 * song + phrase))
    together, apart = load(tmp_path / "a", holdout=0.0), load(tmp_path / "b", holdout=0.0)
    assert np.array_equal(together.tokens, apart.tokens)
    assert together.fingerprint != apart.fingerprint


def test_what_generate_wrote_is_not_trained_on(write: Write, tmp_path: Path) -> None:
    """Guards against a model that learns from itself."""
    write("a_1.mid", tune(0))
    write("b_1.mid", tune(1)).with_suffix(".json").write_text('{"sha256": "0", "settings": {}}')
    write("c_1.mid", tune(2)).with_suffix(".json").write_text("{}")  # somebody's own JSON
    data = load(tmp_path, holdout=0.0)
    assert [(row.file, row.reason) for row in data.rows] == [("a_1.mid", ""), ("b_1.mid", "generated"), ("c_1.mid", "")]


def test_a_file_name_that_is_not_utf8_is_shown(tmp_path: Path) -> None:
    """Guards against a traceback over a name from an old zip."""
    import os

    name = os.fsencode(str(tmp_path)) + b"/caf\xe9_1.mid"
    try:
        with open(name, "wb") as file:
            file.write(riff_bytes([40, *[HOLD] * 31]))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    data = load(tmp_path, holdout=0.0)
    assert data.rows[0].file.encode() and data.rows[0].riffs == 1
    save_table(data.rows, tmp_path / "table.csv")
    assert summary(data)


# ---------------------------------------------------------------- fewer riffs, names, and riffs that were generated


def test_fewer_riffs_are_whole_songs_of_a_larger_choice(tmp_path: Path) -> None:
    """Guards against a learning curve whose points differ in more than how much was learnt from."""
    folder = small_songs(tmp_path / "songs", songs=8, phrases=4)
    everything = load(folder, holdout=0.2)
    before: set[str] = set()
    for most in (1, 3, 8, 9, 15, 1000):
        some = load(folder, holdout=0.2, most_riffs=most)
        assert np.array_equal(some.held_out_tokens, everything.held_out_tokens)
        assert len(some.train_tokens) == min(most, len(everything.train_tokens))
        assert before < set(some.train_names) <= set(everything.train_names) and len(some.names) == len(set(some.names))
        before = set(some.train_names)
        whole = [list(some.train_song).count(i) for i in set(some.train_song.tolist())]
        assert sorted(whole)[1:] == [4] * (len(whole) - 1)  # song by song: one at most is cut
        left_out = [row for row in some.rows if not row.riffs]
        assert len(left_out) == len(everything.tokens) - len(some.tokens)
        assert all((row.reason, row.detail) == ("left out by --most-riffs", f"{most} riffs were asked for") for row in left_out)
        assert sum(row.riffs for row in some.rows) == len(some.tokens)
        assert summary(some)
    assert some.fingerprint == everything.fingerprint != load(folder, holdout=0.2, most_riffs=9).fingerprint
    others = [load(folder, holdout=0.0, most_riffs=8, split_seed=seed) for seed in range(4)]
    assert len({tuple(data.names) for data in others}) > 1  # which ones is the split's seed to say


def test_a_file_may_be_used_in_part(write: Write, tmp_path: Path) -> None:
    write("a_1.mid", tune(0) + [(at + 8, n, p) for at, n, p in tune(1)])
    data = load(tmp_path, holdout=0.0, most_riffs=1)
    assert data.names == ["a_1.mid bar 1"] and [row.riffs for row in data.rows] == [1]


def test_names_and_songs_line_up_with_the_riffs(write: Write, tmp_path: Path) -> None:
    """Guards against a nearest training riff of another name."""
    write("b_2.mid", tune(3))
    write("a_1.mid", tune(0) + [(at + 8, n, p) for at, n, p in tune(1)])
    write("sub/c_1.mid", tune(2))
    for options in ({"holdout": 0.0}, {"holdout": 0.4}, {"holdout": 0.4, "most_riffs": 1}):
        data = load(tmp_path, **options)
        first = {"a_1.mid bar 1": 0, "a_1.mid bar 3": 1, "sub/c_1.mid bar 1": 2, "b_2.mid bar 1": 3}
        songs = {"a_1.mid bar 1": "a", "a_1.mid bar 3": "a", "sub/c_1.mid bar 1": "c", "b_2.mid bar 1": "b"}
        for name, tokens, number in zip(data.names, data.tokens, data.song, strict=True):
            assert tokens[0] == tune(first[name])[0][2] and data.songs[number] == songs[name]
        assert len(data.train_names) == len(data.train_tokens)
        assert [name for name, out in zip(data.names, data.held_out, strict=True) if not out] == data.train_names


def test_riffs_that_were_generated_can_be_read_to_be_judged(write: Write, tmp_path: Path) -> None:
    """Nothing is a duplicate then, for repeats are to be counted; the long file only says everything again."""
    for name, seed in (("riff_1.mid", 0), ("riff_2.mid", 0), ("generated_riff_long.mid", 1)):
        write(name, tune(seed)).with_suffix(".json").write_text('{"sha256": "0"}')
    data = load_riffs(DataConfig(data=str(tmp_path), holdout=0.0), TOKENIZER, generated=True)
    assert data.names == ["riff_1.mid bar 1", "riff_2.mid bar 1"]
    assert [(row.file, row.reason) for row in data.rows if not row.riffs] == [("generated_riff_long.mid", "long file")]
