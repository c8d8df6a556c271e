"""Riffs as ASCII tab: a column for each step, the thin string on top, note lengths below. No torch.

Run `python -m guitar.tab FILE.mid [TUNING]` to see the tab of a file's riffs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from config import DataConfig, GuitarConfig, TokenizerConfig, UserError, run_script
from dataset import read_file_riffs
from guitar.fretboard import Fretboard, finger, fretboard
from midi_utils import MidiError, Riff, pitch_name, tokens_to_notes

_LENGTHS = {16: "w", 12: "h.", 8: "h", 6: "q.", 4: "q", 3: "e.", 2: "e", 1: "s"}  # in sixteenths


def length_name(sixteenths: int) -> str:
    """A note's length in letters: w h q e s for a whole note to a sixteenth, a dot for half as much again; ties are written with +."""
    parts = []
    while sixteenths:
        longest = next(length for length in _LENGTHS if length <= sixteenths)
        parts.append(_LENGTHS[longest])
        sixteenths -= longest
    return "+".join(parts)


def unplayable(riff: Riff, tokenizer: TokenizerConfig, board: Fretboard) -> list[str]:
    """The notes of a riff that the guitar does not have, in words: `C2 in bar 1, beat 3.5`."""
    start, _, pitch = tokens_to_notes(riff.tokens, tokenizer)
    return [
        f"{pitch_name(int(value))} in bar {at // tokenizer.steps_per_bar + 1}, "
        f"beat {at % tokenizer.steps_per_bar / tokenizer.steps_per_beat + 1:g}"
        for at, value in zip(start.tolist(), pitch.tolist(), strict=True)
        if not board.places(value)
    ]


def riff_tab(riff: Riff, tokenizer: TokenizerConfig, board: Fretboard) -> str:
    """A riff as text. With sixteenths, two bars to a row fit 80 columns; one bar, where frets from 10 on make the columns wider.

    A number is a fret, counted from the capo; ? is a note that this guitar does not have. Rests are not drawn: the letters below say how
    long each note sounds.
    """
    start, end, pitch = tokens_to_notes(riff.tokens, tokenizer)
    fingering = finger(board, start, end, pitch)
    column = 3 if len(pitch) and fingering.fret.max() >= 10 else 2  # characters of a step
    bars_per_row = 4 - column
    strings = [["-"] * (column * tokenizer.steps) for _ in board.strings]
    lengths, counts = [" "] * (column * tokenizer.steps), [" "] * (column * tokenizer.steps)
    for i, (first, last) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        playable = fingering.string[i] >= 0
        text = str(fingering.fret[i]) if playable else "?"
        strings[fingering.string[i] if playable else 0][column * first : column * first + len(text)] = list(text)
        if tokenizer.steps_per_beat == 4:
            name = length_name(last - first)[: column * (last - first)]
            lengths[column * first : column * first + len(name)] = list(name)
    for step in range(0, tokenizer.steps, tokenizer.steps_per_beat):
        counts[column * step] = str(step % tokenizer.steps_per_bar // tokenizer.steps_per_beat + 1)
        if tokenizer.steps_per_beat % 2 == 0:
            counts[column * (step + tokenizer.steps_per_beat // 2)] = "&"

    names = [name.rstrip("-0123456789") for name in board.notes.split()]
    wide = max(map(len, names))
    bar = column * tokenizer.steps_per_bar
    rows = []
    for first in range(0, tokenizer.bars, bars_per_row):
        cuts = [slice(at * bar, (at + 1) * bar) for at in range(first, min(first + bars_per_row, tokenizer.bars))]
        rows.append(" " * (wide + 1) + " ".join("".join(counts[cut]) for cut in cuts))
        rows += [
            f"{name:{wide}s}|" + "|".join("".join(line[cut]) for cut in cuts) + "|"
            for name, line in zip(reversed(names), reversed(strings), strict=True)
        ]
        if tokenizer.steps_per_beat == 4:
            rows.append(" " * (wide + 1) + " ".join("".join(lengths[cut]) for cut in cuts))
        rows.append("")
    return "\n".join(line.rstrip() for line in rows)


def tab_page(riff: Riff, tokenizer: TokenizerConfig, board: Fretboard) -> str:
    """A riff's tab with all that is needed to play it: name, tuning, capo, tempo and meter above, what cannot be played below."""
    head = f"{riff.name or 'riff'}\ntuning {board.name}   {round(riff.bpm, 2):g} bpm   4/4\n"
    if tokenizer.steps_per_beat == 4:
        head += "w h q e s: whole note to sixteenth, . half as long again\n"
    missing = unplayable(riff, tokenizer, board)
    foot = f"not on this guitar: {', '.join(missing)}\n" if missing else ""
    return f"{head}\n{riff_tab(riff, tokenizer, board)}{foot}"


def board_for(riffs: Sequence[Riff], tokenizer: TokenizerConfig, guitar: GuitarConfig) -> Fretboard:
    """The guitar to play riffs on: see fretboard.

    Raises:
        UserError: no such tuning.
    """
    pitch = np.concatenate([tokens_to_notes(riff.tokens, tokenizer)[2] for riff in riffs])
    return fretboard(guitar, *(int(pitch.min()), int(pitch.max())) if len(pitch) else (40, 64))


def main(argv: Sequence[str]) -> int:
    if not 1 <= len(argv) <= 2:
        raise UserError("give a MIDI file, and a tuning if you like: python -m guitar.tab midi_riffs/harbour_verse1a.mid DADGBE")
    tokenizer = TokenizerConfig()
    if not Path(argv[0]).is_file():
        raise UserError(f"{argv[0]}: no such file; give a MIDI file")
    try:
        riffs, _ = read_file_riffs(Path(argv[0]), DataConfig(max_bars=0), tokenizer)
    except MidiError as error:
        raise UserError(f"{argv[0]}: {error}") from None
    board = board_for(riffs, tokenizer, GuitarConfig(*argv[1:]))
    print("\n".join(tab_page(riff, tokenizer, board) for riff in riffs))
    return 0


if __name__ == "__main__":
    run_script(main)
