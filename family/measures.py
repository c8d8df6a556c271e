"""What is measured on windows of any representation: how much of one stands in a training window too, and how drums are played."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from config import DRUM_CLASSES, TokenizerConfig
from family.drums import to_tokens
from measures.metrics import first_pitch, onset_mask
from measures.novelty import LookUp

KICK, SNARE = DRUM_CLASSES.index("kick"), DRUM_CLASSES.index("snare")
CHUNK = 4096  # training windows looked at a time


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
        self.tokenizer, self.count = tokenizer, len(tokens)
        parts = [onsets_of(tokens[at : at + CHUNK], tokenizer) for at in range(0, len(tokens), CHUNK)]
        # step by step, so that the few steps on which something begins are rows next to each other
        self._codes = [np.concatenate([part[i] for part in parts], axis=0).T.copy() for i in range(len(parts[0]))] if parts else []
        self._sizes = sum((_begins(codes).sum(axis=0, dtype=np.int64) for codes in self._codes), np.zeros(self.count, dtype=np.int64))

    def nearest(self, steps: np.ndarray) -> NearestWindow:
        """steps: [windows, T] and more"""
        index, copied = np.zeros(len(steps), dtype=np.int64), np.full(len(steps), np.nan)
        if not self.count:
            return NearestWindow(index, copied)
        ours = onsets_of(steps, self.tokenizer)
        for i in range(len(steps)):
            both, size = np.zeros(self.count, dtype=np.int64), 0
            for theirs, all_codes in zip(self._codes, ours, strict=True):
                begins = np.flatnonzero(all_codes[i])
                codes = all_codes[i][begins, None]
                both += _shared(theirs[begins], codes).sum(axis=0, dtype=np.int64)
                size += int(_begins(codes).sum())
            either = size + self._sizes - both
            share = np.where(either > 0, both / np.maximum(either, 1), 1.0)
            index[i] = share.argmax()
            copied[i] = share[index[i]]
        return NearestWindow(index, copied)


def onsets_of(steps: np.ndarray, tokenizer: TokenizerConfig) -> list[np.ndarray]:
    """What begins on each step, for each part: of lines the interval from the first note, so that a copy in another key is a copy, as a
    negative number; of drums what is struck, as a drum token; 0 where nothing begins. int16 [windows, T] each"""
    kind = tokenizer.representation
    if kind == "groove":
        return [to_tokens(steps[..., : len(DRUM_CLASSES)] > 0.5).astype(np.int16)]
    if kind == "drums":
        return [steps.astype(np.int16)]
    line = dataclasses.replace(tokenizer, representation="mono", given="all")
    if kind == "mono":
        tokens = steps.astype(np.int64)
        return [_intervals(tokens, first_pitch(tokens), line)]
    first = first_pitch(steps[..., 0].astype(np.int64))
    lines = [_intervals(steps[..., i].astype(np.int64), first, line) for i in (0, 1)]
    return [*lines, steps[..., 2].astype(np.int16)]


def _intervals(tokens: np.ndarray, first: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    return np.where(onset_mask(tokens, tokenizer), tokens - first[:, None] - 256, 0).astype(np.int16)  # -256 +- 127


def _begins(codes: np.ndarray) -> np.ndarray:
    """How many notes or hits begin: one of a line, of drums each that is struck."""
    return np.where(codes < 0, 1, np.bitwise_count(codes))


def _shared(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """How many of them are the same."""
    return np.where(ours < 0, theirs == ours, np.bitwise_count(theirs & ours))


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
