"""Drums: what each pitch is, hits and microtiming through MIDI and back, tokens and vectors."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import mido
import numpy as np
import pytest
from conftest import Here, assert_one_line, midi_bytes, midi_track
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from config import TokenizerConfig
from family.drums import (
    CHANNEL,
    CLASSES,
    DRUM_TOKENS,
    KITS,
    DrumPattern,
    from_groove,
    from_tokens,
    patterns_to_midi,
    quantized,
    read_patterns,
    tapped,
    text_grid,
    to_groove,
    to_tokens,
)
from midi_utils import MidiError, parse_midi

T = TokenizerConfig()
SHAPE = (T.steps, len(CLASSES))
KICK, SNARE, HAT = 0, 1, 2


@st.composite
def patterns(draw: st.DrawFn) -> DrumPattern:
    """What MIDI can say: velocities of 1..127, offsets on ticks (a step has 120), nothing before the first tick."""
    hits = draw(hnp.arrays(bool, SHAPE))
    hits[1, KICK] = True
    velocity = np.where(hits, draw(hnp.arrays(np.int64, SHAPE, elements=st.integers(1, 127))) / 127, 0).astype(np.float32)
    ticks = draw(hnp.arrays(np.int64, SHAPE, elements=st.integers(-59, 59)))
    ticks[0] = np.abs(ticks[0])
    return DrumPattern(hits, velocity, np.where(hits, ticks / 60, 0).astype(np.float32), bpm=100.0)


@pytest.mark.parametrize("kit", KITS)
def test_each_pitch_is_one_drum(kit: str) -> None:
    pitches = [pitch for drum in KITS[kit] for pitch in drum]  # type: ignore[index]
    assert len(KITS[kit]) == len(CLASSES) == 9 and len(set(pitches)) == len(pitches)  # type: ignore[index]
    assert all(0 < pitch < 128 for pitch in pitches)


def test_what_is_written_is_read_as_the_same_drum_of_either_kit() -> None:
    """The first pitch of each General MIDI class; the Roland kit takes toms of 45 and 48 for others, as its pads say."""
    read = [next(number for number, drum in enumerate(KITS["roland"]) if written[0] in drum) for written in KITS["general"]]
    assert read == [0, 1, 2, 3, 5, 6, 6, 7, 8]
    assert [drum[0] for drum in KITS["general"]] == [36, 38, 42, 46, 45, 48, 50, 49, 51]
    assert {22, 26, 37, 40, 44, 55, 57, 58, 59} <= {pitch for drum in KITS["roland"] for pitch in drum}


@given(pattern=patterns())
@settings(max_examples=60, deadline=None)
def test_velocity_and_microtiming_survive_the_round_trip(pattern: DrumPattern) -> None:
    (found,) = read_patterns(parse_midi(patterns_to_midi([pattern], T)), T)
    assert np.array_equal(found.hits, pattern.hits)
    np.testing.assert_allclose(found.velocity, pattern.velocity, atol=1e-6)
    np.testing.assert_allclose(found.offset, pattern.offset, atol=1e-6)
    assert found.bpm == pytest.approx(100) and found.first_bar == 1 and not found.unknown


def test_what_is_as_late_as_can_be_stays_on_its_step() -> None:
    hits = np.zeros((32, 9), dtype=bool)
    hits[[3, 31], SNARE] = True
    late = DrumPattern(hits, hits.astype(np.float32), hits.astype(np.float32))
    (found,) = read_patterns(parse_midi(patterns_to_midi([late], T)), T)
    assert np.array_equal(found.hits, hits) and found.offset[hits].min() > 0.95


@given(pattern=patterns())
@settings(max_examples=60, deadline=None)
def test_no_drum_is_struck_while_it_sounds(pattern: DrumPattern) -> None:
    """Guards against notes that a DAW cuts or joins: a late hit and an early one lie less than a step apart."""
    track = mido.MidiFile(file=BytesIO(patterns_to_midi([pattern, pattern], T))).tracks[1]
    sounding: set[int] = set()
    for message in track:
        if message.type == "note_on":
            assert message.note not in sounding
            sounding.add(message.note)
        elif message.type == "note_off":
            sounding.remove(message.note)
    assert not sounding


@given(pattern=patterns())
@settings(max_examples=60, deadline=None)
def test_tokens_and_vectors_give_everything_back(pattern: DrumPattern) -> None:
    tokens = to_tokens(pattern.hits)
    assert tokens.shape == (32,) and tokens.min() >= 0 and tokens.max() < DRUM_TOKENS
    assert np.array_equal(from_tokens(tokens), pattern.hits)
    groove = to_groove(pattern)
    assert groove.shape == (32, 27) and groove.dtype == np.float32
    again = from_groove(groove, bpm=pattern.bpm)
    assert all(np.array_equal(getattr(again, name), getattr(pattern, name)) for name in ("hits", "velocity", "offset"))


def test_tokens_are_bits_with_the_kick_lowest() -> None:
    hits = np.zeros((3, 9), dtype=bool)
    hits[0, [KICK, HAT]] = True
    hits[2] = True
    assert to_tokens(hits).tolist() == [5, 0, 511]
    for wrong in (-1, 512):
        with pytest.raises(ValueError, match=r"0\.\.511"):
            from_tokens(np.array([wrong]))


def test_what_a_model_writes_is_held_in_range() -> None:
    groove = np.zeros((32, 27), dtype=np.float32)
    groove[0, KICK], groove[0, 9 + KICK], groove[0, 18 + KICK] = 0.6, 1.7, -3
    groove[1, SNARE], groove[1, 9 + SNARE], groove[1, 18 + SNARE] = 0.5, 0.9, 0.9  # not above one half: no hit
    pattern = from_groove(groove)
    assert pattern.hits.sum() == 1 and pattern.velocity[0, KICK] == 1 and pattern.offset[0, KICK] == -1
    assert pattern.velocity.sum() == 1 and pattern.offset.sum() == -1


def test_a_file_is_read_by_bars_and_the_louder_of_two_stays() -> None:
    """Two bars of kicks; a soft and a loud snare on one step; a cowbell that the Roland kit has not."""
    notes = [(beat, 0.25, 36) for beat in range(8)] + [(1.02, 0.25, 38), (0.98, 0.25, 40), (2.0, 0.25, 56)]
    track = midi_track(notes, channel=CHANNEL, end=8)
    loud = {38: 40, 40: 110}
    for message in track:
        if message.type == "note_on" and message.note in loud:
            message.velocity = loud[message.note]
    (pattern,) = read_patterns(parse_midi(midi_bytes(track)), T, "roland")
    assert pattern.hits[:, KICK].tolist() == [step % 4 == 0 for step in range(32)]
    assert np.flatnonzero(pattern.hits[:, SNARE]).tolist() == [4]
    assert pattern.velocity[4, SNARE] == pytest.approx(110 / 127) and pattern.offset[4, SNARE] == pytest.approx(-0.16, abs=0.02)
    assert pattern.unknown == 1
    (folded,) = read_patterns(parse_midi(midi_bytes(track)), T, "general")
    assert folded.hits[8, SNARE] and not folded.unknown


def test_a_long_file_is_cut_with_a_hop_and_silence_left_out() -> None:
    notes = [(beat, 0.25, 36) for beat in (*range(8), *range(16, 24))]
    midi = parse_midi(midi_bytes(midi_track(notes, channel=CHANNEL, end=24)))
    assert [pattern.first_bar for pattern in read_patterns(midi, T)] == [1, 5]
    assert [pattern.first_bar for pattern in read_patterns(midi, T, hop=1)] == [1, 2, 4, 5]


def test_files_without_drums_are_refused() -> None:
    with pytest.raises(MidiError, match="no drums"):
        read_patterns(parse_midi(midi_bytes(midi_track([(0, 1, 40)], end=8))), T)
    with pytest.raises(MidiError, match="not 4/4"):
        read_patterns(parse_midi(midi_bytes(midi_track([(0, 1, 36)], channel=CHANNEL, end=12), meters=((0, 3, 4),))), T)
    with pytest.raises(MidiError, match="no drum of the roland kit"):
        read_patterns(parse_midi(midi_bytes(midi_track([(0, 1, 56)], channel=CHANNEL, end=8))), T, "roland")


def test_drums_are_written_on_their_channel_in_whole_bars() -> None:
    hits = np.zeros(SHAPE, dtype=bool)
    hits[31, KICK] = True
    late = DrumPattern(hits, hits.astype(np.float32), hits.astype(np.float32), bpm=90.0)
    from io import BytesIO

    file = mido.MidiFile(file=BytesIO(patterns_to_midi([late, late], T)))
    notes = [message for message in file.tracks[1] if message.type.startswith("note")]
    assert {message.channel for message in notes} == {CHANNEL} and len(notes) == 4
    assert all(sum(message.time for message in track) == 2 * 32 * 120 for track in file.tracks)
    for wrong in ([], [DrumPattern(hits[:8], hits[:8], hits[:8])]):
        with pytest.raises(ValueError, match="32 steps"):
            patterns_to_midi(wrong, T)


def test_quantized_keeps_hits_and_tapped_keeps_time() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(SHAPE) < 0.2
    played = DrumPattern(hits, np.where(hits, rng.random(SHAPE), 0), np.where(hits, rng.uniform(-1, 1, SHAPE), 0))
    score = quantized(played)
    assert np.array_equal(score.hits, hits) and not score.offset.any() and set(score.velocity[hits].tolist()) == {0.75}
    taps = tapped(played)
    assert np.array_equal(taps.hits.any(axis=1), hits.any(axis=1)) and (taps.hits.sum(axis=1) <= 1).all()
    for step in np.flatnonzero(hits.any(axis=1)):
        loudest = int(played.velocity[step].argmax())
        assert taps.velocity[step, HAT] == played.velocity[step, loudest] and taps.offset[step, HAT] == played.offset[step, loudest]


def test_the_library_shows_itself(tmp_path: Path, here: Here) -> None:
    path = tmp_path / "beat.mid"
    path.write_bytes(midi_bytes(midi_track([(beat, 0.25, 36) for beat in range(8)], channel=CHANNEL, end=8)))
    result = here("family.drums", str(path))
    assert result.code == 0 and "kick x...x...x...x...|x...x...x...x..." in result.out
    assert text_grid(np.zeros(SHAPE, dtype=bool), T) == ""
    assert_one_line(here("family.drums"), "family.drums", "give one MIDI file")
    assert_one_line(here("family.drums", str(path), "jazz"), "family.drums", "general, roland")
    assert_one_line(here("family.drums", str(tmp_path / "none.mid")), "family.drums", "none.mid")
