"""Drawing from the VAE and its prior: latents by diffusion, tokens one step at a time.

Every sample has its own seed, from which all its random numbers come. Samples are computed in chunks of one fixed size
(the last one padded), because matrix products of another size round otherwise: so seed 7 gives the same riff in any batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from config import HOLD, MAX_PITCH, REST, TRIO_PARTS, SampleConfig, TokenizerConfig, UserError
from denoising import denoise
from diffusion import LatentDiffusion
from graphs import looped, replayed
from heads import TokenEmbedding
from latents import encoder_steps, given_hits
from measures.novelty import LookUp
from models import MusicVAE, written
from products import in_parts, in_threads
from steering.rules import RiffRules
from stepwise import Automaton, Chances, Walk, probabilities, write_legal, write_steps

ANY_PITCH = range(1, MAX_PITCH + 1)
CHUNK = 64  # samples computed together
MAX_ATTEMPTS = 20  # riffs drawn for one seed before giving up on it
Item = TypeVar("Item")
Close = TypeVar("Close", bound=LookUp)


# ---------------------------------------------------------------- tokens


def automaton(rules: RiffRules | Sequence[RiffRules], count: int, device: torch.device | str = "cpu", more: int = 0) -> Automaton:
    """Rules, for the riffs of a batch at their beginning.

    Args:
        rules: of all riffs, or of each.
        count: B, riffs of the batch.
        more: tokens of a larger vocabulary, behind a riff's, that never come.
    """
    each = [rules] if isinstance(rules, RiffRules) else rules
    first = np.cumsum([0, *(one.states for one in each)])[:-1]  # states of several automata stand side by side in one table
    tables = [np.where(one.following < 0, -1, one.following + begin) for one, begin in zip(each, first, strict=True)]
    wider = np.pad(np.concatenate(tables, axis=1), ((0, 0), (0, 0), (0, more)), constant_values=-1)
    following = torch.from_numpy(wider).to(device)  # int64 [T, states, V]
    state = torch.from_numpy(first + RiffRules.start).to(device).expand(count).contiguous()
    return Automaton(list((following >= 0).unbind()), list(following.flatten(1).unbind()), state)


def token_probabilities(logits: Tensor, allowed: Tensor | None, sample: SampleConfig) -> Tensor:
    """What a step is drawn from: grammar, rest penalty, temperature, top-k and top-p (Holtzman et al. 2020), in this order.

    Args:
        logits: [B, V]
        allowed: bool [B, V], at least one True in each row; None allows all.

    Returns:
        [B, V], each row summing to 1; one-hot at temperature 0. Top-p keeps the fewest likeliest tokens that reach the mass.
    """
    return probabilities(logits, allowed, token_chances(sample))


def token_chances(sample: SampleConfig) -> Chances:
    temperature = sample.temperature and max(sample.temperature, torch.finfo(torch.float32).tiny)  # below it, one would divide by 0
    return Chances(temperature, sample.top_k, sample.top_p, REST, sample.rest_penalty)  # in event vocabularies PAD, which is never allowed


def _write(
    vae: MusicVAE, z: Tensor, uniform: Tensor, sample: SampleConfig, rules: RiffRules | Sequence[RiffRules], weight: Tensor | None = None
) -> Tensor:
    """Write riffs from latents one step at a time, each token fed to the next step.

    Args:
        z: [B, Z]
        uniform: [B, T] in 0..1, the random numbers of the draws (not used at temperature 0).
        rules: of all riffs, or of each.
        weight: [B], to which is added how well the rules suit them, see decode_weighed.

    Returns:
        int64 [B, T]
    """
    require_all_steps(vae, uniform)
    decoder, walking = vae.decoder.begin(z, getattr(torch, sample.precision)), automaton(rules, len(z), z.device)
    numbers, legal, chances = vae.embedding.step_numbers(uniform.unsqueeze(-1)), looped(write_legal, z.device), token_chances(sample)

    def write(walk: Walk, before: Tensor, shown: Tensor, places: range) -> list[Tensor]:
        return legal(walk, chances, shown, numbers[places.start : places.stop], places.start, walking, weight)

    return torch.stack(written(decoder, vae.embedding.start(len(z)), write), dim=1)


def require_all_steps(vae: MusicVAE, *given: Tensor | None) -> None:
    """
    Raises:
        ValueError: something is not given for each step. given: [B, T, ...]
    """
    for one in given:
        if one is not None and one.shape[1] != vae.tokenizer.steps:
            raise ValueError(f"{one.shape[1]} steps are given, and {vae.tokenizer.steps} are to be written")


@torch.inference_mode()
def decode(vae: MusicVAE, z: Tensor, uniform: Tensor, sample: SampleConfig, rules: RiffRules | None = None) -> Tensor:
    """Riffs that obey the rules (without: any legal ones), from latents. z: [B, Z]; uniform: see _write -> int64 [B, T]"""
    return _write(vae, z, uniform, sample, rules or RiffRules(vae.tokenizer))


@torch.inference_mode()
def decode_weighed(
    vae: MusicVAE, z: Tensor, uniform: Tensor, sample: SampleConfig, rules: RiffRules | Sequence[RiffRules]
) -> tuple[Tensor, Tensor]:
    """The riffs of decode, and how well the rules suit them.

    Args:
        rules: of all riffs, or of each.

    Returns:
        int64 [B, T]; and [B], how much of the model's own probability (at temperature 1) the rules left on the way, as a logarithm in
        nats, 0 or less: the weight of a riff as a draw from what the model would write under the rules.
    """
    weight = z.new_zeros(len(z))
    return _write(vae, z, uniform, sample, rules, weight), weight


@torch.inference_mode()
def decode_steps(
    vae: MusicVAE, z: Tensor, uniform: Tensor, sample: SampleConfig, hits: Tensor | None = None, pitches: range = ANY_PITCH
) -> Tensor:
    """Decode latents of any representation, each step fed back: legal lines, but no other rules.

    Args:
        z: [B, Z]
        uniform: [B, T, draws of a step] in 0..1, the random numbers (not used at temperature 0).
        hits: bool [B, T, 9] of grooves, if they are given: they are played, and nothing else.
        pitches: what lines may play; a bass may be lower.

    Returns:
        [B, T] and more, steps; see heads.py.
    """
    require_all_steps(vae, uniform, hits)

    def make() -> tuple[Callable[..., Tensor], list[Tensor | None]]:
        banned = banned_tokens(vae.embedding, vae.tokenizer, pitches) if isinstance(vae.embedding, TokenEmbedding) else []
        return lambda *given: _decode_rows(vae, banned, sample, *given), banned

    def decode_part(part: slice) -> Tensor:
        given = [z[part], uniform[part]] if hits is None else [z[part], uniform[part], hits[part]]
        return replayed(vae, (sample, pitches), make, getattr(torch, sample.precision), *given)

    return in_parts(decode_part, len(z), z.device)


@torch.inference_mode()
def _decode_rows(
    vae: MusicVAE, banned: Sequence[Tensor | None], sample: SampleConfig, z: Tensor, uniform: Tensor, hits: Tensor | None = None
) -> Tensor:
    """As decode_steps, all rows at once. banned: see banned_tokens"""
    decoder, embedding = vae.decoder.begin(z, getattr(torch, sample.precision)), vae.embedding
    steps, draws = looped(write_steps, z.device), embedding.step_draws(token_chances(sample), banned)
    numbers, given = embedding.step_numbers(uniform), [] if hits is None else list(hits.unbind(dim=1))

    def write(walk: Walk, before: Tensor, shown: Tensor, places: range) -> list[Tensor]:
        some = slice(places.start, places.stop)
        return steps(walk, draws, before, shown, numbers[some], places.start, given[some])

    return torch.stack(written(decoder, embedding.start(len(z)), write), dim=1)


def banned_tokens(embedding: TokenEmbedding, tokenizer: TokenizerConfig, pitches: range = ANY_PITCH) -> list[Tensor | None]:
    """For each part, what to add to logits: [V + 1, V], minus infinity for tokens that may not follow another, else 0. No line holds a note
    that is not there, or leaves its range. None for drums, which may all follow."""
    tables: list[Tensor | None] = []
    for i, size in enumerate(embedding.sizes):
        if size != tokenizer.line_size:
            tables.append(None)
            continue
        banned = torch.zeros(size + 1, size)
        if tokenizer.hold_token:
            banned[REST, HOLD] = banned[size, HOLD] = -torch.inf
        banned[:, pitches.stop : MAX_PITCH + 1] = -torch.inf
        if TRIO_PARTS[i] != "bass":
            banned[:, REST + 1 : pitches.start] = -torch.inf
        tables.append(banned.to(embedding.in_bar.weight.device))
    return tables


@torch.inference_mode()
def reconstruct(vae: MusicVAE, steps: Tensor, z: Tensor | None = None, temperature: float = 0.0, seed: int = 0) -> Tensor:
    """Free-running reconstruction: music decoded from its posterior mean (or a given z), each step fed back; given scores are played.

    Args:
        steps: [B, T] and more
        z: [B, Z] or None for the mean of q(z|x).

    Returns:
        as steps
    """
    device = next(vae.parameters()).device
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    uniform = torch.from_numpy(rng.random((*steps.shape[:2], vae.embedding.draws), dtype=np.float32))
    hits = given_hits(steps, vae.tokenizer)
    parts = []
    for first in range(0, len(steps), 1024):
        some = slice(first, first + 1024)
        latent = vae.encoder(encoder_steps(steps[some], vae.tokenizer).to(device))[0] if z is None else z[some].to(device)
        struck = None if hits is None else hits[some].to(device)
        parts.append(decode_steps(vae, latent, uniform[some].to(device), SampleConfig(temperature=temperature), struck))
    return torch.cat(parts).cpu()


# ---------------------------------------------------------------- latents


def denoising_times(num_timesteps: int, sampling_steps: int) -> list[int]:
    """Evenly spaced times from T - 1 down to 0, at most T of them."""
    steps = min(sampling_steps, num_timesteps)
    return [num_timesteps - 1] if steps == 1 else [round(float(t)) for t in np.linspace(num_timesteps - 1, 0, steps)]


@torch.no_grad()
def sample_latents(
    diffusion: LatentDiffusion,
    x: Tensor,
    noise: Tensor,
    times: Sequence[int],
    eta: float,
    conditions: Tensor | None = None,
    guidance_scale: float = 1.0,
) -> Tensor:
    """Denoise by DDIM (Song et al. 2021, eq. 12 and 16); with eta 1 and all timesteps this is DDPM.

    Args:
        x: float32 [B, Z], x_t at the first of the times; standard normal at T - 1.
        noise: float32 [at least times - 1, B, Z], standard normal; not read when eta is 0.
        times: falling, at least one; see denoising_times.
        eta: 0..1
        conditions, guidance_scale: what is asked for, see LatentDiffusion.guided.

    Returns:
        z [B, Z], in the VAE's own units.
    """
    abar, steps = diffusion.schedule.alphas_cumprod[list(times)].tolist(), []
    for now, following in itertools.pairwise(abar):
        sigma = eta * math.sqrt((1 - following) / (1 - now) * (1 - now / following))
        steps.append([math.sqrt(following), math.sqrt(max(0.0, 1 - following - sigma**2)), sigma])
    model = diffusion.guided(times, len(x), conditions, guidance_scale)
    return diffusion.denormalize(looped(denoise, x.device)(model, x, noise, steps))


# ---------------------------------------------------------------- whole riffs


def by_chunks(work: Callable[[list[Item]], Sequence[Tensor]], rows: Sequence[Item], device: torch.device) -> list[np.ndarray]:
    """What is made of each row, CHUNK of them at a time; see in_threads.

    Args:
        work: makes tensors [CHUNK, ...] of CHUNK rows, each of its own row alone; the last chunk is filled up with its last row.
        rows: at least one.

    Returns:
        arrays [rows, ...]
    """
    chunks = [list(rows[first : first + CHUNK]) for first in range(0, len(rows), CHUNK)]
    parts = in_threads(lambda some: work(some + some[-1:] * (CHUNK - len(some))), chunks, device)
    return [torch.cat(each)[: len(rows)].cpu().numpy() for each in zip(*parts, strict=True)]


def random_numbers(vae: MusicVAE, entropy: Sequence[Sequence[int]], draws: int) -> tuple[Tensor, Tensor]:
    """What riffs are drawn with, each from numbers of its own, whatever else is drawn.

    Args:
        entropy: of each riff, for np.random.SeedSequence.
        draws: normal vectors for each riff.

    Returns:
        uniform [B, T] (where a step takes several draws, T times as many), for steps; and normal [draws, B, Z], for latents.
    """
    device = next(vae.parameters()).device
    rngs = [np.random.default_rng(np.random.SeedSequence(one)) for one in entropy]
    uniform = np.stack([rng.random(vae.tokenizer.steps * vae.embedding.draws, dtype=np.float32) for rng in rngs])
    normal = np.stack([rng.standard_normal((draws, vae.config.z_size), dtype=np.float32) for rng in rngs], axis=1)
    return torch.from_numpy(uniform).to(device), torch.from_numpy(normal).to(device)


def sample_riffs(
    vae: MusicVAE,
    diffusion: LatentDiffusion | None,
    seeds: Sequence[int],
    sample: SampleConfig,
    rules: RiffRules | None = None,
    attempt: int = 0,
    pitches: range = ANY_PITCH,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draw one riff, or window of any representation, for each seed.

    Args:
        diffusion: the prior of z; None is N(0, I).
        seeds: any non-negative ints; what a seed gives does not depend on the others.
        rules: what the riffs obey; None takes any legal music.
        attempt: another number draws another riff for the same seed.
        pitches: what lines may play where there are no rules.

    Returns:
        steps: [seeds, T] and more; z: float32 [seeds, Z]
    """
    times = denoising_times(diffusion.config.num_timesteps, sample.sampling_steps) if diffusion is not None else []

    def chunk(some: list[int]) -> tuple[Tensor, Tensor]:
        draws = 1 + (len(times) - 1 if sample.eta > 0 and times else 0)
        uniform, noise = random_numbers(vae, [[seed, 0, attempt] for seed in some], draws)
        z = noise[0] if diffusion is None else sample_latents(diffusion, noise[0], noise[1:], times, sample.eta)
        if rules is None:
            return decode_steps(vae, z, uniform.unflatten(1, (vae.tokenizer.steps, -1)), sample, pitches=pitches), z
        return decode(vae, z, uniform, sample, rules), z

    tokens, latents = by_chunks(chunk, seeds, next(vae.parameters()).device)
    return tokens, latents


