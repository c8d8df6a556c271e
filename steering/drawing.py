"""Drawing riffs that were asked for: from a riff, under rules, with attributes, along directions of the latent space.

A draw has three parts. z comes from the prior, which may start part of the way from a riff's own z and be told attributes; where a key
is asked, the riff that z stands for is moved there. Decoding obeys the rules. And where something is asked, several candidates are drawn
for each seed, and one is taken with chances in proportion to how well it goes with what was asked (sampling importance resampling,
Rubin 1988): what the rules had to force upon the model is not taken if another candidate wanted it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from config import HOLD, REST, SampleConfig, TokenizerConfig
from diffusion import LatentDiffusion
from models import MusicVAE
from sampling import by_chunks, decode, decode_weighed, denoising_times, random_numbers, sample_latents
from steering.attributes import measure
from steering.keys import Key, estimate_key
from steering.rules import Impossible, RiffRules, kept_rhythm

CHOICE = 5  # purpose of random numbers: which candidate is taken
TOLERANCE = 0.25  # of asked attributes, in standard deviations of the training riffs: what is so far off is less likely by 1.6
TONIC_TO_TONIC = 0.15  # share of notes in the scale that a riff may lose, where it is moved to a key, to come with its tonic on the key's
NEAREST_SHIFTS = np.array(sorted(range(-6, 7), key=abs))  # by which riffs are moved to a key, in semitones


@dataclass(frozen=True)
class Wish:
    """What is asked of the riffs of one call."""

    rules: RiffRules  # met by every riff
    start: Tensor | None = None  # [Z], z of a riff to start from; None starts from noise
    strength: float = 1.0  # how far from it, 0..1: 0 is the riff's reconstruction, 1 a fresh riff
    asked: Mapping[str, float] = field(default_factory=dict)  # attributes, in their units
    spread: Mapping[str, float] = field(default_factory=dict)  # standard deviation of each in the training riffs
    guidance_scale: float = 1.0  # see LatentDiffusion.guided
    shift: Tensor | None = None  # [Z], added to z
    key: Key | None = None  # riffs are moved to it by transposition before the rules hold them to its scale
    candidates: int = 1  # drawn for each seed, of which one is taken


@dataclass(frozen=True)
class Drawn:
    """What came of it."""

    tokens: np.ndarray  # int64 [seeds, T]
    z: np.ndarray  # float32 [seeds, Z]
    weights: np.ndarray  # float64 [seeds], nats, 0 or less: how well the riff taken goes with what was asked


def draw(
    vae: MusicVAE, diffusion: LatentDiffusion | None, seeds: Sequence[int], sample: SampleConfig, wish: Wish, attempt: int = 0
) -> Drawn:  # fmt: skip
    """Draw one riff for each seed.

    Args:
        diffusion: the prior of z; None is N(0, I).
        seeds: any non-negative ints; what a seed gives does not depend on the others.
        attempt: another number draws another riff for the same seed.

    Returns:
        riffs that obey the rules.
    """
    if wish.rules.demands.last is not None and vae.tokenizer.hold_token:
        return _draw_with_end(vae, diffusion, seeds, sample, wish, attempt)
    return _draw(vae, diffusion, seeds, sample, wish, attempt)


def _draw_with_end(
    vae: MusicVAE, diffusion: LatentDiffusion | None, seeds: Sequence[int], sample: SampleConfig, wish: Wish, attempt: int
) -> Drawn:  # fmt: skip
    """Draw riffs whose last note is demanded: as if it were not, and where another note came last, the same rhythm once more with it.

    Walking towards a demanded end, the model would play as it likes and have a note bolted on at the last step. Where the rhythm
    leaves no room for the demands, this is done all the same.
    """
    demands = wish.rules.demands
    loose = dataclasses.replace(wish, rules=RiffRules(vae.tokenizer, dataclasses.replace(demands, last=None)))
    drawn = _draw(vae, diffusion, seeds, sample, loose, attempt)
    tokens, weights, left = drawn.tokens.copy(), drawn.weights.copy(), []
    again: dict[int, RiffRules] = {}
    for i in range(len(seeds)):
        if not wish.rules.obeys(tokens[i]):
            try:
                again[i] = RiffRules(vae.tokenizer, dataclasses.replace(demands, kinds=kept_rhythm(tokens[i])))
            except Impossible:
                left.append(i)

    def chunk(rows: list[int]) -> tuple[Tensor, Tensor]:
        uniform, _ = random_numbers(vae, [[seeds[i], 0, attempt] for i in rows], 0)
        same = torch.from_numpy(drawn.z[rows]).to(uniform)
        return decode_weighed(vae, same, uniform, tempered(sample, wish), [again[i] for i in rows])

    if again:
        tokens[list(again)], weights[list(again)] = by_chunks(chunk, list(again), next(vae.parameters()).device)
    z = drawn.z.copy()
    if left:
        others = _draw(vae, diffusion, [seeds[i] for i in left], sample, wish, attempt)
        tokens[left], z[left], weights[left] = others.tokens, others.z, others.weights
    return Drawn(tokens, z, weights)


def tempered(sample: SampleConfig, wish: Wish) -> SampleConfig:
    """What starts from a riff does not vary more in its notes than in its z."""
    return sample if wish.start is None else dataclasses.replace(sample, temperature=sample.temperature * wish.strength)


def _draw(
    vae: MusicVAE, diffusion: LatentDiffusion | None, seeds: Sequence[int], sample: SampleConfig, wish: Wish, attempt: int
) -> Drawn:  # fmt: skip
    """One riff for each seed, the best of its candidates; see draw."""
    rows = [(seed, candidate) for seed in seeds for candidate in range(wish.candidates)]
    device = next(vae.parameters()).device
    tokens, z, weights = by_chunks(lambda some: _draw_chunk(vae, diffusion, some, sample, wish, attempt), rows, device)
    for name, value in wish.asked.items():
        off = (measure(name, tokens, vae.tokenizer) - value) / (TOLERANCE * wish.spread[name])
        weights = weights - 0.5 * off**2
    weights = weights.reshape(len(seeds), wish.candidates)
    chances = np.exp(weights - weights.max(axis=1, keepdims=True)).cumsum(axis=1)
    uniform = np.array([np.random.default_rng(np.random.SeedSequence([seed, CHOICE, attempt])).random() for seed in seeds])
    taken = (chances <= uniform[:, None] * chances[:, -1:]).sum(axis=1)
    index = np.arange(len(seeds)) * wish.candidates + taken
    return Drawn(tokens[index], z[index], weights[np.arange(len(seeds)), taken])


def _draw_chunk(
    vae: MusicVAE, diffusion: LatentDiffusion | None, rows: Sequence[tuple[int, int]], sample: SampleConfig, wish: Wish, attempt: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One riff for each (seed, candidate), CHUNK of them. -> tokens, z, weights"""
    # The first candidate has the numbers of sample_riffs: with nothing asked, seed 7 is the same riff as ever.
    entropy = [[seed, 0, attempt] + [number] * (number > 0) for seed, number in rows]
    times = times_of(diffusion, sample, 1.0 if wish.start is None else wish.strength)
    draws = 1 + (len(times) - 1 if sample.eta > 0 and times else 0)
    uniform, noise = random_numbers(vae, entropy, draws)
    z = latents(vae, diffusion, noise, times, sample, wish)
    if wish.shift is not None:
        z = z + wish.shift.to(z)
    sample = tempered(sample, wish)
    if wish.key is not None:
        z = moved_to_key(vae, z, uniform, sample, wish.key, wish.rules)
    tokens, weights = decode_weighed(vae, z, uniform, sample, wish.rules)
    return tokens, z, weights.double()


