"""Pieces for language models: the table, the split, and training sequences that never cross pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import midi_track, small_songs

from config import DataConfig, EventConfig, LMConfig, TokenizerConfig, UserError
from dataset import load_riffs
from events import BOS, EOS, PAD, TIME_SHIFT, pitch_bounds
from pieces import (
    IGNORED,
    PieceData,
    Sequences,
    event_vocabulary,
    load_pieces,
    piece_summary,
    riff_vocabulary,
    riffs_as_pieces,
    vocabulary,
)

EVENTS = EventConfig()


def melody(seed: int, notes: int) -> list[tuple[float, float, int]]:
    rng = np.random.default_rng(seed)
    return [(i / 2, 0.5, int(pitch)) for i, pitch in enumerate(rng.integers(50, 80, size=notes))]


@pytest.fixture
def folder(write: Callable[..., Path], tmp_path: Path) -> Path:
    for number, notes in enumerate((5, 40, 80, 200, 3, 60)):
        write(f"songs/tune_{number}.mid", melody(number, notes))
    return tmp_path / "songs"


def load(folder: Path, **changes) -> PieceData:
    return load_pieces(DataConfig(**{"data": str(folder), "transpose": 0, "holdout": 0.3, **changes}), EVENTS)


# ---------------------------------------------------------------- folder -> table


def test_the_vocabulary_follows_from_the_config_alone() -> None:
    """Guards against a vocabulary of what the data happened to hold."""
    assert event_vocabulary(EVENTS).size == 3 + 2 * 128 + 100 == TIME_SHIFT + 100 + 1
    assert event_vocabulary(EventConfig(max_shift=7)).size == TIME_SHIFT + 7 + 1
    assert riff_vocabulary(TokenizerConfig()).size == 130 and riff_vocabulary(TokenizerConfig()).bos == 129
    assert vocabulary(LMConfig(), TokenizerConfig(), EVENTS) == event_vocabulary(EVENTS)
    assert vocabulary(LMConfig(tokens="riff"), TokenizerConfig(), EVENTS) == riff_vocabulary(TokenizerConfig())


def test_every_file_ends_as_used_or_refused(folder: Path, write: Callable[..., Path]) -> None:
    write("songs/copy.mid", melody(1, 40))
    write("songs/higher.mid", [(at, length, pitch + 3) for at, length, pitch in melody(2, 80)])
    write("songs/drums.mid", [midi_track([(0, 1, 36)], channel=9)])
    write("songs/empty.mid", b"")
    write("songs/tab.gp5", b"x")
    write("songs/made.mid", melody(9, 10)).with_suffix(".json").write_text('{"sha256": ""}')
    pieces = load(folder, min_notes=4)
    reasons = {row.file: row.reason for row in pieces.rows if not row.riffs}
    assert reasons == {
        "tune_1.mid": "duplicate",  # copy.mid comes first by name
        "tune_2.mid": "duplicate",
        "tune_4.mid": "no notes",
        "drums.mid": "no notes",
        "empty.mid": "unreadable",
        "tab.gp5": "not MIDI",
        "made.mid": "generated",
    }
    assert pieces.names == ["copy.mid", "higher.mid", "tune_0.mid", "tune_3.mid", "tune_5.mid"]
    text = piece_summary(pieces)
    assert "12 files, 5 used, 7 refused" in text and "repeats higher.mid, transposed or not" in text
    assert all(piece[0] == BOS and piece[-1] == EOS for piece in pieces.tokens)


@pytest.mark.parametrize("content", [[], [("a.mid", b"")]], ids=["no file", "nothing usable"])
def test_a_folder_without_pieces_costs_one_line(content: list[tuple[str, bytes]], tmp_path: Path) -> None:
    for name, data in content:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert "\n" not in str(error.value) and ("no .mid" in str(error.value) or "the file is empty" in str(error.value))


def test_the_split_is_by_file_whatever_its_name(folder: Path) -> None:
    """Guards against the riffs' rule, by which tune_0 to tune_5 would be one song and nothing held out; and against a drifting split."""
    pieces = load(folder)
    assert 1 <= pieces.held_out.sum() <= 3
    assert np.array_equal(pieces.held_out, load(folder).held_out)
    assert pieces.fingerprint == load(folder).fingerprint
    assert len({load(folder, split_seed=seed).fingerprint for seed in range(8)}) > 1
    assert len(pieces.train) + len(pieces.held) == 6


