"""A verse from one idea: its variations, a part that contrasts, joins that a hand can play, one key."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from config import HOLD, REST, SampleConfig, TokenizerConfig, UserError
from diffusion import LatentDiffusion
from measures.novelty import TrainingRiffs
from models import MusicVAE
from sampling import MAX_ATTEMPTS
from steering.drawing import Wish, draw
from steering.from_riff import join_demands, mean_latent
from steering.keys import estimate_key
from steering.rules import Demands, riff_rules

CONTRASTS = 32  # riffs drawn, of which the one that contrasts most is taken
ARRANGED = 7  # purpose of random numbers
MAX_BARS = 1024
FREE_FORM = "free"  # instead of letters: new riffs in a row

TooClose = Callable[[np.ndarray], np.ndarray]  # riffs, int64 [N, T] -> bool [N], which copy too much


@dataclass(frozen=True)
class Part:
    """One riff of an arrangement."""

    tokens: np.ndarray  # int64 [T]
    letter: str  # of its section
    made: str  # how, in words


def parse_form(form: str, bars: int, riff_bars: int) -> tuple[list[str], int]:
    """The section of each riff of a form, and how many riffs a section has. `AABA`, 16 bars, riffs of 2 bars -> A A A A B B A A, 2

    Raises:
        UserError: no form, or the bars do not divide into its sections and riffs.
    """
    letters = "".join(form.split()).upper()
    if not letters.isalpha() or not letters.isascii() or len(letters) > 64:
        raise UserError(f"--form {form[:40]}: give the letters of its sections, such as AABA, or {FREE_FORM}")
    unit = len(letters) * riff_bars
    if bars > MAX_BARS:
        raise UserError(f"--bars {bars}: give {MAX_BARS} or fewer")
    if bars < 1 or bars % unit:
        raise UserError(f"--bars {bars}: {letters} of {riff_bars}-bar riffs takes {unit}, {2 * unit}, {3 * unit}, ... bars")
    return [letter for letter in letters for _ in range(bars // unit)], bars // unit


def arrange(
    vae: MusicVAE,
    diffusion: LatentDiffusion | None,
    idea: np.ndarray,
    sections: Sequence[str],
    riffs_each: int,
    seed: int,
    sample: SampleConfig,
    wish: Wish,
    too_close: TooClose,
) -> list[Part]:
    """Write a verse.

    The first riff is the idea, and the next ones of its section are variations of the riff before. A section that comes again is
    played again, riff by riff, each a variation of what stood there. The first riff of another section is a new one: of many, the one
    furthest from what was played so far. None is held over a bar line, no join leaps by more than from_riff.JOIN, and the last one ends on
    the tonic (of the wish's key, or of the idea's), if it can.

    Args:
        idea: int [T]
        sections: of each riff, see parse_form.
        riffs_each: of a section.
        wish: its strength is that of the variations; its rules, and with them its key, hold for all but the idea.
        too_close: what may not be written; the idea is not asked about.

    Raises:
        UserError: no riff meets the demands, or all copy too much.
    """
    tokenizer = vae.tokenizer
    demands, tonic = wish.rules.demands, (wish.key or estimate_key(idea, tokenizer)).tonic
    home = frozenset(pitch for pitch in range(1, HOLD) if pitch % 12 == tonic)
    parts = [Part(np.asarray(idea, dtype=np.int64), sections[0], "the idea")]
    latest: dict[tuple[str, int], int] = {(sections[0], 0): 0}  # the riff last played at a place of a section
    place = 0
    for number, letter in enumerate(sections[1:], start=1):
        place = place + 1 if sections[number - 1] == letter and place + 1 < riffs_each else 0
        here = join_demands(demands, parts[-1].tokens, tokenizer)
        if number == len(sections) - 1:
            here = _ending(tokenizer, here, home)
        rules = riff_rules(tokenizer, here)
        model = latest.get((letter, place), number - 1 if place else None)
        if model is not None:
            asked = dataclasses.replace(wish, rules=rules, start=mean_latent(vae, parts[model].tokens), key=None)
            made, count = f"variation of riff {model + 1}", 1
        else:
            asked = dataclasses.replace(wish, rules=rules, start=None, strength=1.0)
            made, count = "contrast", CONTRASTS
        state = np.random.SeedSequence([seed, ARRANGED, number]).generate_state(count, np.uint64)
        tokens = _write(vae, diffusion, [int(s) for s in state], sample, asked, [part.tokens for part in parts], too_close)
        parts.append(Part(tokens, letter, made))
        latest[letter, place] = number
    return parts


def _ending(tokenizer: TokenizerConfig, demands: Demands, home: frozenset[int]) -> Demands:
    """The same, ending on the tonic where that can be had."""
    try:
        closing = dataclasses.replace(demands, last=demands.last or home)
        riff_rules(tokenizer, closing)
        return closing
    except UserError:
        return demands


def _write(
    vae: MusicVAE,
    diffusion: LatentDiffusion | None,
    seeds: Sequence[int],
    sample: SampleConfig,
    wish: Wish,
    played: Sequence[np.ndarray],
    too_close: TooClose,
) -> np.ndarray:
    """One riff, [T]: of those drawn the furthest from what was played. What copies too much never; a repeat if nothing else comes."""
    before = TrainingRiffs(np.stack(played), [""] * len(played), vae.tokenizer)
    repeat = None  # what is allowed, but silent or heard before
    for attempt in range(MAX_ATTEMPTS):
        found = draw(vae, diffusion, seeds, sample, wish, attempt).tokens
        far = before.distances(found)[1]
        allowed = ~too_close(found)
        good = allowed & (found != REST).any(axis=1) & (far > 0)
        if good.any():
            return found[np.argmax(np.where(good, far, -1.0))]
        if repeat is None and allowed.any():
            repeat = found[np.argmax(allowed)]
        if wish.start is not None:  # too little room at this strength: a little more
            wish = dataclasses.replace(wish, strength=min(1.0, wish.strength + 0.05))
    if repeat is None:
        raise UserError(f"arrange: {MAX_ATTEMPTS} attempts all copied more than --max-copy; allow more")
    return repeat


def leaps(parts: Sequence[Part]) -> list[int]:
    """Semitones from the last note of each riff to the first of the next, where both have notes."""
    found = []
    for before, after in itertools.pairwise(parts):
        ends = [tokens[(tokens != REST) & (tokens != HOLD)] for tokens in (before.tokens, after.tokens)]
        if len(ends[0]) and len(ends[1]):
            found.append(abs(int(ends[1][0]) - int(ends[0][-1])))
    return found
