"""Whole songs: reading any format, finding the guitar parts and the sections, cutting riffs on bar lines. No torch.

Run `python songs.py FILE` to see a song's parts and sections.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config import CutConfig, DataConfig, TokenizerConfig, UserError, run_script
from dataset import plural
from fretboard import tuning_name
from gpif import parse_gpif
from guitar_pro import parse_guitar_pro
from midi_utils import GUITAR_PROGRAMS, Bar, MidiError, MidiFile, MidiTrack, Riff, bars, parse_midi, program_name, read_riff
from sections import Section, marked_sections, plain, repeated_sections, wanted

SONG_SUFFIXES = (".mid", ".midi", ".gp3", ".gp4", ".gp5", ".gpx", ".gp")
MAX_SONG_BYTES = 5_000_000
CUT_MARK = "  <- cut"
_GUITAR_NAMES = re.compile(r"guit|gitar|gtr|chitarra|kitara|kytara|기타|ギター|吉他|гитар|\briff\b|\bgt\b")
_OTHER_NAMES = re.compile(
    r"\bbass|basse|basso|\bbaj[oa]\b|drum|perc|vocal|voice|voix|\bvoc\b|keys|piano|strings|synth|organ|ukulele|banjo|베이스"
)


def read_song(path: Path) -> MidiFile:
    """Read a song, as it is played. The format is told by what the file holds, not by its name.

    Raises:
        MidiError: unreadable, no notes, or no format that we read.
    """
    try:
        if path.exists() and not path.is_file():
            raise MidiError("unreadable", "no regular file")
        if (size := path.stat().st_size) > MAX_SONG_BYTES:
            raise MidiError("unreadable", f"{size / 1e6:.1f} MB, at most {MAX_SONG_BYTES / 1e6:g}")
        data = path.read_bytes()
    except OSError as error:
        raise MidiError("unreadable", error.strerror or str(error)) from None
    if data[1:19] in (b"FICHIER GUITAR PRO", b"CLIPBOARD GUITAR P") or data[1:13] == b"CLIPBOARD GP":
        return parse_guitar_pro(data, str(path))
    if data[:4] in (b"BCFZ", b"BCFS") or data[:2] == b"PK":
        return parse_gpif(data, str(path))
    if path.suffix.lower().startswith(".gp") and data[:4] != b"MThd":
        raise MidiError("unreadable", "no Guitar Pro file, whatever its name")
    return parse_midi(data, str(path))


def is_guitar(track: MidiTrack) -> bool:
    """Whether a part is for guitar: by its name, else by its program and the number of its strings."""
    name = plain(track.name)
    if track.is_drum:
        return False
    if _GUITAR_NAMES.search(name) and not re.search(r"\bbass", name):
        return True
    if _OTHER_NAMES.search(name):
        return False
    return track.program in GUITAR_PROGRAMS and (not track.tuning or len(track.tuning) >= 6)


def chosen_parts(midi: MidiFile, asked: str) -> list[tuple[int, MidiTrack]]:
    """The parts to cut: the guitars, or what is asked for by number (from 1) or a part of the name.

    Raises:
        MidiError: there is none.
    """
    parts = list(enumerate(midi.tracks, 1))
    if asked:
        numbers = {int(word) for word in asked.split(",") if word.strip().isdigit()}
        found = [(i, track) for i, track in parts if (i in numbers if numbers else plain(asked) in plain(track.name))]
        if not found:
            names = ", ".join(f"{i} {track.name or 'unnamed'}" for i, track in parts[:12])
            raise MidiError("no such part", f"--track {asked}; there are {names}")
        return found
    found = [(i, track) for i, track in parts if is_guitar(track)]
    found = found or [(i, track) for i, track in parts if len(track.tuning) >= 6 and not track.is_drum]  # tab of some instrument
    if not found:
        raise MidiError("no guitar", f"{plural(len(parts), 'part')}, none of them a guitar; --track takes another")
    return found


@dataclass
class CutPart:
    """What was cut from one part of a song."""

    number: int  # from 1
    track: MidiTrack
    sections: list[Section] = field(default_factory=list)
    riffs: list[tuple[Section, Riff]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)  # reason and detail, of windows and sections that could not be used


def cut_song(midi: MidiFile, cut: CutConfig, data: DataConfig, tokenizer: TokenizerConfig) -> list[CutPart]:
    """Cut the wanted sections of a song's guitar parts into riffs: windows of whole bars of 4/4, from each section's first bar on.

    Raises:
        MidiError: no guitar, no such section, nothing in 4/4, or no riff that can be used.
    """
    parts = [CutPart(number, track) for number, track in chosen_parts(midi, cut.track)]
    music = bars(midi, midi.last_onset)
    marked = marked_sections(midi, music)
    for part in parts:
        if cut.section.strip().casefold() == "any":
            first = marked[0].first if marked else len(music)
            part.sections = [Section("beginning" if marked else "song", 0, first)] * (first > 0) + marked
        elif marked:
            part.sections = [section for section in marked if wanted(section.name, cut.section)]
        elif wanted("verse", cut.section):
            part.sections = repeated_sections(part.track, music)
        for section in part.sections:
            _cut_section(midi, part, section, music, cut, data, tokenizer)
    if not any(part.sections for part in parts):
        if marked:
            names = ", ".join(dict.fromkeys(section.name for section in marked))
            raise MidiError(f"no {cut.section}", f"its sections: {names[:100]}; --section takes another")
        why = "nothing that repeats" if wanted("verse", cut.section) else "only verses are guessed"
        raise MidiError(f"no {cut.section}", f"no markers, and {why}; --section any takes it all")
    if not any(part.riffs for part in parts):
        reason, detail = next(refusal for part in parts for refusal in part.refused)
        raise MidiError(reason, detail)
    return parts


def _cut_section(
    midi: MidiFile, part: CutPart, section: Section, music: Sequence[Bar], cut: CutConfig, data: DataConfig, tokenizer: TokenizerConfig
) -> None:
    """Add the riffs of one section to a part, and what could not be used."""
    size = tokenizer.bars
    at, used = section.first, False
    while at + size <= section.stop:
        window = list(music[at : at + size])
        odd = next((bar for bar in window if not bar.is_four_four), None)
        if odd is not None:
            meter = f"{odd.numerator}/{odd.denominator}" if odd.denominator else "an incomplete bar"
            part.refused.append(("not 4/4", f"bars {at + 1}-{at + size}: {meter}"))
            at += 1
            continue
        try:
            riff = read_riff(
                midi, part.track, (at + 1, window), tokenizer, section.name, low=data.low, high=data.high,
                grid_tolerance=data.grid_tolerance, max_off_grid=data.max_off_grid, min_notes=data.min_notes,
            )  # fmt: skip
            part.riffs.append((section, riff))
        except MidiError as error:
            part.refused.append((error.reason, error.detail))
        used = True
        at += cut.hop or size
    if not used and section.stop - section.first < size:
        part.refused.append(("too short", f"{section.name}: {plural(section.stop - section.first, 'bar')}, a riff has {size}"))


def describe_song(midi: MidiFile, cut: CutConfig) -> list[str]:
    """A song's parts and sections, a line each."""
    music = bars(midi, midi.last_onset)
    lines = []
    for number, track in enumerate(midi.tracks, 1):
        kind = "drums" if track.is_drum else program_name(track.program)
        tuning = f", {tuning_name(track.tuning)}" if track.tuning and not track.is_drum else ""
        guitar = "  (guitar)" * is_guitar(track)
        lines.append(f"  part {number}: {track.name or 'unnamed'}, {kind}{tuning}, {plural(len(track.pitch), 'note')}{guitar}")
    marked = marked_sections(midi, music)
    for section in marked:
        mark = CUT_MARK * (cut.section.strip().casefold() == "any" or wanted(section.name, cut.section))
        lines.append(f"  bars {section.first + 1}-{section.stop}: {section.name}{mark}")
    if not marked:
        for number, track in enumerate(midi.tracks, 1):
            if is_guitar(track) and wanted("verse", cut.section):
                for section in repeated_sections(track, music):
                    lines.append(f"  bars {section.first + 1}-{section.stop} of part {number}: repeat, a guess: no markers{CUT_MARK}")
    return lines


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        raise UserError("give one song: python songs.py FILE.gp5")
    try:
        midi = read_song(Path(argv[0]))
        print(f"{argv[0]}: {plural(len(bars(midi, midi.last_onset)), 'bar')}, {midi.bpm_at(0):g} bpm")
        print("\n".join(describe_song(midi, CutConfig())))
    except MidiError as error:
        raise UserError(f"{argv[0]}: {error}") from None
    return 0


if __name__ == "__main__":
    run_script(main)
