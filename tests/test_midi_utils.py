"""MIDI <-> notes <-> tokens: round trips, grammar, grid, policies and what is refused."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from conftest import EIGHTHS, END_OF_TRACK, midi_bytes, midi_track, raw_midi, raw_note, riff_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

import midi_utils
from config import HOLD, REST, TokenizerConfig, UserError
from files import write_file
from midi_utils import (
    MAX_FILE_BYTES,
    MidiError,
    Riff,
    bars,
    choose_track,
    end_of_track,
    file_riffs,
    is_legal,
    notes_to_tokens,
    parse_midi,
    parse_pitch,
    pitch_name,
    program_name,
    read_midi,
    read_riff,
    riffs_to_midi,
    text_roll,
    tokens_to_notes,
)

HELD, PLAIN = TokenizerConfig(), TokenizerConfig(hold_token=False)
BAR_TICKS = 4 * midi_utils.TICKS_PER_BEAT


def read_all(data: bytes, tokenizer: TokenizerConfig = HELD, **rules) -> list[Riff]:
    midi = parse_midi(data)
    track, _ = choose_track(midi)
    return [read_riff(midi, track, window, tokenizer, **rules) for window in file_riffs(midi, track, tokenizer)[0]]


def refusal(data: bytes, tokenizer: TokenizerConfig = HELD, **rules) -> MidiError:
    with pytest.raises(MidiError) as error:
        read_all(data, tokenizer, **rules)
    assert "\n" not in str(error.value)
    return error.value


@st.composite
def legal_tokens(draw: st.DrawFn, tokenizer: TokenizerConfig) -> np.ndarray:
    """Any legal riff with a note on its first step, so that no leading bar is empty."""
    tokens = [draw(st.integers(1, 127))]
    for _ in range(tokenizer.steps - 1):
        choices = [st.just(REST), st.integers(1, 127), st.just(tokens[-1])]
        if tokenizer.hold_token and tokens[-1] != REST:
            choices.append(st.just(HOLD))
        tokens.append(draw(st.one_of(choices)))
    return np.array(tokens)


def shuffled_legal(seed: int, tokenizer: TokenizerConfig) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tokens = [int(rng.integers(1, 128))]
    while len(tokens) < tokenizer.steps:
        can_hold = tokenizer.hold_token and tokens[-1] != REST
        tokens.append(int(rng.choice([REST, HOLD if can_hold else tokens[-1], rng.integers(1, 128)])))
    return np.array(tokens)


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("tokenizer", [HELD, PLAIN, TokenizerConfig(bars=1), TokenizerConfig(bars=3, steps_per_beat=3)])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_tokens_to_midi_to_tokens(tokenizer: TokenizerConfig, data: st.DataObject) -> None:
    tokens = data.draw(legal_tokens(tokenizer))
    (back,) = read_all(riff_bytes(tokens, tokenizer), tokenizer)
    np.testing.assert_array_equal(back.tokens, tokens)


@pytest.mark.parametrize("tokenizer", [HELD, PLAIN])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_tokens_to_notes_to_tokens(tokenizer: TokenizerConfig, seed: int) -> None:
    tokens = shuffled_legal(seed, tokenizer)
    start, end, pitch = tokens_to_notes(tokens, tokenizer)
    assert (end > start).all() and (start[1:] >= end[:-1]).all() and end[-1] <= tokenizer.steps
    np.testing.assert_array_equal(notes_to_tokens(start, end, pitch, tokenizer), tokens)


def test_notes_of_known_tokens() -> None:
    tokens = np.array([40, HOLD, 40, REST, 43, 45, HOLD, HOLD] + [REST] * 8)
    start, end, pitch = tokens_to_notes(tokens, TokenizerConfig(bars=1))
    assert (start.tolist(), end.tolist(), pitch.tolist()) == ([0, 2, 4, 5], [2, 3, 5, 8], [40, 40, 43, 45])


def test_without_hold_equal_neighbours_are_one_note() -> None:
    tokens = np.array([40, 40, 40, REST, 40, 43, 43, 40] + [REST] * 8)
    start, end, pitch = tokens_to_notes(tokens, TokenizerConfig(bars=1, hold_token=False))
    assert (start.tolist(), end.tolist(), pitch.tolist()) == ([0, 4, 5, 7], [3, 5, 7, 8], [40, 40, 43, 40])


def test_a_note_ends_where_the_next_starts_and_at_the_end_of_the_riff() -> None:
    tokens = notes_to_tokens(np.array([0, 2]), np.array([9, 99]), np.array([40, 41]), TokenizerConfig(bars=1))
    assert tokens.tolist() == [40, HOLD, 41] + [HOLD] * 13


def test_several_riffs_in_a_row_are_read_back_one_by_one() -> None:
    riffs = [Riff(shuffled_legal(seed, HELD), ((0.0, 80.0 + seed),), markers=((0.0, f"riff {seed}"),)) for seed in range(3)]
    back = read_all(riffs_to_midi(riffs, HELD))
    assert [riff.first_bar for riff in back] == [1, 3, 5]
    for riff, again in zip(riffs, back, strict=True):
        np.testing.assert_array_equal(again.tokens, riff.tokens)
        assert again.bpm == pytest.approx(riff.bpm, abs=1e-3)
        assert again.markers == riff.markers


# ---------------------------------------------------------------- grammar


def brute_force_legal(tokens: list[int], tokenizer: TokenizerConfig) -> bool:
    sounding = False
    for token in tokens:
        if token == HOLD and tokenizer.hold_token:
            if not sounding:
                return False
        elif not 0 <= token <= 127:
            return False
        else:
            sounding = token != REST
    return True


@given(tokens=st.lists(st.sampled_from([-1, REST, REST, 1, 40, 127, HOLD, HOLD, 129]), min_size=1, max_size=8), hold=st.booleans())
@settings(max_examples=500, deadline=None)
def test_is_legal_is_the_plain_definition(tokens: list[int], hold: bool) -> None:
    tokenizer = TokenizerConfig(hold_token=hold)
    legal = brute_force_legal(tokens, tokenizer)
    assert is_legal(np.array(tokens), tokenizer) == legal
    if not legal:
        with pytest.raises(ValueError, match="legal"):
            tokens_to_notes(np.array(tokens), tokenizer)


def test_is_legal_of_a_batch_needs_every_row() -> None:
    good, bad = [40, HOLD, REST, 40], [40, HOLD, REST, HOLD]
    assert is_legal(np.array([good, good]), HELD)
    assert not is_legal(np.array([good, bad]), HELD)
    assert not is_legal(np.array([[REST, 40], [HOLD, 40]]), HELD)
    assert not is_legal(np.array([]), HELD)


def test_illegal_tokens_and_no_riffs_are_not_written() -> None:
    with pytest.raises(ValueError, match="legal"):
        riff_bytes([HOLD] + [REST] * 31)
    with pytest.raises(ValueError, match="no riffs"):
        riffs_to_midi([], HELD)


# ---------------------------------------------------------------- what is on disk


@pytest.mark.parametrize("tail", [[REST] * 20, [HOLD] * 20, [50] * 20], ids=["rest", "hold", "notes"])
def test_a_riff_is_exactly_two_bars_long_on_disk(tail: list[int]) -> None:
    data = riff_bytes([40] + [HOLD] * 11 + tail)
    for track in mido.MidiFile(file=BytesIO(data)).tracks:
        assert sum(message.time for message in track) == 2 * BAR_TICKS
        assert track[-1].type == "end_of_track"
    assert end_of_track(parse_midi(data)) == 2 * BAR_TICKS


def test_end_of_track_agrees_with_mido_past_every_kind_of_event() -> None:
    track = midi_track([(0, 1, 40), (1, 1, 41)], name="a name of some length " * 10, end=7)
    track.insert(2, mido.Message("sysex", data=list(range(100)), time=3))
    track.insert(3, mido.Message("pitchwheel", pitch=77, time=0))
    track.insert(4, mido.Message("aftertouch", value=7, time=0))
    track.insert(5, mido.Message("control_change", control=7, value=7, time=0))
    data = midi_bytes(track, markers=[(0, "é" * 90), (2, "b")], tempos=[(0, 90), (3, 91)])
    expected = max(sum(message.time for message in t) for t in mido.MidiFile(file=BytesIO(data)).tracks)
    assert end_of_track(parse_midi(data)) == expected == 7 * 480 + 3


def test_end_of_track_of_a_broken_track_is_unknown() -> None:
    midi = parse_midi(riff_bytes([40] + [REST] * 31))
    endless = midi_utils.MidiFile(**{**vars(midi), "data": raw_midi(b"\xff" * 1_000_000)})  # must not build a million-byte number
    assert end_of_track(endless) == -1
    cut = midi_utils.MidiFile(**{**vars(midi), "data": raw_midi(raw_note(b"\0") + b"\x00\xff")})
    assert end_of_track(cut) == -1


def test_a_note_ends_before_its_pitch_is_struck_again() -> None:
    track = mido.MidiFile(file=BytesIO(riff_bytes([40] * 32))).tracks[1]
    kinds = [message.type for message in track if message.type.startswith("note_")]
    assert kinds == ["note_on", "note_off"] * 32


@pytest.mark.parametrize("bpm", [70, 93.7, 100, 150, 20, 300])
@pytest.mark.parametrize("program", [0, 27, 30, 127])
def test_tempo_and_program_survive(bpm: float, program: int) -> None:
    (riff,) = read_all(riff_bytes([40] + [REST] * 31, tempos=((0.0, bpm),), program=program))
    assert riff.bpm == pytest.approx(bpm, rel=1e-5)
    assert riff.program == program


def test_markers_survive_also_when_not_ascii() -> None:
    markers = ((0.0, "Verse 1 – ruhig, „Öl“"), (4.0, "サビ"), (16.0, "b"))
    (riff,) = read_all(riff_bytes([40] + [REST] * 31, markers=markers))
    assert riff.markers == markers


def test_tempo_changes_survive_at_their_steps() -> None:
    (riff,) = read_all(riff_bytes([40] + [REST] * 31, tempos=((0.0, 90.0), (16.0, 120.0), (18.5, 60.0))))
    assert [at for at, _ in riff.tempos] == [0.0, 16.0, 18.5]
    assert [bpm for _, bpm in riff.tempos] == pytest.approx([90, 120, 60], rel=1e-5)
    (again,) = read_all(riff_bytes(riff.tokens.tolist(), tempos=riff.tempos))
    assert again.tempos == riff.tempos


def test_a_window_starts_with_the_tempo_of_its_place() -> None:
    data = midi_bytes(midi_track([(i, 1, 40) for i in range(16)]), tempos=[(0, 80), (6, 90), (8, 100), (12, 110)])
    first, second = read_all(data)
    assert [(at, round(bpm)) for at, bpm in first.tempos] == [(0, 80), (24, 90)]
    assert [(at, round(bpm)) for at, bpm in second.tempos] == [(0, 100), (16, 110)]


def test_pretty_midi_reads_what_we_write() -> None:
    tokens = [40, HOLD, 40, 40, REST, REST, 43, HOLD, HOLD, HOLD, 52, REST] + [REST] * 20
    file = pretty_midi.PrettyMIDI(BytesIO(riff_bytes(tokens, tempos=((0.0, 90.0),), program=30, name="pedal")))
    (instrument,) = file.instruments
    assert (instrument.program, instrument.is_drum, instrument.name) == (30, False, "pedal")
    step = 60 / 90 / 4
    found = [(note.pitch, note.start / step, note.end / step) for note in instrument.notes]
    expected = [(40, 0, 2), (40, 2, 3), (40, 3, 4), (43, 6, 10), (52, 10, 11)]
    assert np.array(found) == pytest.approx(np.array(expected), abs=1e-3)
    assert file.get_tempo_changes()[1].tolist() == pytest.approx([90], rel=1e-5)
    (signature,) = file.time_signature_changes
    assert (signature.numerator, signature.denominator) == (4, 4)


def test_write_file_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "below" / "a.mid"
    write_file(path, b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["a.mid"]


# ---------------------------------------------------------------- the grid


def test_a_note_belongs_to_its_nearest_step() -> None:
    step = 0.25
    notes = [(0, step, 40), (4.29 * step, step, 41), (7.75 * step, step, 42), (16 * step, step, 43)]
    (riff,) = read_all(midi_bytes(midi_track(notes)), max_off_grid=1.0)
    assert np.flatnonzero(riff.tokens).tolist() == [0, 4, 8, 16]


@pytest.mark.parametrize("ticks", [24, 96, 100, 220, 480, 960, 32767])
def test_the_grid_follows_the_ticks_of_the_file(ticks: int) -> None:
    data = midi_bytes(midi_track(EIGHTHS, ticks=ticks), ticks=ticks)
    (riff,) = read_all(data)
    expected = [token for _, _, pitch in EIGHTHS for token in (pitch, HOLD)]
    assert riff.tokens.tolist() == expected


def test_repeated_sixteenths_survive() -> None:
    notes = [(i / 4, 0.25, 40) for i in range(32)]
    (riff,) = read_all(midi_bytes(midi_track(notes)))
    assert riff.tokens.tolist() == [40] * 32
    assert len(mido.MidiFile(file=BytesIO(riff_bytes(riff.tokens.tolist()))).tracks[1]) == 2 + 64 + 1


def test_a_downbeat_played_early_belongs_to_the_bar_after() -> None:
    early = 0.03
    notes = [(4 - early, 0.5, 40), (5, 1, 41), (8 - early, 0.5, 42), (9, 1, 43), (12 - early, 1, 44), (16, 1, 45)]
    midi = parse_midi(midi_bytes(midi_track(notes)))
    windows, left = file_riffs(midi, midi.tracks[0], HELD)
    assert [number for number, _ in windows] == [2, 4]
    first, second = (read_riff(midi, midi.tracks[0], window, HELD) for window in windows)
    assert [(i, int(first.tokens[i])) for i in (0, 4, 16, 20)] == [(0, 40), (4, 41), (16, 42), (20, 43)]
    assert [(i, int(second.tokens[i])) for i in (0, 16)] == [(0, 44), (16, 45)]
    assert left == ""


def test_leading_empty_bars_are_skipped() -> None:
    (riff,) = read_all(midi_bytes(midi_track([(at + 12, length, pitch) for at, length, pitch in EIGHTHS])))
    assert riff.first_bar == 4
    assert riff.tokens[0] == 40


def test_four_bars_are_two_riffs_and_three_leave_one_over() -> None:
    four = midi_bytes(midi_track(EIGHTHS + [(at + 8, length, pitch + 1) for at, length, pitch in EIGHTHS]))
    assert [riff.first_bar for riff in read_all(four)] == [1, 3]
    midi = parse_midi(midi_bytes(midi_track([*EIGHTHS, (8, 1, 50)])))
    windows, left = file_riffs(midi, midi.tracks[0], HELD)
    assert [number for number, _ in windows] == [1]
    assert left == "bar 3 left over"


def test_a_note_that_rings_on_is_cut_at_the_end_of_its_riff() -> None:
    first, second = read_all(midi_bytes(midi_track([(0, 1, 40), (7, 3, 45), (12, 4, 50)])))
    assert first.tokens[28:].tolist() == [45, HOLD, HOLD, HOLD]
    assert second.tokens[:8].tolist() == [REST] * 8


def test_a_trailing_rest_bar_counts_when_the_end_of_the_track_says_so() -> None:
    one_bar = EIGHTHS[:8]
    assert refusal(midi_bytes(midi_track(one_bar))).reason == "too short"
    assert refusal(midi_bytes(midi_track(one_bar, end=7.9))).reason == "too short"
    (riff,) = read_all(midi_bytes(midi_track(one_bar, end=8, name="long enough a name to be in the way of the count")))
    assert riff.tokens[16:].tolist() == [REST] * 16
    (riff,) = read_all(midi_bytes(midi_track(one_bar, end=9)))
    assert riff.tokens[16:].tolist() == [REST] * 16


def test_bars_follow_the_time_signatures() -> None:
    midi = parse_midi(
        midi_bytes(midi_track([(i, 1, 40) for i in range(20)]), meters=[(0, 4, 4), (4, 2, 4), (6, 6, 8), (9, 4, 4), (15, 4, 4)])
    )
    found = [(bar.start // 480, bar.end // 480, bar.numerator, bar.denominator) for bar in bars(midi, 19 * 480)]
    assert found == [(0, 4, 4, 4), (4, 6, 2, 4), (6, 9, 6, 8), (9, 13, 4, 4), (13, 15, 4, 0), (15, 19, 4, 4), (19, 23, 4, 4)]


@pytest.mark.parametrize("meter", [(6, 8), (3, 4), (2, 2), (7, 8), (12, 8)])
def test_other_meters_are_refused_by_name(meter: tuple[int, int]) -> None:
    error = refusal(midi_bytes(midi_track([*EIGHTHS, (8, 4, 40), (12, 4, 40)]), meters=[(0, *meter)]))
    assert (error.reason, error.detail) == ("not 4/4", f"{meter[0]}/{meter[1]}")


def test_a_bar_of_two_four_inside_moves_the_riffs_behind_it() -> None:
    notes = [(i / 2, 0.5, 40 + i % 5) for i in range(36)]  # 4 + 4 + 2 + 4 + 4 quarter notes
    midi = parse_midi(midi_bytes(midi_track(notes), meters=[(0, 4, 4), (8, 2, 4), (10, 4, 4)]))
    windows, left = file_riffs(midi, midi.tracks[0], HELD)
    assert [(number, window[0].start // 480) for number, window in windows] == [(1, 0), (4, 10)]
    assert left == "bar 3 left over"
    assert read_riff(midi, midi.tracks[0], windows[1], HELD).tokens[0] == 40  # the 21st note


def test_no_two_bars_of_four_four_in_a_row() -> None:
    meters = [(0, 4, 4), (4, 2, 4), (6, 4, 4), (10, 2, 4)]
    error = refusal(midi_bytes(midi_track([(i, 1, 40) for i in range(12)]), meters=meters))
    assert (error.reason, error.detail) == ("not 4/4", "no 2 bars of 4/4 in a row")


# ---------------------------------------------------------------- chords, tracks, range


def test_polyphony_policies() -> None:
    notes = [*EIGHTHS, (0, 0.5, 52), (0, 0.5, 47), (2, 0.5, 30)]
    data = midi_bytes(midi_track(notes))
    (low,) = read_all(data)
    assert (low.tokens[0], low.tokens[8]) == (40, 30)
    assert low.note == "3 chord notes left out (lowest kept)"
    (high,) = read_all(data, TokenizerConfig(policy="highest"))
    assert (high.tokens[0], high.tokens[8]) == (52, 44)
    error = refusal(data, TokenizerConfig(policy="reject"))
    assert error.reason == "polyphonic" and error.detail.startswith("bars 1-2: 3 notes")
    assert read_all(midi_bytes(midi_track(EIGHTHS)), TokenizerConfig(policy="reject"))[0].note == ""


def test_a_guitar_is_read_before_a_busier_other_part() -> None:
    piano = midi_track([(i / 4, 0.25, 60) for i in range(32)], program=0, name="Keys")
    guitar = midi_track(EIGHTHS[:4], program=29, name="Gtr", channel=1)
    drums = midi_track([(i / 4, 0.25, 36) for i in range(32)], channel=9)
    track, note = choose_track(parse_midi(midi_bytes(piano, guitar, drums)))
    assert (track.name, track.program) == ("Gtr", 29)
    assert note == "2 tracks: read Gtr, overdriven guitar (program 29)"
    track, note = choose_track(parse_midi(midi_bytes(piano, drums)))
    assert (track.name, note) == ("Keys", "")
    few, many = midi_track(EIGHTHS[:3], name="few"), midi_track(EIGHTHS, name="many", channel=1)
    assert choose_track(parse_midi(midi_bytes(few, many)))[0].name == "many"


def test_drums_only_and_no_notes() -> None:
    error = refusal(midi_bytes(midi_track(EIGHTHS, channel=9)))
    assert (error.reason, error.detail) == ("no notes", "only drums")
    assert refusal(midi_bytes(midi_track([], end=8))).reason == "no notes"
    assert refusal(midi_bytes(midi_track(EIGHTHS)), min_notes=17).reason == "no notes"


def test_out_of_range_names_the_note_and_the_limits() -> None:
    notes = [*EIGHTHS[:-1], (7.5, 0.5, 27)]
    error = refusal(midi_bytes(midi_track(notes)), low=28, high=88)
    assert (error.reason, error.detail) == ("out of range", "bars 1-2: D#1, allowed E1 to E6")
    assert refusal(midi_bytes(midi_track([*EIGHTHS[:-1], (7.5, 0.5, 89)])), low=28, high=88).detail.startswith("bars 1-2: F6")
    assert read_all(midi_bytes(midi_track(notes)), low=27)
    assert refusal(midi_bytes(midi_track([*EIGHTHS[:-1], (7.5, 0.5, 0)]))).reason == "out of range"  # pitch 0 would read as a rest


def test_triplets_are_off_the_grid() -> None:
    triplets = [(i / 3, 1 / 3, 40) for i in range(24)]
    error = refusal(midi_bytes(midi_track(triplets)))
    assert (error.reason, error.detail) == ("off the grid", "bars 1-2: 16 of 24 onsets lie between the steps")
    assert read_all(midi_bytes(midi_track(triplets)), max_off_grid=0.7)
    (riff,) = read_all(midi_bytes(midi_track(triplets)), TokenizerConfig(steps_per_beat=3))
    assert riff.tokens.tolist() == [40] * 24


# ---------------------------------------------------------------- guards against broken files

GOOD = raw_note(b"\x00") + raw_note(b"\x83\x60") + END_OF_TRACK
LONGEST_DELTA = b"\xff\xff\xff\x7f"
UNREADABLE = {
    "empty": b"",
    "not MIDI": b"RIFF" + bytes(40),
    "cut in the header": b"MThd\0\0\0\x06\0\1",
    "text": b"hello\n" * 100,
    "SMPTE division": raw_midi(GOOD, division=0xE250),
    "division 0": raw_midi(GOOD, division=0),
    "division 1": raw_midi(GOOD, division=1),
    "division 23": raw_midi(GOOD, division=23),
    "tempo 0": raw_midi(b"\0\xff\x51\x03\0\0\0" + GOOD),
    "time signature 0/4": raw_midi(b"\0\xff\x58\x04\0\x02\x18\x08" + GOOD),
    "time signature 4/256": raw_midi(b"\0\xff\x58\x04\x04\x08\x18\x08" + GOOD),
    "time signature 4/64": raw_midi(b"\0\xff\x58\x04\x04\x06\x18\x08" + GOOD),
    "truncated": riff_bytes([40] * 32)[:-30],
    "chunk longer than the file": raw_midi(GOOD)[:18] + struct.pack(">I", 0xFFFFFFFF) + GOOD,
    "program 230": raw_midi(b"\0\xc0\xe6" + GOOD),
    "pitch 200": raw_midi(b"\0\x90\xc8\x40\x60\x80\xc8\0" + END_OF_TRACK),
    "ticks past 32 bits": raw_midi(b"".join(raw_note(LONGEST_DELTA) for _ in range(9)) + END_OF_TRACK),
    "a tempo past 32 bits": raw_midi(
        (LONGEST_DELTA + b"\xb0\x07\x01") * 8 + LONGEST_DELTA + b"\xff\x51\x03\x07\xa1\x20" + END_OF_TRACK, GOOD
    ),
    "only ticks past 32 bits": raw_midi((LONGEST_DELTA + b"\xb0\x07\x01") * 8 + raw_note(LONGEST_DELTA) + END_OF_TRACK),
}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_broken_files_are_unreadable_with_a_reason(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.mid"
    path.write_bytes(UNREADABLE[kind])
    with pytest.raises(MidiError) as error:
        read_midi(path)
    assert error.value.reason == "unreadable"
    assert error.value.detail and "\n" not in error.value.detail


@pytest.mark.timeout(5)
def test_the_good_twin_of_the_broken_files_is_read() -> None:
    assert parse_midi(raw_midi(GOOD)).tracks[0].start.tolist() == [0, 96 + 480]
    assert parse_midi(raw_midi(b"\0\xff\x58\x04\x04\x02\x18\x08\0\xff\x51\x03\x07\xa1\x20" + GOOD)).tempos == [(0, 120.0)]


@pytest.mark.timeout(5)
def test_huge_times_cost_nothing() -> None:
    assert refusal(raw_midi(raw_note(LONGEST_DELTA) + END_OF_TRACK)).reason == "too long"
    assert refusal(raw_midi(raw_note(b"\0") + raw_note(LONGEST_DELTA) + END_OF_TRACK)).reason == "too long"
    midi = parse_midi(raw_midi(raw_note(b"\0") + raw_note(b"\x8e\x20") + LONGEST_DELTA + b"\xff\x2f\0"))
    assert file_riffs(midi, midi.tracks[0], HELD)[0][0][0] == 1  # only the end of the track is far off


def test_a_file_over_two_megabytes_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "big.mid"
    path.write_bytes(riff_bytes([40] * 32) + bytes(MAX_FILE_BYTES))
    with pytest.raises(MidiError, match=r"2\.0 MB"):
        read_midi(path)
    with pytest.raises(MidiError, match="unreadable"):
        read_midi(tmp_path)  # a folder
    with pytest.raises(MidiError, match="unreadable"):
        read_midi(tmp_path / "missing.mid")


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_end_in_riffs_or_a_midi_error(data: st.DataObject) -> None:
    good = bytearray(midi_bytes(midi_track(EIGHTHS, name="riff", end=12), markers=[(0, "Verse")], meters=[(0, 4, 4), (8, 3, 4)]))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        for riff in read_all(bytes(good[: data.draw(st.integers(len(good) - 40, len(good)))])):
            assert is_legal(riff.tokens, HELD)
            riffs_to_midi([riff], HELD)
    except MidiError as error:
        assert error.reason and "\n" not in str(error)


# ---------------------------------------------------------------- names and looks


@given(st.integers(0, 127))
def test_pitch_names_round_trip(pitch: int) -> None:
    assert parse_pitch(pitch_name(pitch)) == pitch


def test_known_pitch_and_program_names() -> None:
    assert (pitch_name(40), pitch_name(60), pitch_name(0), parse_pitch("Bb2"), parse_pitch("e2")) == ("E2", "C4", "C-1", 46, 40)
    for wrong in ("", "H2", "E", "Ex", "2", "G#9", "Cb-1"):
        with pytest.raises(ValueError):
            parse_pitch(wrong)
    assert [program_name(p) for p in (27, 29, 30, 0)] == [
        "clean guitar (program 27)",
        "overdriven guitar (program 29)",
        "distortion guitar (program 30)",
        "program 0",
    ]


def test_text_roll() -> None:
    tokens = np.array([40, HOLD, 40, REST] + [REST] * 11 + [52] + [HOLD] * 2 + [REST] * 14)
    assert text_roll(tokens, HELD).splitlines() == [
        "  E3 |...............o|==..............|",
        "  E2 |o=o.............|................|",
        "      1   2   3   4    1   2   3   4   ",
    ]
    assert text_roll(np.zeros(16, dtype=int), HELD).splitlines()[0] == "  -- |................|"


def test_the_file_shows_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(riff_bytes([40] * 32))
    assert midi_utils.main([str(path)]) == 0
    assert "round trip: identical" in capsys.readouterr().out
    path.write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        midi_utils.main([str(path)])
    with pytest.raises(UserError):
        midi_utils.main([])
