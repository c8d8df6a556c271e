"""What we measure on riffs: small pure functions over token arrays. No torch, no files.

Tokens are int arrays [riffs, steps]; a riff with no notes counts where that makes sense and is left out where it does not.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from config import DRUM_CLASSES, HOLD, REST, TRIO_PARTS, TokenizerConfig
from midi_utils import tokens_to_notes

Notes = tuple[np.ndarray, np.ndarray, np.ndarray]  # start, end and pitch of a riff's notes, see tokens_to_notes


def per_riff(tokens: np.ndarray, tokenizer: TokenizerConfig, measure: Callable[[Notes], float], least: int = 1) -> np.ndarray:
    """A measure of each riff's notes. float [riffs], NaN for riffs with fewer than `least` notes"""
    values = np.full(len(tokens), np.nan)
    for i, riff in enumerate(tokens):
        notes = tokens_to_notes(riff, tokenizer)
        if len(notes[2]) >= least:
            values[i] = measure(notes)
    return values


# ---------------------------------------------------------------- what a riff is like


def onset_mask(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Where notes start. bool [riffs, steps]"""
    sounds = (tokens != REST) & (tokens != HOLD)
    if tokenizer.hold_token:
        return sounds
    before = np.concatenate((np.full_like(tokens[:, :1], REST), tokens[:, :-1]), axis=1)
    return sounds & (tokens != before)


def rest_ratio(tokens: np.ndarray) -> np.ndarray:
    """Share of silent steps of each riff, 0..1. float [riffs]"""
    return (tokens == REST).mean(axis=1)


def notes_per_bar(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Note onsets of each riff, per bar. float [riffs]"""
    return onset_mask(tokens, tokenizer).sum(axis=1) / tokenizer.bars


def note_density(tokens: np.ndarray, tokenizer: TokenizerConfig, bpm: np.ndarray | float) -> np.ndarray:
    """Notes per second of each riff at its tempo (quarter notes per minute). float [riffs]"""
    return notes_per_bar(tokens, tokenizer) * np.asarray(bpm) / (4 * 60)


def restrike_share(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Share of each riff's notes, from its second, that repeat the pitch before. float [riffs], NaN below two notes"""
    return per_riff(tokens, tokenizer, lambda notes: float(np.mean(notes[2][1:] == notes[2][:-1])), least=2)


def pitch_range(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Semitones from the lowest to the highest note. float [riffs], NaN for a silent riff"""
    return per_riff(tokens, tokenizer, lambda notes: float(notes[2].max() - notes[2].min()))


def metric_weights(tokenizer: TokenizerConfig) -> np.ndarray:
    """How strong each step of a bar is in the meter: 0 on the bar line, one less for each halving that it takes to reach it.

    In 4/4 on sixteenths: 0 -4 -3 -4 -2 -4 -3 -4 -1 -4 -3 -4 -2 -4 -3 -4. int64 [steps]
    """
    levels = [tokenizer.steps_per_bar, tokenizer.steps_per_bar // 2, tokenizer.steps_per_beat]
    while levels[-1] % 2 == 0:
        levels.append(levels[-1] // 2)
    if levels[-1] > 1:
        levels.append(1)  # triplets and the like
    place = np.arange(tokenizer.steps)
    return -np.array([[step % level != 0 for level in levels] for step in place]).sum(axis=1)


def syncopation(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """How much the notes pull against the meter, per bar. float [riffs], 0 or more

    A note that is held, or followed by silence, over a stronger place than its own adds how much stronger that place is.
    Source: Longuet-Higgins & Lee 1984, as in Fitch & Rosenfeld 2007; the weights are those of metric_weights.
    """
    onsets, weights = onset_mask(tokens, tokenizer), metric_weights(tokenizer).astype(float)
    strongest = np.full(len(tokens), -np.inf)  # of the steps behind this one, up to the next onset
    total = np.zeros(len(tokens))
    for step in reversed(range(tokens.shape[1])):
        total += np.where(onsets[:, step], np.maximum(strongest - weights[step], 0), 0)
        strongest = np.where(onsets[:, step], -np.inf, np.maximum(strongest, weights[step]))
    return total / tokenizer.bars


def pitch_class_entropy(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Entropy of the pitch classes of a riff's notes, in bits, 0 to log2(12). float [riffs], NaN for a silent riff"""

    return per_riff(tokens, tokenizer, lambda notes: class_entropy(notes[2]))


def class_entropy(pitch: np.ndarray) -> float:
    """Entropy of the pitch classes of some notes, in bits, 0 to log2(12). pitch: int [notes], one at least"""
    shares = np.bincount(pitch % 12) / len(pitch)
    shares = shares[shares > 0]
    return float(abs((shares * np.log2(shares)).sum()))  # abs: the entropy of one class is 0, not -0


def ngram_repetition(tokens: np.ndarray, tokenizer: TokenizerConfig, n: int = 4) -> np.ndarray:
    """1 - unique / all n-grams of a riff's pitches: how much of its melody has been heard in it before.

    Returns:
        float [riffs], 0..1, NaN below n notes.
    """

    return per_riff(tokens, tokenizer, lambda notes: repeated_grams(notes[2], n), least=n)


def repeated_grams(sequence: np.ndarray, n: int = 4) -> float:
    """1 - unique / all n-grams of a sequence, 0..1; 0 where it has none. sequence: int [length]"""
    if len(sequence) < n:
        return 0.0
    grams = np.lib.stride_tricks.sliding_window_view(sequence, n)
    return 1 - len(np.unique(grams, axis=0)) / len(grams)


def groove_consistency(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """1 - mean Hamming distance of neighbouring bars' onsets (Wu & Yang 2020, arXiv:2008.01307, there named grooving similarity).

    Returns:
        float [riffs], 0..1, NaN for riffs of one bar.
    """
    if tokenizer.bars < 2:
        return np.full(len(tokens), np.nan)
    onsets = onset_mask(tokens, tokenizer).reshape(len(tokens), tokenizer.bars, tokenizer.steps_per_bar)
    return 1 - (onsets[:, 1:] != onsets[:, :-1]).mean(axis=(1, 2))


def ends_at_home(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """1 where a riff's last note has the pitch class of its first, else 0. float [riffs], NaN below two notes"""
    return per_riff(tokens, tokenizer, lambda notes: float((notes[2][-1] - notes[2][0]) % 12 == 0), least=2)


_MAJOR, _HARMONIC_MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)
# Pitch classes of 24 keys: a natural minor key has the notes of its relative major, so minor means harmonic minor here.
_SCALES = np.array([[(pitch - root) % 12 in scale for pitch in range(12)] for scale in (_MAJOR, _HARMONIC_MINOR) for root in range(12)])


def scale_consistency(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Largest share of a riff's notes that lie in one of 24 keys. float [riffs], 0..1, NaN for a silent riff"""
    return per_riff(tokens, tokenizer, lambda notes: float(_SCALES[:, notes[2] % 12].mean(axis=1).max()))


def gaussian_overlap(mean_1: np.ndarray, std_1: np.ndarray, mean_2: np.ndarray, std_2: np.ndarray) -> np.ndarray:
    """Overlapping area of two normal densities: the integral of the smaller one.

    Args:
        mean_1, std_1, mean_2, std_2: float arrays of one shape; stds above 0.

    Returns:
        the same shape, 0..1.
    """
    from scipy.special import ndtr  # not above: it takes a quarter of a second, and most that import this file do not need it

    narrow, wide = np.minimum(std_1, std_2), np.maximum(std_1, std_2)
    apart = np.where(std_1 <= std_2, mean_2 - mean_1, mean_1 - mean_2)  # the narrow one stands at 0, the wide one here
    a = 1 / narrow**2 - 1 / wide**2
    equal = a * narrow**2 < 1e-9  # one crossing, half way
    b, c = 2 * apart / wide**2, apart**2 / wide**2 + 2 * np.log(wide / narrow)
    root = np.sqrt(b**2 + 4 * np.where(equal, 1, a) * c)
    low, high = ((-b + sign * root) / (2 * np.where(equal, 1, a)) for sign in (-1, 1))  # between them the narrow one is larger
    inside_wide = ndtr((high - apart) / wide) - ndtr((low - apart) / wide)
    inside_narrow = ndtr(high / narrow) - ndtr(low / narrow)
    return np.where(equal, 2 * ndtr(-np.abs(apart) / (narrow + wide)), inside_wide + 1 - inside_narrow)


def framewise_overlap(tokens: np.ndarray, tokenizer: TokenizerConfig, frame: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """How much neighbouring frames of a riff resemble each other in pitch and in duration (Mittal et al. 2021, section 4.3).

    Each frame is a normal density of its notes' pitches, and one of their lengths in steps (std + 1e-6); frames without notes
    are left out. The overlap is computed from its definition; the published code returns 1 whenever the variances are equal.

    Args:
        frame, hop: steps; half a bar each inside a two-bar riff.

    Returns:
        mean overlap of neighbouring frames in pitch, and in duration: float [riffs], 0..1, NaN without two frames with notes.
    """
    starts = range(0, tokenizer.steps - frame + 1, hop)
    results = np.full((2, len(tokens)), np.nan)
    for i, riff in enumerate(tokens):
        start, end, pitch = tokens_to_notes(riff, tokenizer)
        frames = [(start >= first) & (start < first + frame) for first in starts]
        for row, values in enumerate((pitch, end - start)):
            shapes = [(values[inside].mean(), values[inside].std() + 1e-6) if inside.any() else None for inside in frames]
            pairs = [(*a, *b) for a, b in itertools.pairwise(shapes) if a is not None and b is not None]
            if pairs:
                results[row, i] = gaussian_overlap(*np.array(pairs).T).mean()
    return results[0], results[1]


def closeness(ours: np.ndarray | float, theirs: np.ndarray | float) -> np.ndarray:
    """How near a figure is to the real riffs' one: 1 - |ours - theirs| / theirs, held in 0..1 (Mittal et al. 2021, eq. 5 and 6).

    Of mean overlaps this is the framewise consistency, of their variances the framewise variance. NaN where theirs is 0 or unknown.
    """
    theirs = np.where(np.asarray(theirs) > 0, theirs, np.nan)
    return np.clip(1 - np.abs(ours - theirs) / theirs, 0, 1)


# ---------------------------------------------------------------- sets of riffs


def first_pitch(tokens: np.ndarray) -> np.ndarray:
    """The pitch of the first note of each riff; of silent ones whatever token they begin with. int [riffs]"""
    sounds = (tokens != REST) & (tokens != HOLD)
    return tokens[np.arange(len(tokens)), sounds.argmax(axis=1)]


def relative_tokens(tokens: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
    """Tokens with pitches counted from the riff's first note (as 64), so that transposed riffs are equal. int [riffs, steps]

    Args:
        first: int [riffs], pitches to count from instead: of another line that sounds with this one.
    """
    sounds = (tokens != REST) & (tokens != HOLD)
    first = first_pitch(tokens) if first is None else first
    return np.where(sounds, tokens - first[:, None] + 64 + 256, tokens)  # + 256 keeps pitches apart from rest and hold


def distinct_share(tokens: np.ndarray) -> float:
    """Share of riffs that differ from all earlier ones, 0..1."""
    return len(np.unique(tokens, axis=0)) / len(tokens)


def accuracies(predicted: np.ndarray, target: np.ndarray, tokenizer: TokenizerConfig) -> dict[str, float]:
    """How much of some riffs a model returns.

    Args:
        predicted, target: int [riffs, steps]

    Returns:
        accuracy: share of steps whose token is right; onset_accuracy: the same over the steps on which the target has a note
        onset (holds make plain accuracy flattering); exact: share of riffs that are right in every step.
    """
    right = predicted == target
    onsets = onset_mask(target, tokenizer)
    return {
        "accuracy": float(right.mean()),
        "onset_accuracy": float(right[onsets].mean()) if onsets.any() else float("nan"),
        "exact": float(right.all(axis=1).mean()),
    }


def step_accuracies(predicted: np.ndarray, target: np.ndarray, tokenizer: TokenizerConfig) -> dict[str, float]:
    """`accuracies` of music of any representation.

    A step of drums or groove is right if all classes are; onset_accuracy is over the steps on which something is struck. Of a trio all
    is the mean of its parts, which are there by name as well. Of groove velocity_error and offset_error are the root mean square
    errors, in 0..1 and half steps, of the hits that are there in both.

    Args:
        predicted, target: [windows, T] and more, see family.windows.
    """
    kind = tokenizer.representation
    if kind == "mono":
        return accuracies(predicted, target, tokenizer)
    if kind == "trio":
        line = dataclasses.replace(tokenizer, representation="mono")
        parts = [accuracies(predicted[..., i], target[..., i], line) for i in range(2)] + [
            _drum_accuracies(predicted[..., 2], target[..., 2])
        ]
        mean = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
        mean["exact"] = float((predicted == target).all(axis=(1, 2)).mean())
        named = {f"{name}_{key}": part[key] for name, part in zip(TRIO_PARTS, parts, strict=True) for key in ("accuracy", "onset_accuracy")}
        return mean | named
    if kind == "drums":
        return _drum_accuracies(predicted, target)
    classes = len(DRUM_CLASSES)
    hits, real = (np.split(some, [classes, 2 * classes], axis=-1) for some in (predicted, target))
    bits = 2 ** np.arange(classes)
    both = (hits[0] > 0.5) & (real[0] > 0.5)
    errors = [float(np.sqrt(np.mean((hits[i][both] - real[i][both]) ** 2))) if both.any() else float("nan") for i in (1, 2)]
    found = _drum_accuracies((hits[0] > 0.5) @ bits, (real[0] > 0.5) @ bits)
    return found | {"velocity_error": errors[0], "offset_error": errors[1]}


def _drum_accuracies(predicted: np.ndarray, target: np.ndarray) -> dict[str, float]:
    right, struck = predicted == target, target != 0
    onsets = float(right[struck].mean()) if struck.any() else float("nan")
    return {"accuracy": float(right.mean()), "onset_accuracy": onsets, "exact": float(right.all(axis=1).mean())}


def active_units(mu: np.ndarray, threshold: float = 0.01) -> int:
    """Latent dimensions that say something: those whose posterior mean varies over the data (Burda et al. 2015, arXiv:1509.00519).

    Args:
        mu: float [riffs, Z]
        threshold: of the variance.
    """
    return int((mu.var(axis=0, ddof=1) > threshold).sum()) if len(mu) > 1 else 0