# ---------------------------------------------------------------- training sequences


def is_part_of(sequence: np.ndarray, piece: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(piece, len(sequence)) if len(sequence) <= len(piece) else []
    return any(np.array_equal(sequence, window) for window in windows)


def test_no_sequence_crosses_pieces_and_targets_follow_inputs(folder: Path) -> None:
    pieces = load(folder)
    sequences = Sequences(pieces, seq_len=50, seed=0)
    beginnings = 0
    for step in range(12):
        inputs, targets, _ = sequences.batch(step, 4)
        assert inputs.shape == targets.shape and inputs.shape[1] <= 50
        for x, y in zip(inputs, targets, strict=True):
            length = int((y != IGNORED).sum())
            assert (y[length:] == IGNORED).all() and (x[length:] == PAD).all()
            assert any(is_part_of(np.append(x[:length], y[length - 1]), piece) for piece in pieces.train)
            assert np.array_equal(x[1:length], y[: length - 1])
            beginnings += x[0] == BOS
    assert beginnings > 0


def test_an_epoch_sees_every_piece_from_its_beginning_and_to_its_end(folder: Path) -> None:
    pieces = load(folder)
    sequences = Sequences(pieces, seq_len=50, seed=0)
    inputs, _, _ = sequences.batch(0, len(sequences))
    assert (inputs[:, 0] == BOS).sum() == len(pieces.train)
    assert len(sequences) == sum(-(-(len(piece) - 1) // 50) for piece in pieces.train)
    ends = sum((targets == EOS).sum() for targets in (sequences.batch(step, len(sequences))[1] for step in range(20)))
    assert ends >= 20 * sum(len(piece) <= 51 for piece in pieces.train)
    assert ends > 10 * len(pieces.train)  # places are drawn anew, so an end is not in every epoch


def test_sequences_are_a_function_of_seed_and_step(folder: Path) -> None:
    """Guards against a resumed run that sees other sequences."""
    a, b, c = (Sequences(load(folder), 50, seed) for seed in (0, 0, 1))
    for step in (7, 0, 31):
        assert all(np.array_equal(x, y) for x, y in zip(a.batch(step, 4), b.batch(step, 4), strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(a.batch(0, 4), c.batch(0, 4), strict=True))


def test_transposition_stays_within_midi_and_leaves_targets_in_step(write: Callable[..., Path], tmp_path: Path) -> None:
    write("songs/low.mid", [(0, 1, 2), (1, 1, 5)])
    write("songs/high.mid", [(0, 1, 126), (1, 1, 120)])
    sequences = Sequences(load(tmp_path / "songs", transpose=5, holdout=0.0), 50, 0)
    seen = set()
    for step in range(100):
        inputs, targets, _ = sequences.batch(step, 2)
        for x, y in zip(inputs, targets, strict=True):
            low, high = pitch_bounds(x[y != IGNORED])
            assert 0 <= low <= high <= 127 and high - low in (3, 6)
            seen.add((low, high))
    assert seen == {(low, low + 3) for low in range(8)} | {(low, low + 6) for low in range(115, 122)}


def test_riffs_are_pieces_behind_a_bos(tmp_path: Path) -> None:
    riff_data = load_riffs(DataConfig(data=str(small_songs(tmp_path)), mix=0.0, rotate=0.0, transpose=0), TokenizerConfig())
    pieces = riffs_as_pieces(riff_data)
    assert all(piece[0] == 129 and np.array_equal(piece[1:], riff) for piece, riff in zip(pieces.tokens, riff_data.tokens, strict=True))
    assert pieces.fingerprint == riff_data.fingerprint
    inputs, targets, _ = Sequences(pieces, 256, 0).batch(0, len(pieces.train))
    assert (inputs[:, 0] == 129).all() and np.array_equal(inputs[:, 1:], targets[:, :-1])
    assert sorted(map(tuple, targets)) == sorted(map(tuple, riff_data.train_tokens))
