"""Say what is in MIDI files, and whether they would be accepted for training.

python check_midi.py                       what generate.py wrote last
python check_midi.py midi_riffs            a table, one line per file
python check_midi.py a.mid b.mid --json    the same facts for programs
python check_midi.py a.mid --tab --tuning DADGBE        the riffs as tab
python check_midi.py midi_riffs --output-dir tabs --wav  tab (.txt), Guitar Pro (.gp5) and sound of each file

Exit status: 0 every file would be accepted, 1 some are refused (named), 2 there was nothing to check.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

import midi_utils
from config import LONG_FILE, DataConfig, GuitarConfig, SoundConfig, TokenizerConfig, UserError, run_script
from dataset import find_music_files, plural, say
from files import write_files
from guitar.tab import board_for, tab_page, unplayable
from measures.midi_facts import Line, check_file
from midi_utils import Riff, pitch_name
from output.outputs import companions
from presets import TrainVAE, preset_options

FEW = 3  # up to so many files get a report each, more get a table
WIDTH = 100  # columns of text


@dataclass(frozen=True)
class CheckMidi:
    """Say what is in MIDI files, and whether they would be accepted for training."""

    paths: tyro.conf.Positional[tuple[str, ...]] = ()  # files and folders; none: the long file of the run, with any number of bars
    preset: str = "riff_2bar"  # whose rules apply, and which run to look at when no path is given
    run_dir: str = ""  # folder of the run; default runs/<preset>
    json: bool = False  # print one JSON value instead of text
    roll_bars: int = -1  # bars of piano roll for each file, 0 for all; -1: 4 for up to 3 files, and a table for more
    bars: int = TokenizerConfig.bars  # length of one riff in bars of 4/4
    steps_per_beat: int = TokenizerConfig.steps_per_beat  # grid: 4 steps per quarter note are sixteenths
    policy: Literal["lowest", "highest", "reject"] = TokenizerConfig.policy  # which note of a chord becomes the line; reject refuses chords
    max_bars: int = DataConfig.max_bars  # files with more bars than this are refused; 0 takes any length
    min_notes: int = DataConfig.min_notes  # a riff with fewer note onsets is refused
    low: int = DataConfig.low  # lowest MIDI pitch accepted
    high: int = DataConfig.high  # highest MIDI pitch accepted
    grid_tolerance: float = DataConfig.grid_tolerance  # an onset further than this from its step is off the grid, in steps (0 to 0.5)
    max_off_grid: float = DataConfig.max_off_grid  # share of off-grid onsets above which a riff is refused, 0 to 1
    tab: bool = False  # print the riffs as tab
    output_dir: str = ""  # write tab (.txt) and Guitar Pro (.gp5) of each file to this folder, and with --wav sound
    guitar: GuitarConfig = field(default_factory=GuitarConfig)
    sound: SoundConfig = field(default_factory=SoundConfig)

    def __post_init__(self) -> None:
        if self.roll_bars < -1:
            raise UserError(f"--roll-bars {self.roll_bars}: give a number of bars, 0 for all, or -1")
        if self.sound.wav and not self.output_dir:
            raise UserError("--wav: give --output-dir too, the folder to write to")
        if self.json and self.tab:
            raise UserError("--json and --tab: give one of them")

    def rules(self) -> tuple[DataConfig, TokenizerConfig]:
        """The rules of training under the preset and the flags."""
        base = preset_options(TrainVAE, self.preset)
        data = dataclasses.replace(
            base.dataset, max_bars=self.max_bars if self.paths else 0, min_notes=self.min_notes, low=self.low, high=self.high,
            grid_tolerance=self.grid_tolerance, max_off_grid=self.max_off_grid,
        )  # fmt: skip
        line = {"representation": "mono", "given": "all"}  # of songs with drums, the lines are looked at
        tokenizer = dataclasses.replace(base.tokenizer, bars=self.bars, steps_per_beat=self.steps_per_beat, policy=self.policy, **line)
        return data, tokenizer if self.paths else self.written_with() or tokenizer

    def long_file(self) -> Path:
        """The long file of the run."""
        return Path(self.run_dir or Path("runs") / self.preset) / LONG_FILE

    def written_with(self) -> TokenizerConfig | None:
        """The tokens that the long file was written with, says the JSON beside it; None if there is none."""
        try:
            record = json.loads(self.long_file().with_suffix(".json").read_text(encoding="utf-8"))
            return TokenizerConfig(**record["tokenizer"])
        except (OSError, ValueError, KeyError, TypeError, UserError):
            return None


def parse_args(argv: Sequence[str]) -> CheckMidi:
    """Read the command line: default < preset < flag."""
    plain = (tyro.conf.OmitArgPrefixes,)
    base = preset_options(TrainVAE, tyro.cli(CheckMidi, args=list(argv), config=plain).preset)
    known = dataclasses.asdict(base.dataset) | dataclasses.asdict(base.tokenizer)
    shared = {field.name: known[field.name] for field in dataclasses.fields(CheckMidi) if field.name in known}
    return tyro.cli(CheckMidi, args=list(argv), default=CheckMidi(preset=base.preset, **shared), config=plain)


# ---------------------------------------------------------------- the report of one file


def some(items: Iterable[str], most: int, join: str = ", ") -> str:
    """The first items in a row, and how many more there are."""
    items = list(items)
    return join.join(items[:most] + [f"and {len(items) - most} more"] * (len(items) > most))


def report(facts: dict[str, Any], line: Line | None, data: DataConfig) -> str:
    """The facts about one file as text, in two columns."""
    accepted = f"accepted: {plural(facts['riffs'], 'riff')}, from bar {some(map(str, facts.get('first_bars', [])), 8)}"
    rows = [("training", accepted if facts["accepted"] else f"refused, {facts['reason']}: {facts['detail']}")]
    rows += [("", remark) for remark in facts["remarks"]]

    def by_bar(events: str, unit: str = "") -> str:
        return some((f"bar {bar or '?'}: {value}{unit}" for bar, value in (event.values() for event in facts[events])), 8)

    if "notes" in facts:
        tracks = []
        for t in facts["tracks"]:
            part = "drums" if t["is_drum"] else midi_utils.program_name(t["program"])
            here = " (read here)" * (t["read"] and len(facts["tracks"]) > 1)
            tracks.append(f"{t['name'] or 'unnamed'}, {part}, {plural(t['notes'], 'note')}{here}")
        low, high = facts["range"]
        rows.append(("tempo", by_bar("tempos", " bpm")))
        rows.append(("meter", by_bar("meters")))
        rows += [("markers", by_bar("markers"))] * bool(facts["markers"])
        rows.append(("length", plural(facts["bars"], "bar") if line else "too many bars to count"))
        rows.append((plural(len(tracks), "track"), some(tracks, 8, "; ")))
        rows.append(("notes", f"{facts['notes']}, {pitch_name(low)} to {pitch_name(high)}, {plural(high - low, 'semitone')}"))
        rows.append(("pitches", "  ".join(f"{name}:{n}" for name, n in facts["pitches"].items())))
    if "guitar" in facts:
        missing = f"; not on it: {some(facts['unplayable'], 4)}" if facts["unplayable"] else ", which has all notes"
        rows.append(("guitar", f"{facts['guitar']}{missing}"))
    if line:
        if facts["chord_notes"]:
            rows.append(("chords", f"{plural(facts['chord_notes'], 'note')} of chords left out of what follows, as in training"))
        again = facts["restrike_share"]
        rows.append(("lengths", "in steps  " + some((f"{steps}:{n}" for steps, n in facts["lengths"].items()), 12, "  ")))
        rows.append(("rests", f"{facts['rest_ratio']:.1%} of the steps" + f" from bar {line.first + 1} on" * (line.first > 0)))
        rows.append(("re-strikes", "only one note" if again is None else f"{again:.1%} of the notes repeat the pitch before"))
        rows.append(("off grid", f"{facts['off_grid']} of {facts['notes']} notes lie more than {data.grid_tolerance:g} steps from a step"))
    wrapped = [textwrap.fill(f"{name:10s}  {text}", WIDTH, initial_indent="  ", subsequent_indent=" " * 14) for name, text in rows]
    return "\n".join([facts["file"], *wrapped])


def piano_roll(line: Line, tokenizer: TokenizerConfig, roll_bars: int) -> str:
    """The first bars of a line as a text piano roll, two bars of 4/4 to a row; bars of other lengths have a row each.

    Args:
        roll_bars: how many, from the first bar with a note; 0 for all.
    """
    stop = min(len(line.bars), line.first + roll_bars) if roll_bars else len(line.bars)
    rows, at = [], line.first
    while at < stop:
        bar = line.bars[at]
        until = at + 1 + (bar.is_four_four and at + 1 < stop and line.bars[at + 1].is_four_four)
        meter = "" if bar.is_four_four else f", {bar.numerator}/{bar.denominator}" if bar.denominator else ", incomplete"
        rows.append(f"  bars {at + 1}-{until}" if until > at + 1 else f"  bar {until}{meter}")
        edges = [*range(line.bar_step[at], line.bar_step[until], 2 * tokenizer.steps_per_bar), int(line.bar_step[until])]
        rows += [roll_row(line, a, b, tokenizer) for a, b in itertools.pairwise(edges)]
        at = until
    if stop < len(line.bars):
        rows.append(f"  {plural(len(line.bars) - stop, 'more bar')}: --roll-bars 0 shows all")
    return "\n".join(rows)


def roll_row(line: Line, a: int, b: int, tokenizer: TokenizerConfig) -> str:
    """Steps a to b of a line, at most two bars of 4/4, as a piano roll. A note that rings on from before is not drawn as struck."""
    two_bars = dataclasses.replace(tokenizer, bars=2, hold_token=True)
    here = (line.end > a) & (line.start < b) & (line.pitch > 0)  # pitch 0 cannot be written as a token
    start, end, pitch = np.maximum(line.start[here] - a, 0), line.end[here] - a, line.pitch[here]
    tokens = midi_utils.notes_to_tokens(start, end, pitch, two_bars)[: b - a]
    rows = midi_utils.text_roll(tokens, two_bars).splitlines()
    if len(pitch) and line.start[here][0] < a:
        row = sorted(set(midi_utils.tokens_to_notes(tokens, two_bars)[2].tolist()), reverse=True).index(pitch[0])
        rows[row] = rows[row].replace("|o", "|=", 1)
    return "\n".join(rows)


# ---------------------------------------------------------------- on the guitar


def on_guitar(path: Path, riffs: Sequence[Riff], options: CheckMidi, tokenizer: TokenizerConfig) -> dict[str, Any]:
    """An accepted file on the guitar: what cannot be played, and the tab if it is to be printed. Writes what --output-dir asks for.

    Raises:
        UserError: a file would be overwritten, or fluidsynth fails.
    """
    board = board_for(riffs, tokenizer, options.guitar)
    facts: dict[str, Any] = {"guitar": board.name}
    facts["unplayable"] = [
        f"{note} of riff {number}" if len(riffs) > 1 else note
        for number, riff in enumerate(riffs, 1)
        for note in unplayable(riff, tokenizer, board)
    ]
    if options.tab:
        facts["tab"] = "\n".join(tab_page(riff, tokenizer, board) for riff in riffs)
    if options.output_dir:
        base = Path(options.output_dir) / path.name
        files = {base.with_suffix(ending): content for ending, content in companions(riffs, tokenizer, board, options.sound).items()}
        for file, content in files.items():
            if file.exists() and file.read_bytes() != content:
                raise UserError(f"{file}: exists and is not the same; move it away, or give another --output-dir")
        write_files(files)
    return facts


# ---------------------------------------------------------------- many files

# title, fact, width (negative: flush left) and how to write the fact; what is not known is left blank
COLUMNS: list[tuple[str, str, int, Callable[[Any], str]]] = [
    ("training", "verdict", -12, str),
    ("riffs", "riffs", 5, str),
    ("bars", "bars", 5, str),
    ("bpm", "tempos", 6, lambda tempos: f"{tempos[0]['bpm']:.4g}" + "+" * (len(tempos) > 1)),
    ("meter", "meters", 6, lambda meters: meters[0]["meter"] + "+" * (len(meters) > 1)),
    ("notes", "notes", 6, str),
    ("range", "range", -9, lambda pitches: "-".join(map(pitch_name, pitches))),
    ("rests", "rest_ratio", 5, "{:.0%}".format),
    ("again", "restrike_share", 5, "{:.0%}".format),
    ("off", "off_grid_share", 4, "{:.0%}".format),
]


def table(all_facts: list[dict[str, Any]]) -> str:
    """One aligned line per file, and a total."""
    names = [Path(facts["file"]).name for facts in all_facts]
    sums = total(all_facts)
    wide = min(WIDTH - sum(abs(width) + 1 for _, _, width, _ in COLUMNS), max(map(len, [*names, "1000 files"])))

    def row(name: str, facts: dict[str, Any], cells: Sequence[str] = ()) -> str:
        cells = cells or ["" if facts.get(fact) is None else write(facts[fact]) for _, fact, _, write in COLUMNS]
        texts = [f"{cell:{'<' if width < 0 else '>'}{abs(width)}}" for cell, (_, _, width, _) in zip(cells, COLUMNS, strict=True)]
        return " ".join([f"{name if len(name) <= wide else '~' + name[1 - wide :]:{wide}}", *texts]).rstrip()

    lines = [row("file", {}, [title for title, *_ in COLUMNS])]
    lines += [row(name, facts | {"verdict": facts["reason"] or "accepted"}) for name, facts in zip(names, all_facts, strict=True)]
    lines.append(row(plural(len(names), "file"), sums | {"verdict": f"{sums['accepted']} accepted"}))
    lacking = [(name, facts) for name, facts in zip(names, all_facts, strict=True) if facts.get("unplayable")]
    if lacking:
        name, facts = lacking[0]
        text = f"not on {facts['guitar']}: notes of {plural(len(lacking), 'file')}, such as {name} ({facts['unplayable'][0]})"
        lines.append(textwrap.fill(text, WIDTH))
    lines.append("again: notes that repeat the pitch before; off: notes off the grid; last line: sums and means")
    for reason, number in sums["refused"].items():
        at = next(i for i, facts in enumerate(all_facts) if facts["reason"] == reason)
        lines.append(textwrap.fill(f"refused, {reason}: {number}, such as {names[at]} ({all_facts[at]['detail']})", WIDTH))
    return "\n".join(lines)


def total(all_facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums, and means over the files for which a number is known."""

    def known(fact: str) -> list[Any]:
        return [facts[fact] for facts in all_facts if facts.get(fact) is not None]

    sums = {fact: sum(known(fact)) for fact in ("accepted", "riffs", "bars", "notes", "off_grid")}
    means = {fact: round(float(np.mean(known(fact))), 4) if known(fact) else None for fact in ("rest_ratio", "restrike_share")}
    pitches = [pitch for ends in known("range") for pitch in ends]
    return {
        "files": len(all_facts),
        "refused": dict(Counter(known("reason")).most_common()),
        **(sums | means),
        "range": [min(pitches), max(pitches)] if pitches else None,
        "off_grid_share": round(sums["off_grid"] / sums["notes"], 4) if sums["notes"] else None,
    }


