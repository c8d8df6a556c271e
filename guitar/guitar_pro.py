"""Guitar Pro 3 to 5: reading songs (.gp3, .gp4, .gp5), writing riffs (.gp5; Guitar Pro, TuxGuitar and MuseScore open them). No torch.

Run `python -m guitar.guitar_pro FILE.gp5` to see the bars, frets and lengths of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import guitarpro
from guitarpro.models import (
    Beat,
    BeatStatus,
    Duration,
    GuitarString,
    Marker,
    Measure,
    MeasureHeader,
    MidiChannel,
    MixTableChange,
    MixTableItem,
    Note,
    NoteType,
    Song,
    Track,
)

from config import TokenizerConfig, UserError, run_script
from guitar.fretboard import Fretboard, finger
from guitar.scores import WrittenBar, WrittenNote, WrittenTrack, score_to_midi
from midi_utils import VELOCITY, MidiError, MidiFile, Riff, decoded, tokens_to_notes

MAX_STRINGS = 7  # of the format
STEPS_PER_BEAT = (1, 2, 4, 8)  # grids whose steps are plain note values
_CLEAN = 27


# ---------------------------------------------------------------- reading


def _decoded(text: str) -> str:
    """A text that was read byte by byte (latin-1) as it was most likely written."""
    return decoded(text.encode("latin-1", "replace"))


def parse_guitar_pro(data: bytes, path: str = "") -> MidiFile:
    """Read the bytes of a Guitar Pro 3, 4 or 5 file as it is played. Grace notes and muted strokes (x) are left out.

    Raises:
        MidiError: unreadable, or no notes.
    """
    try:
        song = guitarpro.parse(BytesIO(data), encoding="latin-1")
        bars = [_written_bar(header) for header in song.measureHeaders]
        tracks = [_written_track(track, bars) for track in song.tracks]
    except MidiError:
        raise
    except Exception as error:  # strangers' files: GPException, struct.error, UnicodeDecodeError, IndexError, ValueError, ...
        text = " ".join(str(error).split())
        raise MidiError("unreadable", f"damaged: {text[:80] or type(error).__name__}") from None
    return score_to_midi(path, bars, tracks, float(song.tempo))


def _written_bar(header: MeasureHeader) -> WrittenBar:
    return WrittenBar(
        numerator=header.timeSignature.numerator,
        denominator=header.timeSignature.denominator.value,
        opens=header.isRepeatOpen,
        plays=header.repeatClose + 1 if header.repeatClose > 0 else 0,
        endings=frozenset(turn + 1 for turn in range(8) if header.repeatAlternative >> turn & 1),
        marker=_decoded(header.marker.title).strip() if header.marker else "",
    )


def _written_track(track: Track, bars: list[WrittenBar]) -> WrittenTrack:
    """The notes of a part; the tempos that stand in it go to the bars."""
    tuning = [string.value for string in track.strings]
    found: list[list[WrittenNote]] = []
    for number, measure in enumerate(track.measures):
        notes: list[WrittenNote] = []
        for voice_number, voice in enumerate(measure.voices):
            at = 0
            for beat in voice.beats:
                change = beat.effect.mixTableChange
                if change is not None and change.tempo is not None:
                    bars[number].tempos.append((at, float(change.tempo.value)))
                length = int(beat.duration.time) if beat.status != BeatStatus.empty else 0
                for note in beat.notes:
                    if note.type in (NoteType.normal, NoteType.tie) and 1 <= note.string <= len(tuning):
                        fret = 0 if note.type == NoteType.tie else note.value  # the pitch of a tie is that of the note it goes on with
                        pitch = tuning[note.string - 1] + track.offset + fret
                        tied = note.type == NoteType.tie
                        notes.append(WrittenNote(at, length, 10 * voice_number + note.string, pitch, min(127, note.velocity), tied))
                at += length
        found.append(notes)
    drums = track.isPercussionTrack or track.channel.isPercussionChannel
    return WrittenTrack(_decoded(track.name), track.channel.instrument, drums, tuple(reversed(tuning)), max(0, track.offset), found)


# ---------------------------------------------------------------- writing


def split_length(at: int, length: int, beat: int) -> list[int]:
    """Lengths that one note sign can have and that together make a note, tied; cut where a reader looks for the beats.

    Args:
        at: where in the bar it begins, in steps.
        length: in steps.
        beat: steps of a beat, a power of two.
    """
    plain = sorted((size for power in range(7) for size in (2**power, 3 * 2**power) if size <= 4 * beat), reverse=True)
    parts = []
    while length:
        room = beat - at % beat
        if room < beat and length > room and not (length == beat and at % beat * 2 == beat):
            part = room  # up to the next beat; a beat that begins half-way through another is read at a glance
            part = next(size for size in plain if size <= part)
        else:
            part = next(size for size in plain if size <= length)
        parts.append(part)
        at, length = at + part, length - part
    return parts


def _duration(length: int, beat: int) -> Duration:
    """A note value. length: steps, as split_length gives them"""
    dotted = length % 3 == 0
    return Duration(value=4 * beat // (length * 2 // 3 if dotted else length), isDotted=dotted)


def signs(riff: Riff, tokenizer: TokenizerConfig) -> Iterator[tuple[int, int, int, bool]]:
    """A riff as it is written: one after another, without gaps.

    Yields:
        step; length in steps; which note, or -1 for a rest; whether it is tied to the sign before.
    """
    start, end, _ = tokens_to_notes(riff.tokens, tokenizer)
    spans, at = [], 0
    for i, (first, last) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        spans += [(at, first, -1)] * (first > at) + [(first, last, i)]
        at = last
    spans += [(at, tokenizer.steps, -1)] * (at < tokenizer.steps)
    bar = tokenizer.steps_per_bar
    for first, last, note in spans:
        at = first
        while at < last:
            for part in split_length(at % bar, min(last, (at // bar + 1) * bar) - at, tokenizer.steps_per_beat):
                yield at, part, note, note >= 0 and at > first
                at += part


def _text(text: str, most: int = 100) -> str:
    """What the format's one-byte strings can hold of a text; ? for the rest."""
    return text[:most].encode("cp1252", "replace").decode("cp1252")