def reach(strength: float) -> float:
    """Which share of the noise schedule a strength goes back, 0..1.

    Its square: half-way up the schedule little of a riff is left, and what a player calls half is a sixth of the way.
    """
    return strength**2


def times_of(diffusion: LatentDiffusion | None, sample: SampleConfig, strength: float) -> list[int]:
    """The denoising times up to a strength; none at strength 0."""
    if diffusion is None or strength <= 0:
        return []
    last = diffusion.config.num_timesteps - 1
    return [t for t in denoising_times(last + 1, sample.sampling_steps) if t <= reach(strength) * last]


def latents(
    vae: MusicVAE, diffusion: LatentDiffusion | None, noise: Tensor, times: Sequence[int], sample: SampleConfig, wish: Wish
) -> Tensor:  # fmt: skip
    """Latents for some noise. noise: [draws, B, Z], the first to begin with, the others for eta -> [B, Z]

    From a riff: its z is noised up to the first time, and denoised from there (SDEdit, Meng et al. 2022, arXiv:2108.01073).
    """
    z = noise[0] if wish.start is None else wish.start.to(noise).expand_as(noise[0])
    if diffusion is None:
        angle = reach(wish.strength) * math.pi / 2
        return z if wish.start is None else math.cos(angle) * z + math.sin(angle) * noise[0]
    if not times:
        return z
    x = noise[0]
    if wish.start is not None and wish.strength < 1:
        t = torch.full((len(x),), times[0], dtype=torch.int64, device=x.device)
        x = diffusion.schedule.q_sample(diffusion.normalize(z), t, noise[0])
    told = {name: value for name, value in wish.asked.items() if name in diffusion.config.condition_names}
    conditions = diffusion.conditions(told) if told else None
    return sample_latents(diffusion, x, noise[1:], times, sample.eta, conditions, wish.guidance_scale)