# ---------------------------------------------------------------- the script


def find_files(options: CheckMidi) -> list[Path]:
    """The files to check, each once.

    Raises:
        UserError: a path that does not exist, a folder without music, or no generated file yet.
    """
    if not options.paths:
        path = options.long_file()
        if not path.is_file():
            raise UserError(f"{path}: not there; run `python generate.py` first, or name the MIDI files or folders to check")
        return [path]
    files: list[Path] = []
    for path in map(Path, options.paths):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; name MIDI files or folders to check")
        found = find_music_files(path) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path}: no .mid or .midi file in it or below it; name MIDI files or folders to check")
        files += found
    return list(dict.fromkeys(files))


def main(argv: Sequence[str]) -> int:
    options = parse_args(argv)
    data, tokenizer = options.rules()
    files = find_files(options)
    few = len(files) <= FEW and not any(Path(path).is_dir() for path in options.paths)
    all_facts = []
    for path in files:
        facts, line, riffs = check_file(path, data, tokenizer)
        if riffs:
            facts |= on_guitar(path, riffs, options, tokenizer)
        all_facts.append(facts)
        if not options.json and (few or options.roll_bars >= 0):
            roll = piano_roll(line, tokenizer, 4 if options.roll_bars < 0 else options.roll_bars) if line else ""
            say(f"{report(facts, line, data)}\n{roll}\n", sys.stdout)
        if "tab" in facts:
            say(facts["tab"], sys.stdout)
    if options.json:
        print(json.dumps({"files": all_facts, "total": total(all_facts)}, allow_nan=False))
    elif not few:
        say(table(all_facts), sys.stdout)
    if options.output_dir and any(facts["accepted"] for facts in all_facts) and not options.json:
        print(f"{options.output_dir}: tab and Guitar Pro{', sound' * options.sound.wav} of the accepted files")
    refused = [f"{Path(facts['file']).name} ({facts['reason']})" for facts in all_facts if not facts["accepted"]]
    if refused:
        say(f"check_midi.py: {len(refused)} of {len(files)} refused for training: {some(refused, 3)}", sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    run_script(main)
