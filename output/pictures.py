"""Music drawn on matplotlib axes: riffs and lines as piano rolls, tab, drums as a grid, windows of any representation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from config import DRUM_CLASSES, TRIO_PARTS, TokenizerConfig
from family.windows import to_pattern
from guitar.fretboard import Fretboard, finger
from midi_utils import pitch_class_name, pitch_name, tokens_to_notes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ONSET, HELD, LINE = "#1f3b57", "#8fb3d1", "#b9b9b9"
NAME_HEIGHT = 7.0  # points that the name of a pitch takes
MOST_BEATS_SHOWN = 8  # bars; of longer windows bar lines alone are drawn


def _dress(axes: Axes, tokenizer: TokenizerConfig, title: str) -> None:
    """Bar lines and beats behind the music, a title above it, and nothing else around it."""
    axes.set_xticks([])
    axes.tick_params(length=0)
    beats = tokenizer.bars <= MOST_BEATS_SHOWN
    for step in range(0, tokenizer.steps, tokenizer.steps_per_beat if beats else tokenizer.steps_per_bar):
        at_bar = step % tokenizer.steps_per_bar == 0
        axes.axvline(step, color="#444444" if at_bar else LINE, linewidth=0.9 if at_bar and beats else 0.4, zorder=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(title.encode("utf-8", "replace").decode(), fontsize=6.5, loc="left", pad=2, parse_math=False)


def draw_riff(axes: Axes, tokens: np.ndarray, tokenizer: TokenizerConfig, title: str = "") -> None:
    """One riff as a piano roll: onsets dark, held steps light, bar lines and beats, pitch names at the side. tokens: int [T]"""
    start, end, pitch = tokens_to_notes(tokens, tokenizer)
    for first, last, value in zip(start, end, pitch, strict=True):
        axes.broken_barh([(first, last - first - 0.08)], (value - 0.42, 0.84), facecolors=HELD)
        axes.broken_barh([(first, min(1, last - first) - 0.08)], (value - 0.42, 0.84), facecolors=ONSET)
    low, high = (int(pitch.min()), int(pitch.max())) if len(pitch) else (40, 52)
    middle = (low + high) / 2
    half = max(7.0, (high - low) / 2 + 1.5)  # at least an octave, so that a small interval does not look like a leap
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlim(0, tokenizer.steps)
    height = 72 * axes.get_figure().get_figheight() * axes.get_position().height  # points
    apart, used = 2 * half / max(1, height / NAME_HEIGHT), list[int]()
    for value in sorted(set(pitch.tolist())):  # names of neighbouring semitones would overlap
        if not used or value - used[-1] > apart:
            used.append(value)
    axes.set_yticks(used, [pitch_name(value) for value in used], fontsize=5)
    if not len(pitch):
        axes.text(tokenizer.steps / 2, middle, "silent", ha="center", va="center", color=LINE)
    _dress(axes, tokenizer, title)


def draw_tab(axes: Axes, tokens: np.ndarray, tokenizer: TokenizerConfig, board: Fretboard) -> None:
    """One riff as tab: a line for each string, the thin one on top, a fret's number at each onset. tokens: int [T]"""
    start, end, pitch = tokens_to_notes(tokens, tokenizer)
    fingering = finger(board, start, end, pitch)
    for string in range(len(board.strings)):
        axes.axhline(string, color=LINE, linewidth=0.5, zorder=0)
    for bar in range(tokenizer.bars + 1):
        axes.axvline(bar * tokenizer.steps_per_bar, color="#444444", linewidth=0.9, zorder=0)
    for at, string, fret in zip(start, fingering.string, fingering.fret, strict=True):
        number, place = (str(fret), string) if string >= 0 else ("?", 0)
        box = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none"}
        axes.text(at + 0.45, place, number, fontsize=6, ha="center", va="center", color=ONSET, bbox=box)
    axes.set_xlim(0, tokenizer.steps)
    axes.set_ylim(-0.8, len(board.strings) - 0.2)
    names = [pitch_class_name(pitch) for pitch in board.strings]
    axes.set_yticks(range(len(names)), names, fontsize=5)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def draw_drums(axes: Axes, steps: np.ndarray, tokenizer: TokenizerConfig, title: str = "") -> None:
    """Drums as a grid, the kick lowest: darker is louder, and hits of grooves stand as early or late as played. steps: [T] or [T, 27]"""
    pattern = to_pattern(steps, tokenizer)
    for at, number in zip(*np.nonzero(pattern.hits), strict=True):
        late, loud = float(pattern.offset[at, number]) / 2, float(pattern.velocity[at, number])
        axes.broken_barh([(at + late, 0.6)], (number - 0.4, 0.8), facecolors=ONSET, alpha=0.25 + 0.75 * min(1.0, loud))
    axes.set_xlim(-0.5, tokenizer.steps)
    axes.set_ylim(-0.7, len(DRUM_CLASSES) - 0.3)
    axes.set_yticks(range(len(DRUM_CLASSES)), DRUM_CLASSES, fontsize=4)
    _dress(axes, tokenizer, title)


def parts_of(tokenizer: TokenizerConfig) -> int:
    """Axes that a window takes, one below the other."""
    return len(TRIO_PARTS) if tokenizer.representation == "trio" else 1


def draw_window(axes: Sequence[Axes], steps: np.ndarray, tokenizer: TokenizerConfig, title: str = "") -> None:
    """A window of any representation. axes: parts_of it; steps: see family.windows"""
    line = dataclasses.replace(tokenizer, representation="mono", given="all")
    if tokenizer.representation == "mono":
        draw_riff(axes[0], steps.astype(np.int64), line, title)
    elif tokenizer.representation in ("drums", "groove"):
        draw_drums(axes[0], steps, tokenizer, title)
    else:
        drums = dataclasses.replace(tokenizer, representation="drums")
        for i, name in enumerate(TRIO_PARTS):
            heading = f"{title}: {name}" if title and i == 0 else name
            draw = draw_drums if name == "drums" else draw_riff
            draw(axes[i], steps[:, i].astype(np.int64), drums if name == "drums" else line, heading)
