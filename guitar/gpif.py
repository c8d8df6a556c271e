"""Guitar Pro 6 to 8: reading songs (.gpx, .gp), which are packed XML (score.gpif). No torch.

Nothing is unpacked beyond MAX_UNPACKED bytes, whatever a file asks for, and XML that defines entities is refused.
Run `python -m guitar.gpif FILE.gp` to see a song's parts.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from config import UserError, run_script
from guitar.scores import TICKS, WrittenBar, WrittenNote, WrittenTrack, score_to_midi
from midi_utils import MAX_BARS, MidiError, MidiFile

MAX_UNPACKED = 32_000_000  # bytes; a song of ten parts and ten minutes has under 5 million
_SECTOR = 4096
_VALUES = {"Long": 16, "DoubleWhole": 8, "Whole": 4, "Half": 2, "Quarter": 1, "Eighth": 1 / 2, "16th": 1 / 4, "32nd": 1 / 8}
_VALUES |= {"64th": 1 / 16, "128th": 1 / 32, "256th": 1 / 64}  # in quarter notes
# What a tempo counts, by the second number of its value: an eighth, a quarter, a dotted quarter, a half, a dotted half; in quarter notes.
_TEMPO_UNITS = {"1": 0.5, "2": 1.0, "3": 1.5, "4": 2.0, "5": 3.0}
_DYNAMICS = {"PPP": 16, "PP": 33, "P": 49, "MP": 65, "MF": 80, "F": 96, "FF": 112, "FFF": 127}


# ---------------------------------------------------------------- unpacking


def unpack(data: bytes) -> bytes:
    """The score.gpif of a .gp or .gpx file.

    Raises:
        MidiError: damaged, too large, or without a score.
    """
    if data[:2] == b"PK":
        return _from_zip(data)
    if data[:4] == b"BCFZ":
        data = _inflate_bcfz(data)
    if data[:4] == b"BCFS":
        return _from_bcfs(data)
    raise MidiError("unreadable", "no Guitar Pro file, whatever its name")


def _from_zip(data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = next((name for name in archive.namelist() if name.lower().endswith("score.gpif")), None)
            if name is None:
                raise MidiError("unreadable", "a zip file without a score.gpif")
            with archive.open(name) as file:
                text = file.read(MAX_UNPACKED + 1)  # what the directory says of its size may be a lie
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise MidiError("unreadable", f"damaged: {str(error)[:80]}") from None
    if len(text) > MAX_UNPACKED:
        raise MidiError("unreadable", f"its score unpacks to more than {MAX_UNPACKED // 1_000_000} MB")
    return text


class _Bits:
    """Bits of bytes, the highest of each first; as text, because slices of text are quick."""

    def __init__(self, data: bytes) -> None:
        self._text, self._at = bin(int.from_bytes(b"\1" + data, "big"))[3:], 0

    def _take(self, bits: int) -> str:
        """
        Raises:
            EOFError: past the end.
        """
        found = self._text[self._at : self._at + bits]
        if len(found) < bits:
            raise EOFError
        self._at += bits
        return found

    def number(self, bits: int) -> int:
        """Highest bit first."""
        return int(self._take(bits), 2)

    def backwards(self, bits: int) -> int:
        """Lowest bit first."""
        return int(self._take(bits)[::-1] or "0", 2)


def _inflate_bcfz(data: bytes) -> bytes:
    """Undo the packing of .gpx: runs of plain bytes, and runs that repeat what stands some way back."""
    size = int.from_bytes(data[4:8], "little")
    if size > MAX_UNPACKED:
        raise MidiError("unreadable", f"it unpacks to more than {MAX_UNPACKED // 1_000_000} MB")
    bits, out = _Bits(data[8:]), bytearray()
    try:
        while len(out) < size:
            if bits.number(1):
                width = bits.number(4)
                back, length = bits.backwards(width), bits.backwards(width)
                start = len(out) - back
                if not 0 < back <= len(out):
                    raise MidiError("unreadable", "damaged: it repeats what is not there")
                out += out[start : start + min(back, length)]
                if not length:
                    raise MidiError("unreadable", "damaged: an empty repeat")
            else:
                for _ in range(bits.backwards(2)):
                    out.append(bits.number(8))
    except EOFError:
        pass  # the last byte is filled up with bits that mean nothing; what is missing is missed below
    return bytes(out[:size])


def _from_bcfs(data: bytes) -> bytes:
    """Find the score in the little file system of a .gpx: some sectors are entries (2) with a name, a size and a list of sectors."""
    disk = data[4:]

    def integer(at: int) -> int:
        return int.from_bytes(disk[at : at + 4], "little")

    for at in range(_SECTOR, len(disk) - 3, _SECTOR):
        if integer(at) != 2:
            continue
        name = disk[at + 4 : at + 131].split(b"\0")[0].decode("utf-8", "replace")
        if not name.lower().endswith("score.gpif"):
            continue
        size = integer(at + 0x8C)
        sectors = []
        for place in range(at + 0x94, min(at + _SECTOR, len(disk) - 3), 4):
            if not (sector := integer(place)):
                break
            sectors.append(disk[sector * _SECTOR : (sector + 1) * _SECTOR])
        text = b"".join(sectors)[:size]
        if text and len(text) == size:
            return text
        raise MidiError("unreadable", "damaged: its score is cut off")
    raise MidiError("unreadable", "no score.gpif in it")


# ---------------------------------------------------------------- the score


def parse_gpif(data: bytes, path: str = "") -> MidiFile:
    """Read the bytes of a Guitar Pro 6, 7 or 8 file as it is played. Grace notes and muted strokes (x) are left out.

    Raises:
        MidiError: unreadable, or no notes.
    """
    text = unpack(data)
    if re.search(rb"<!(DOCTYPE|ENTITY)", text[:100_000], re.IGNORECASE):
        raise MidiError("unreadable", "XML that defines entities")
    try:
        root = ElementTree.fromstring(text)
        bars = [_bar(element) for element in root.iterfind("MasterBars/MasterBar")]
        if len(bars) > MAX_BARS:
            raise MidiError("too long", f"more than {MAX_BARS} bars")
        bpm = _tempos(root, bars)
        tracks = _tracks(root)
    except MidiError:
        raise
    except ElementTree.ParseError as error:
        raise MidiError("unreadable", f"damaged XML: {str(error)[:80]}") from None
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise MidiError("unreadable", f"damaged: {type(error).__name__} in its score") from None
    return score_to_midi(path, bars, tracks, bpm)


def _text(element: Element | None, path: str, default: str = "") -> str:
    found = element.findtext(path) if element is not None else None
    return found.strip() if found else default


def _bar(element: Element) -> WrittenBar:
    top, _, bottom = _text(element, "Time", "4/4").partition("/")
    repeat = element.find("Repeat")
    words = [_text(element, f"Section/{name}") for name in ("Letter", "Text")]
    return WrittenBar(
        numerator=int(top),
        denominator=int(bottom),
        opens=repeat is not None and repeat.get("start") == "true",
        plays=max(2, min(99, int(repeat.get("count") or 2))) if repeat is not None and repeat.get("end") == "true" else 0,
        endings=frozenset(int(word) for word in _text(element, "AlternateEndings").split()),
        marker=" ".join(dict.fromkeys(word for word in words if word)),
    )


def _tempos(root: Element, bars: Sequence[WrittenBar]) -> float:
    """Put the tempos into the bars. -> the first, quarter notes per minute"""
    first = 120.0
    for automation in root.iterfind("MasterTrack/Automations/Automation"):
        if _text(automation, "Type") != "Tempo":
            continue
        value, _, unit = _text(automation, "Value", "120 2").partition(" ")
        bpm = float(value) * _TEMPO_UNITS.get(unit.strip(), 1.0)
        bar, place = int(_text(automation, "Bar", "0")), float(_text(automation, "Position", "0"))
        if bar == 0 and place == 0:
            first = bpm
        if 0 <= bar < len(bars) and 0 <= place < 1:
            bars[bar].tempos.append((round(place * bars[bar].length), bpm))
    return first


def _rhythm(element: Element) -> int:
    """A note value in ticks."""
    length = TICKS * _VALUES[_text(element, "NoteValue", "Quarter")]
    dots = element.find("AugmentationDot")
    length *= 2 - 0.5 ** (min(4, int(dots.get("count") or 1)) if dots is not None else 0)
    for name in ("PrimaryTuplet", "SecondaryTuplet"):
        if (tuplet := element.find(name)) is not None:
            length *= int(tuplet.get("den") or _text(tuplet, "Den", "1")) / int(tuplet.get("num") or _text(tuplet, "Num", "1"))
    return round(length)


def _property(element: Element, name: str) -> Element | None:
    return next((found for found in element.iterfind("Properties/Property") if found.get("name") == name), None)


def _tracks(root: Element) -> list[WrittenTrack]:
    """The parts; of a part with several staves the first. Bars, voices, beats and notes are named by number and may be used again."""
    named = {kind: {e.get("id"): e for e in root.iterfind(f"{kind}s/{kind}")} for kind in ("Bar", "Voice", "Beat", "Note", "Rhythm")}
    lengths = {key: _rhythm(element) for key, element in named["Rhythm"].items()}
    masters = [_text(master, "Bars").split() for master in root.iterfind("MasterBars/MasterBar")]
    tracks, column = [], 0
    for element in root.iterfind("Tracks/Track"):
        staves = element.findall("Staves/Staff")
        where = staves[0] if staves else element
        tuning = tuple(int(word) for word in _text(_property(where, "Tuning"), "Pitches").split())
        capo = int(_text(_property(where, "CapoFret"), "Fret", "0"))
        bars: list[list[WrittenNote]] = []
        for ids in masters:
            bar = named["Bar"].get(ids[column]) if column < len(ids) else None
            bars.append(list(_notes(bar, named, lengths, tuning, capo)) if bar is not None else [])
        general = element.find("GeneralMidi")
        drums = general is not None and general.get("table") == "Percussion"
        drums |= _text(element, "InstrumentSet/Type") == "drumKit" or _text(element, "GeneralMidi/PrimaryChannel") == "9"
        program = int(_text(element, "GeneralMidi/Program") or _text(element, "Sounds/Sound/MIDI/Program") or 25)
        tracks.append(WrittenTrack(_text(element, "Name"), program, drums, tuning, max(0, capo), bars))
        column += max(1, len(staves))
    return tracks


def _notes(
    bar: Element, named: dict[str, dict[str | None, Element]], lengths: dict[str | None, int], tuning: tuple[int, ...], capo: int
) -> Iterator[WrittenNote]:
    """The notes of one bar of one part, its voices one after the other."""
    for number, voice_id in enumerate(_text(bar, "Voices").split()):
        voice = named["Voice"].get(voice_id)
        at = 0
        for beat_id in _text(voice, "Beats").split():
            beat = named["Beat"][beat_id]
            if beat.find("GraceNotes") is not None:
                continue  # takes no time of its own
            rhythm = beat.find("Rhythm")
            length = lengths[rhythm.get("ref") if rhythm is not None else None]
            velocity = _DYNAMICS.get(_text(beat, "Dynamic"), 96)
            for note_id in _text(beat, "Notes").split():
                note = named["Note"][note_id]
                muted = _property(note, "Muted")
                if muted is not None and muted.find("Enable") is not None:
                    continue
                string = _text(_property(note, "String"), "String")
                fret = _text(_property(note, "Fret"), "Fret")
                sounding = _text(_property(note, "Midi"), "Number")
                if string and fret and 0 <= int(string) < len(tuning):
                    pitch = tuning[int(string)] + capo + int(fret)
                elif sounding:
                    pitch = int(sounding)
                else:
                    continue  # drums of some versions name an element, not a pitch
                tie = note.find("Tie")
                tied = tie is not None and tie.get("destination") == "true"
                yield WrittenNote(at, length, 100 * number + int(string or pitch), pitch, velocity, tied)
            at += length


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        raise UserError("give one .gp or .gpx file: python -m guitar.gpif song.gp")
    try:
        midi = parse_gpif(Path(argv[0]).read_bytes(), argv[0])
    except MidiError as error:
        raise UserError(f"{argv[0]}: {error}") from None
    for track in midi.tracks:
        print(f"{track.name}: {len(track.pitch)} notes")
    return 0


if __name__ == "__main__":
    run_script(main)