Draw = Callable[[Sequence[int], int], np.ndarray]  # seeds and the number of the attempt -> tokens, int64 [seeds, T]


def draw_original(
    draw: Draw, seeds: Sequence[int], look_up: Callable[[np.ndarray], Close], max_copy: float, noun: str = "riff"
) -> tuple[np.ndarray, np.ndarray, Close, list[int], list[int]]:
    """Draw one riff for each seed, draw it again, up to MAX_ATTEMPTS times in all, where it copies too much, and leave out what still does.

    Args:
        draw: makes riffs, or windows; what a seed gives does not depend on the others.
        look_up: what they have in common with what they are to be original against, such as measures.novelty.TrainingRiffs.nearest.
        max_copy: largest share of a riff that its nearest training riff may have too, 0..1; 1 allows copies.
        noun: what they are, for messages.

    Returns:
        of the seeds for which there is one: tokens, int64 [seeds, T]; attempts, int64 [seeds], 0 where the first one would do; and what
        each has in common with the known ones. Then those seeds, and the others.

    Raises:
        UserError: there is none for any seed.
    """
    tokens = draw(seeds, 0)
    attempts = np.zeros(len(seeds), dtype=np.int64)
    nearest = look_up(tokens)
    for attempt in range(1, MAX_ATTEMPTS):
        again = np.flatnonzero(nearest.too_close(max_copy))
        if not len(again):
            break
        tokens[again] = draw([seeds[i] for i in again], attempt)
        attempts[again] = attempt
        nearest = nearest.replaced(again, look_up(tokens[again]))
    refused = nearest.too_close(max_copy)
    if refused.all():
        raise UserError(
            f"--max-copy {max_copy:g}: no seed gave a {noun} that copies so little, in {MAX_ATTEMPTS} attempts "
            f"({nearest.copied.min():.0%} at least in the last); allow more"
        )
    kept = np.flatnonzero(~refused)
    others = [seed for seed, no in zip(seeds, refused, strict=True) if no]
    return tokens[kept], attempts[kept], nearest.take(kept), [seeds[i] for i in kept], others