@torch.no_grad()
def moved_to_key(vae: MusicVAE, z: Tensor, uniform: Tensor, sample: SampleConfig, key: Key, rules: RiffRules) -> Tensor:
    """Latents of the same riffs in a key: each is decoded, transposed (transposed_to_key) and encoded again.

    Held to the scale alone, the model would have to bend riffs of the keys it knows best note by note.

    Args:
        z: [B, Z]
        uniform: [B, T], for decoding.

    Returns:
        [B, Z]; z itself where the riff lies best in the scale as it is.
    """
    tokens = decode(vae, z, uniform, sample).cpu().numpy()
    moved = np.stack([transposed_to_key(riff, key, vae.tokenizer, rules.demands.low, rules.demands.high) for riff in tokens])
    mu = vae.encoder(torch.from_numpy(moved).to(z.device))[0]
    return torch.where(torch.from_numpy((moved != tokens).any(axis=1)).to(z.device)[:, None], mu, z)


def transposed_to_key(tokens: np.ndarray, key: Key, tokenizer: TokenizerConfig, low: int, high: int) -> np.ndarray:
    """A riff moved by at most a tritone so that it lies in a key and a range as well as it can, best with tonic on tonic.

    tokens: int [T] -> int [T]
    """
    sounds = (tokens != REST) & (tokens != HOLD)
    pitch = tokens[sounds]
    if not len(pitch):
        return tokens
    shifts = NEAREST_SHIFTS[(pitch.min() + NEAREST_SHIFTS >= 1) & (pitch.max() + NEAREST_SHIFTS < HOLD)]
    moved = pitch[:, None] + shifts
    fits = ((moved >= low) & (moved <= high) & np.isin(np.arange(12), list(key.classes))[moved % 12]).mean(axis=0)
    home = (estimate_key(tokens, tokenizer).tonic + shifts) % 12 == key.tonic
    shift = shifts[np.argmax(fits + TONIC_TO_TONIC * home)]
    return np.where(sounds, tokens + shift, tokens)