def riffs_to_gp5(riffs: Sequence[Riff], tokenizer: TokenizerConfig, board: Fretboard) -> bytes:
    """Write riffs one after the other as a Guitar Pro 5 file, each fingered by itself, with a marker at each.

    Notes that the guitar does not have are left out (tab.unplayable names them).

    Raises:
        UserError: a grid or a guitar that the format has no signs for.
        ValueError: no riff, or one that breaks the grammar.
    """
    if not riffs:
        raise ValueError("no riffs to write")
    if tokenizer.steps_per_beat not in STEPS_PER_BEAT:
        raise UserError(f"--steps-per-beat {tokenizer.steps_per_beat}: .gp5 is written for 1, 2, 4 or 8 steps per quarter note")
    if len(board.strings) > MAX_STRINGS:
        raise UserError(f"--tuning: {len(board.strings)} strings; .gp5 has {MAX_STRINGS} at most")
    song = Song(title=_text(riffs[0].name) or "riff", tempo=round(riffs[0].bpm))
    bars = len(riffs) * tokenizer.bars
    song.measureHeaders = [MeasureHeader(number=bar + 1, start=Duration.quarterTime * (1 + 4 * bar)) for bar in range(bars)]
    for number, riff in enumerate(riffs):
        song.measureHeaders[number * tokenizer.bars].marker = Marker(title=_text(riff.name) or f"riff {number + 1}")
    strings = [GuitarString(number + 1, pitch) for number, pitch in enumerate(reversed(board.strings))]
    channel = MidiChannel(instrument=riffs[0].program)
    track = Track(
        song, name=_text(riffs[0].name, 40) or "guitar", strings=strings, fretCount=board.frets, offset=board.capo, channel=channel
    )
    track.measures = [Measure(track, header) for header in song.measureHeaders]
    song.tracks = [track]
    bpm = song.tempo
    for number, riff in enumerate(riffs):
        fingering = finger(board, *tokens_to_notes(riff.tokens, tokenizer))
        changes = sorted(riff.tempos)
        for at, length, note, tied in signs(riff, tokenizer):
            measure = track.measures[number * tokenizer.bars + at // tokenizer.steps_per_bar]
            playable = note >= 0 and fingering.string[note] >= 0
            beat = Beat(measure.voices[0], duration=_duration(length, tokenizer.steps_per_beat))
            beat.status = BeatStatus.normal if playable else BeatStatus.rest
            if playable:
                kind = NoteType.tie if tied else NoteType.normal
                string = len(board.strings) - int(fingering.string[note])
                beat.notes.append(Note(beat, value=int(fingering.fret[note]), velocity=VELOCITY, string=string, type=kind))
            due = [tempo for step, tempo in changes if step < at + length]
            changes = [change for change in changes if change[0] >= at + length]
            if due and round(due[-1]) != bpm:
                bpm = round(due[-1])
                beat.effect.mixTableChange = MixTableChange(tempo=MixTableItem(value=bpm, allTracks=True), hideTempo=False)
            measure.voices[0].beats.append(beat)
    buffer = BytesIO()
    guitarpro.write(song, buffer, version=(5, 1, 0))
    return buffer.getvalue()


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        raise UserError("give one .gp5 file: python -m guitar.guitar_pro runs/riff_2bar/riffs/NAME.gp5")
    song = guitarpro.parse(argv[0])
    print(f"{song.title}, {song.tempo} bpm")
    for track in song.tracks:
        print(f"{track.name}: {' '.join(map(str, reversed(track.strings)))}, capo {track.offset}")
        for measure in track.measures:
            beats = (
                f"{1 / beat.duration.value:g}{'.' * beat.duration.isDotted}:"
                + (",".join(f"{note.string}/{note.value}{'~' * (note.type == NoteType.tie)}" for note in beat.notes) or "-")
                for beat in measure.voices[0].beats
            )
            print(f"  bar {measure.number} {'(' + measure.marker.title + ') ' if measure.marker else ''}{'  '.join(beats)}")
    return 0


if __name__ == "__main__":
    run_script(main)
