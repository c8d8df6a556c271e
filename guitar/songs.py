"""Whole songs: reading any format, finding the guitar parts and the sections, cutting riffs on bar lines. No torch.

Run `python -m guitar.songs FILE` to see a song's parts and sections.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config import CutConfig, DataConfig, TokenizerConfig, UserError, run_script
from dataset import plural, shown
from guitar.fretboard import tuning_name
from guitar.gpif import parse_gpif
from guitar.guitar_pro import parse_guitar_pro
from guitar.sections import Section, marked_sections, plain, repeated_sections, wanted
from measures.metrics import relative_tokens
from midi_utils import (
    GUITAR_PROGRAMS,
    Bar,
    MidiError,
    MidiFile,
    MidiTrack,
    Riff,
    bars,
    parse_midi,
    program_name,
    read_bytes,
    read_riff,
    riffs_to_midi,
)

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
    data = read_bytes(path, MAX_SONG_BYTES)
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
        part.refused.append(("too short", f"{section.name}: {plural(section.stop - section.first, 'bar')}, {size} needed"))


def slug(text: str, most: int = 40) -> str:
    """A name as a part of a file name: no _, which ends the song's name."""
    return re.sub(r"[^\w#]+|_+", "-", plain(text)).strip("-")[:most] or "x"


def song_riffs(path: str, midi: MidiFile, parts: Sequence[CutPart], tokenizer: TokenizerConfig) -> tuple[list[dict[str, Any]], int]:
    """The riffs cut from a song as they are written to files: each once (transposed or not).

    Returns:
        name, midi (the file's bytes), print (equal for transposed riffs) and facts of each; and how many repeated one.
    """
    made, seen, duplicates = [], set(), 0
    for part, section, riff in ((one, section, riff) for one in parts for section, riff in one.riffs):
        if (key := relative_tokens(riff.tokens[None])[0].tobytes()) in seen:
            duplicates += 1
            continue
        seen.add(key)
        bar = riff.first_bar
        written = midi.written_bars[bar - 1] if midi.written_bars else bar
        who = f"{slug(part.track.name or 'part', 24)}-{part.number}"
        name = f"{slug(shown(Path(Path(path).stem)))}_{slug(section.name, 24)}_{who}_bar{bar:03d}"
        tuning = tuning_name(part.track.tuning) + f", capo {part.track.capo}" * (part.track.capo > 0) if part.track.tuning else ""
        marker = ", ".join([f"{section.name}, bar {written} of {shown(Path(Path(path).name))}"] + [tuning] * bool(tuning))
        inside = tuple((at, text) for at, text in riff.markers if at > 0)
        named = dataclasses.replace(riff, name=name, markers=((0.0, marker), *inside))
        made.append(
            {
                "name": name,
                "midi": riffs_to_midi([named], tokenizer),
                "print": key,
                "part": part.track.name or f"part {part.number}",
                "section": section.name,
                "bar": bar,
                "written_bar": written,
                "bpm": round(riff.bpm, 3),
                "tuning": tuning,
                "note": riff.note,
            }
        )
    return made, duplicates


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
        raise UserError("give one song: python -m guitar.songs FILE.gp5")
    try:
        midi = read_song(Path(argv[0]))
        print(f"{argv[0]}: {plural(len(bars(midi, midi.last_onset)), 'bar')}, {midi.bpm_at(0):g} bpm")
        print("\n".join(describe_song(midi, CutConfig())))
    except MidiError as error:
        raise UserError(f"{argv[0]}: {error}") from None
    return 0


if __name__ == "__main__":
    run_script(main)
