"""More of one riff: variations, filled gaps, what comes next, answers, and the way from one riff to another.

Every mode is a wish (see steering.drawing): rules that its riffs meet, a riff's z to start from, and how far to go from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from config import HOLD, REST, SampleConfig, TokenizerConfig, UserError
from diffusion import LatentDiffusion
from midi_utils import tokens_to_notes
from models import MusicVAE
from products import in_threads
from sampling import decode
from steering.drawing import Wish, draw
from steering.keys import estimate_key
from steering.rules import FREE, HOLDS, Demands, RiffRules, kept_rhythm, riff_rules
from steering.ways import way

JOIN = 12  # semitones between the last note of a riff and the first of the next one at most: further is no leap that a hand plays in time
RHYTHMS = 8  # times that rhythms are drawn for an order of pitches
JOIN_SEEDS = 6  # purpose of random numbers: the second half of a continuation


@torch.no_grad()
def mean_latent(vae: MusicVAE, tokens: np.ndarray) -> Tensor:
    """The mean of q(z|x). tokens: int [T] -> [Z]"""
    device = next(vae.parameters()).device
    return vae.encoder(torch.from_numpy(np.asarray(tokens, dtype=np.int64)[None]).to(device))[0][0]


# ---------------------------------------------------------------- variations


def vary(vae: MusicVAE, tokens: np.ndarray, wish: Wish, strength: float, keep_rhythm: bool = False, keep_pitches: bool = False) -> Wish:
    """Variations of a riff.

    Args:
        tokens: int [T]
        wish: what else is asked.
        strength: 0 is the reconstruction, 1 a fresh riff.
        keep_rhythm: onsets, holds and rests stay; pitches are new.
        keep_pitches: the pitches of the notes stay, in their order; the rhythm is new.

    Raises:
        UserError: nothing to keep, or the demands cannot be met together.
    """
    demands, asked = wish.rules.demands, dict(wish.asked)
    pitch = tokens_to_notes(tokens, vae.tokenizer)[2]
    if (keep_rhythm or keep_pitches) and not len(pitch):
        raise UserError("--keep-rhythm and --keep-pitches: the riff is silent; give one with notes")
    if keep_rhythm:
        demands = dataclasses.replace(demands, kinds=kept_rhythm(tokens))
    if keep_pitches:
        demands = dataclasses.replace(demands, order=tuple(int(p) for p in pitch))
        if "density" in wish.spread:
            asked["density"] = len(pitch) / vae.tokenizer.bars  # else the model ends with notes to spare, and they are crammed in
    return dataclasses.replace(
        wish, rules=riff_rules(vae.tokenizer, demands), start=mean_latent(vae, tokens), strength=strength, asked=asked
    )


def draw_rhythms(
    vae: MusicVAE, diffusion: LatentDiffusion | None, seeds: Sequence[int], sample: SampleConfig, wish: Wish, attempt: int = 0
) -> np.ndarray:  # fmt: skip
    """Riffs for a wish that demands an order of pitches: rhythms with that many notes are drawn, and the pitches laid on them.

    Walking the order note by note, the model would come to its last beat with pitches to spare, and cram them in. Where no rhythm of
    that many notes comes, this is done all the same.

    Returns:
        int64 [seeds, T]
    """
    demands = wish.rules.demands
    assert demands.order is not None
    loose = dataclasses.replace(wish, rules=RiffRules(vae.tokenizer, dataclasses.replace(demands, order=None, first=None, last=None)))
    found, missing = np.zeros((len(seeds), vae.tokenizer.steps), dtype=np.int64), list(range(len(seeds)))
    for number in range(RHYTHMS):
        if not missing:
            return found
        drawn = draw(vae, diffusion, [seeds[i] for i in missing], sample, loose, RHYTHMS * attempt + number).tokens
        for i, tokens in zip(tuple(missing), drawn, strict=True):
            sounds = (tokens != REST) & (tokens != HOLD)
            if sounds.sum() == len(demands.order):
                tokens[sounds] = demands.order
                if wish.rules.obeys(tokens):
                    found[i] = tokens
                    missing.remove(i)
    if missing:
        found[missing] = draw(vae, diffusion, [seeds[i] for i in missing], sample, wish, attempt).tokens
    return found


# ---------------------------------------------------------------- gaps


def parse_steps(text: str, tokenizer: TokenizerConfig, flag: str = "--keep", unit: int = 1) -> np.ndarray:
    """Read `1-8,17-32`: places counted from 1.

    Args:
        unit: steps of a place: 1 for steps, steps_per_bar for bars.

    Returns:
        bool [T]

    Raises:
        UserError: no list of places, or a place that the riff does not have.
    """
    places, chosen = tokenizer.steps // unit, np.zeros(tokenizer.steps, dtype=bool)
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= places):
            raise UserError(f"{flag} {text[:60]}: give places from 1 to {places}, such as 1" + f" or 1-{places // 2}" * (places > 3))
        chosen[(int(first) - 1) * unit : int(last) * unit] = True
    return chosen


def likely_fill(tokens: np.ndarray, keep: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """A riff whose gaps hold what is kept at the same place of another bar: riffs echo themselves, so this is where to look from.

    A place that is kept in no bar goes on as the riff did.

    Args:
        tokens: int [T]
        keep: bool [T]

    Returns:
        int [T], legal.
    """
    size = tokenizer.steps_per_bar
    filled = tokens.copy()
    for step in np.flatnonzero(~keep):
        elsewhere = [other for other in range(step % size, tokenizer.steps, size) if keep[other]]
        if elsewhere:
            filled[step] = tokens[min(elsewhere, key=lambda other: abs(other - step))]
    return legalized(filled, tokenizer)


def legalized(tokens: np.ndarray, tokenizer: TokenizerConfig) -> np.ndarray:
    """Holds that nothing precedes become rests. tokens: int [T] -> int [T]"""
    tokens = tokens.copy()
    if tokenizer.hold_token:
        for step in range(len(tokens)):
            if tokens[step] == HOLD and (step == 0 or tokens[step - 1] == REST):
                tokens[step] = REST
    return tokens


def infill(vae: MusicVAE, tokens: np.ndarray, keep: np.ndarray, wish: Wish, strength: float) -> Wish:
    """New music in the gaps of a riff: what is kept comes back token for token.

    Args:
        tokens: int [T]
        keep: bool [T]
        strength: how far the new music may go from what the kept bars suggest.
    """
    demands = dataclasses.replace(wish.rules.demands, fixed=np.where(keep, tokens, FREE))
    start = mean_latent(vae, likely_fill(tokens, keep, vae.tokenizer))
    return dataclasses.replace(wish, rules=riff_rules(vae.tokenizer, demands), start=start, strength=strength, key=None)


# ---------------------------------------------------------------- what comes next


def continuations(
    vae: MusicVAE, diffusion: LatentDiffusion | None, tokens: np.ndarray, seeds: Sequence[int], sample: SampleConfig, wish: Wish,
    attempt: int = 0,
) -> np.ndarray:  # fmt: skip
    """The bars after a riff, as many as it has: half a riff at a time, each written to follow on the half before it.

    Args:
        tokens: int [T]
        wish: with the strength; its rules hold for what is written.
        attempt: another number draws others for the same seeds.

    Returns:
        int64 [seeds, T]; the first note follows on the riff's last without a leap of more than JOIN.

    Raises:
        UserError: riffs of one bar have no halves.
    """
    tokenizer = vae.tokenizer
    if tokenizer.bars % 2:
        raise UserError("continue: needs riffs of an even number of bars")
    half = tokenizer.steps // 2
    first, second = tokens[:half], restruck(tokens, half)
    begin, end = (dataclasses.replace(wish.rules.demands, **{name: None}) for name in ("last", "first"))
    begun = _second_half(vae, diffusion, second, first, seeds, sample, wish, begin, attempt)
    later = [int(np.random.SeedSequence([seed, JOIN_SEEDS, attempt]).generate_state(1)[0]) for seed in seeds]
    device = next(vae.parameters()).device
    ended = in_threads(
        lambda i: _second_half(vae, diffusion, begun[i], second, [later[i]], sample, wish, end)[0], range(len(seeds)), device
    )
    return np.concatenate([begun, np.stack(ended)], axis=1)


def restruck(tokens: np.ndarray, step: int) -> np.ndarray:
    """A riff from a step on; a note that is held over it is struck there. tokens: int [T] -> int [T - step]"""
    later = tokens[step:].copy()
    if later[0] == HOLD:
        before = tokens[:step][tokens[:step] != HOLD]
        later[0] = before[-1] if len(before) else REST
    return later


def _second_half(
    vae: MusicVAE,
    diffusion: LatentDiffusion | None,
    left: np.ndarray,
    likely: np.ndarray,
    seeds: Sequence[int],
    sample: SampleConfig,
    wish: Wish,
    demands: Demands,
    attempt: int = 0,
) -> np.ndarray:
    """What follows on half a riff: a variation of the half that is likely there. int64 [seeds, T / 2]"""
    tokenizer, half = vae.tokenizer, len(left)
    given = np.concatenate([left, legalized(likely, tokenizer)])
    demands = join_demands(demands, left, tokenizer, half)
    demands = dataclasses.replace(demands, fixed=np.concatenate([left, np.full(half, FREE)]))
    here = dataclasses.replace(wish, rules=riff_rules(tokenizer, demands), start=mean_latent(vae, given), key=None)
    return draw(vae, diffusion, seeds, sample, here, attempt).tokens[:, half:]


def join_demands(demands: Demands, before: np.ndarray, tokenizer: TokenizerConfig, step: int = 0) -> Demands:
    """Demands on music that follows on other music: no note is held over the bar line, and none leaps where it begins.

    Args:
        before: int [steps], what comes before.
        step: where the music begins within the riff that the demands are about.
    """
    pitch = tokens_to_notes(before, dataclasses.replace(tokenizer, bars=max(1, len(before) // tokenizer.steps_per_bar)))[2]
    kinds = np.ones((tokenizer.steps, 3), dtype=bool) if demands.kinds is None else demands.kinds.copy()
    if tokenizer.hold_token:
        kinds[step, HOLDS] = False
        demands = dataclasses.replace(demands, kinds=kinds)
    if not len(pitch):
        return demands
    near = frozenset(range(max(1, int(pitch[-1]) - JOIN), int(pitch[-1]) + JOIN + 1))
    return dataclasses.replace(demands, first=near if demands.first is None else demands.first & near or demands.first, opens=step)


# ---------------------------------------------------------------- answers


def answer(vae: MusicVAE, tokens: np.ndarray, wish: Wish, strength: float) -> Wish:
    """An answer to a riff: it begins as the riff does, keeps the rhythm but for the last half bar, and ends elsewhere: home, unless
    the riff ends there.

    The first half returns as it is; in the second the notes are new.

    Args:
        tokens: int [T], with hold tokens.

    Raises:
        UserError: the riff is silent, or the demands cannot be met together.
    """
    tokenizer, demands = vae.tokenizer, wish.rules.demands
    pitch = tokens_to_notes(tokens, tokenizer)[2]
    if not len(pitch):
        raise UserError("answer: the riff is silent; give one with notes")
    free = tokenizer.steps - tokenizer.steps_per_bar // 2
    kinds, fixed = kept_rhythm(tokens), np.full(tokenizer.steps, FREE)
    kinds[free:] = True
    fixed[: tokenizer.steps // 2] = tokens[: tokenizer.steps // 2]
    home, ending = estimate_key(tokens, tokenizer).tonic, int(pitch[-1]) % 12
    wanted = {home} if home != ending else set(range(12)) - {home}
    last = frozenset(p for p in range(1, HOLD) if p % 12 in wanted)
    demands = dataclasses.replace(demands, kinds=kinds, fixed=fixed, last=demands.last or last)
    return dataclasses.replace(wish, rules=riff_rules(tokenizer, demands), start=mean_latent(vae, tokens), strength=strength, key=None)


# ---------------------------------------------------------------- from one riff to another


@torch.no_grad()
def interpolate(
    vae: MusicVAE,
    diffusion: LatentDiffusion | None,
    riffs: tuple[np.ndarray, np.ndarray],
    steps: int,
    strength: float,
    seed: int,
    sample: SampleConfig,
    rules: RiffRules,
) -> np.ndarray:  # fmt: skip
    """Riffs on the way from one to another, both ends' reconstructions included.

    Args:
        riffs: int [T] each.
        steps: riffs in all, 2 or more.
        strength: how far the riffs on the way are noised and denoised, most in the middle and not at all at the ends; 0 decodes the
            latents on the arc as they are.
        seed: of the noise, one for the whole way, so that neighbours stay neighbours.

    Returns:
        int64 [steps, T]; likeliest tokens, so that what changes is the way, not chance.
    """
    ends = [mean_latent(vae, riff) for riff in riffs]
    z = way(diffusion, ends[0], ends[1], steps, strength, seed, sample)
    likeliest = dataclasses.replace(sample, temperature=0.0)
    uniform = torch.zeros(steps, vae.tokenizer.steps, device=z.device)
    return decode(vae, z, uniform, likeliest, rules).cpu().numpy()
