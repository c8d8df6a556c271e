"""What is measured on windows of any representation: how much of one stands in a training window too, and how drums are played."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from config import DRUM_CLASSES, HOLD, REST, TokenizerConfig
from family.drums import from_tokens
from measures.metrics import first_pitch
from measures.novelty import LookUp

KICK, SNARE = DRUM_CLASSES.index("kick"), DRUM_CLASSES.index("snare")
CHUNK = 4096  # training windows compared at a time


# ---------------------------------------------------------------- copies


@dataclass(frozen=True)
class NearestWindow(LookUp):
    """The training window that shares most with each of some windows."""

    index: np.ndarray  # int64 [windows]
    copied: np.ndarray  # float [windows], 0..1: notes and hits in both, of those in either; NaN where nothing is known


class KnownWindows:
    """Windows to be original against.

    Args:
        tokens: [windows, T] and more, steps of the tokenizer's representation (see family.windows).
    """

    def __init__(self, tokens: np.ndarray, tokenizer: TokenizerConfig) -> None:
        self.tokens, self.tokenizer = tokens, tokenizer

    def nearest(self, steps: np.ndarray) -> NearestWindow:
        """steps: [windows, T] and more"""
        ours = onsets_of(steps, self.tokenizer).astype(np.float32)
        size = ours.sum(axis=1)
        index, copied = np.zeros(len(steps), dtype=np.int64), np.full(len(steps), -1.0)
        for at in range(0, len(self.tokens), CHUNK):
            theirs = onsets_of(self.tokens[at : at + CHUNK], self.tokenizer).astype(np.float32)
            both = ours @ theirs.T
            either = size[:, None] + theirs.sum(axis=1) - both
            share = np.where(either > 0, both / np.maximum(either, 1), 1.0)
            best = share.argmax(axis=1)
            here = share[np.arange(len(steps)), best]
            index, copied = np.where(here > copied, best + at, index), np.maximum(here, copied)
        return NearestWindow(index, copied if len(self.tokens) else np.full(len(steps), np.nan))


def onsets_of(steps: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Notes and hits as places in a row of yes and no: what sounds anew on which step. Lines are taken from their first note, so that a
    copy in another key is a copy. bool [windows, places]"""
    kind = tokenizer.representation
    if kind == "groove":
        return (steps[..., : len(DRUM_CLASSES)] > 0.5).reshape(len(steps), -1)
    if kind == "drums":
        return from_tokens(steps).reshape(len(steps), -1)
    if kind == "trio":
        first = first_pitch(steps[..., 0].astype(np.int64))
        lines = [_line_onsets(steps[..., i].astype(np.int64), first, 63) for i in (0, 1)]  # a bass lies far below
        return np.concatenate([*lines, from_tokens(steps[..., 2]).reshape(len(steps), -1)], axis=1)
    tokens = steps.astype(np.int64)
    return _line_onsets(tokens, first_pitch(tokens))


def _line_onsets(tokens: np.ndarray, first: np.ndarray, most: int = 36) -> np.ndarray:
    """most: semitones from the first note; notes further away count as those."""
    sounds = (tokens != REST) & (tokens != HOLD)
    interval = np.clip(tokens - first[:, None], -most, most) + most
    return (sounds[..., None] & (interval[..., None] == np.arange(2 * most + 1))).reshape(len(tokens), -1)


# ---------------------------------------------------------------- drums


def backbeat(hits: np.ndarray, tokenizer: TokenizerConfig) -> dict[str, float]:
    """How much of a backbeat some drums hold: kick on beats 1 and 3, snare on 2 and 4, beside what chance would give.

    Args:
        hits: bool [windows, T, 9]

    Returns:
        kick, snare: share of the expected steps that are struck; kick_elsewhere, snare_elsewhere: of all other steps, which is what a
        drum that knew nothing of the beat would have everywhere. NaN without windows.
    """
    beat = np.arange(hits.shape[1]) / tokenizer.steps_per_beat
    on_beat = beat == np.floor(beat)
    places = {"kick": (KICK, on_beat & (beat % 2 == 0)), "snare": (SNARE, on_beat & (beat % 2 == 1))}
    found = {}
    for name, (number, expected) in places.items():
        found[name] = float(hits[:, expected, number].mean()) if len(hits) else math.nan
        found[f"{name}_elsewhere"] = float(hits[:, ~expected, number].mean()) if len(hits) else math.nan
    return found


def playing(groove: np.ndarray) -> dict[str, float]:
    """How drums are played: spread of their timing and loudness. groove: float [windows, T, 27]

    Returns:
        offset_std: standard deviation of the hits' offsets in half steps; offset_mean; velocity_std and velocity_mean, 0..1.
        NaN without hits.
    """
    hits, velocity, offset = np.split(groove, 3, axis=-1)
    struck = hits > 0.5
    if not struck.any():
        return dict.fromkeys(("offset_std", "offset_mean", "velocity_std", "velocity_mean"), math.nan)
    late, loud = offset[struck], velocity[struck]
    values = {"offset_std": late.std(), "offset_mean": late.mean(), "velocity_std": loud.std(), "velocity_mean": loud.mean()}
    return {name: float(value) for name, value in values.items()}
