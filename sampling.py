"""Drawing from trained models: latents by diffusion, tokens one step at a time; riffs, and whole pieces.

Every sample has its own seed, from which all its random numbers come. Samples are computed in chunks of one fixed size
(the last one padded), because matrix products of another size round otherwise: so seed 7 gives the same riff in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from config import HOLD, MAX_PITCH, REST, SampleConfig, TokenizerConfig
from events import BOS, EOS, NOTE_OFF, NOTE_ON, PAD, PITCHES, TIME_SHIFT
from language_model import LanguageModel, LanguageModelStepper
from models import LatentDiffusion, RiffVAE, inverse_cdf
from novelty import Nearest, TrainingRiffs
from pieces import Vocabulary

CHUNK = 64  # samples computed together
PIECES_TOGETHER = 16  # the same for whole pieces
UNIFORM = 3  # purpose of random numbers: the draws of a language model
MAX_ATTEMPTS = 20  # riffs drawn for one seed before giving up on it


# ---------------------------------------------------------------- tokens


def grammar_mask(before: Tensor, tokenizer: TokenizerConfig, pitch_range: tuple[int, int] = (1, MAX_PITCH)) -> Tensor:
    """Which tokens may follow: everything, but no hold after a rest or at the start, and no pitch outside a range.

    Args:
        pitch_range: lowest and highest MIDI pitch, 1..127.
        before: int64 [B], the tokens before; V (the start token) at the first step.

    Returns:
        bool [B, V], True where allowed.
    """
    allowed = torch.ones(len(before), tokenizer.vocab_size, dtype=torch.bool, device=before.device)
    allowed[:, 1 : pitch_range[0]] = False
    allowed[:, pitch_range[1] + 1 : MAX_PITCH + 1] = False
    if tokenizer.hold_token:
        allowed[:, HOLD] = (before != REST) & (before != tokenizer.vocab_size)
    return allowed


def token_probabilities(logits: Tensor, allowed: Tensor, sample: SampleConfig) -> Tensor:
    """What a step is drawn from: rest penalty, grammar, temperature, top-k and top-p (Holtzman et al. 2020), in this order.

    Args:
        logits: [B, V]
        allowed: bool [B, V], at least one True in each row.

    Returns:
        [B, V], each row summing to 1; one-hot at temperature 0. Top-p keeps the fewest likeliest tokens that reach the mass.
    """
    logits = logits.clone()
    logits[:, REST] -= sample.rest_penalty  # in event vocabularies this is PAD, which is never allowed
    logits = logits.masked_fill(~allowed, -torch.inf)
    if sample.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    if 0 < sample.top_k < logits.shape[-1]:
        kept = torch.zeros_like(allowed).scatter_(1, logits.topk(sample.top_k, dim=-1).indices, True)
        logits = logits.masked_fill(~kept, -torch.inf)
    temperature = max(sample.temperature, torch.finfo(logits.dtype).tiny)  # below it, float32 would divide by 0
    probabilities = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature).softmax(dim=-1)
    if sample.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        mass_before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(mass_before >= sample.top_p, 0)
        ordered[:, 0] = ordered[:, 0].clamp(min=torch.finfo(ordered.dtype).tiny)  # the likeliest token always stays
        probabilities = torch.zeros_like(probabilities).scatter(1, order, ordered)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities


@torch.inference_mode()
def decode(vae: RiffVAE, z: Tensor, uniform: Tensor, sample: SampleConfig, pitch_range: tuple[int, int] = (1, MAX_PITCH)) -> Tensor:
    """Write riffs from latents one step at a time, each token fed to the next step.

    Args:
        z: [B, Z]
        uniform: [B, T] in 0..1, the random numbers of the draws (not used at temperature 0).
        pitch_range: lowest and highest MIDI pitch, 1..127.

    Returns:
        int64 [B, T], legal riffs inside the range.
    """
    state, shares = vae.decoder.start(z)
    before = torch.full((len(z),), vae.decoder.start_token, dtype=torch.int64, device=z.device)
    tokens = torch.empty(len(z), vae.tokenizer.steps, dtype=torch.int64, device=z.device)
    for t in range(vae.tokenizer.steps):
        logits, state = vae.decoder.step(t, before, state, shares)
        probabilities = token_probabilities(logits, grammar_mask(before, vae.tokenizer, pitch_range), sample)
        before = inverse_cdf(probabilities, uniform[:, t])
        tokens[:, t] = before
    return tokens


@torch.inference_mode()
def reconstruct(vae: RiffVAE, tokens: Tensor, z: Tensor | None = None, temperature: float = 0.0, seed: int = 0) -> Tensor:
    """Free-running reconstruction: riffs decoded from their posterior mean (or a given z), each token fed back.

    Args:
        tokens: int64 [B, T]
        z: [B, Z] or None for the mean of q(z|x).

    Returns:
        int64 [B, T]
    """
    device = next(vae.parameters()).device
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    uniform = torch.from_numpy(rng.random(tuple(tokens.shape), dtype=np.float32)).to(device)
    parts = []
    for first in range(0, len(tokens), 1024):
        some = slice(first, first + 1024)
        latent = vae.encoder(tokens[some].to(device))[0] if z is None else z[some].to(device)
        parts.append(decode(vae, latent, uniform[some], SampleConfig(temperature=temperature)))
    return torch.cat(parts).cpu()


# ---------------------------------------------------------------- latents


def denoising_times(num_timesteps: int, sampling_steps: int) -> list[int]:
    """Evenly spaced times from T - 1 down to 0, at most T of them."""
    steps = min(sampling_steps, num_timesteps)
    return [num_timesteps - 1] if steps == 1 else [round(float(t)) for t in np.linspace(num_timesteps - 1, 0, steps)]


@torch.inference_mode()
def sample_latents(diffusion: LatentDiffusion, x_T: Tensor, noise: Tensor, sampling_steps: int, eta: float) -> Tensor:
    """Denoise by DDIM (Song et al. 2021, eq. 12 and 16); with eta 1 and all timesteps this is DDPM.

    Args:
        x_T: [B, Z], standard normal.
        noise: [steps - 1, B, Z], standard normal; not read when eta is 0.
        eta: 0..1

    Returns:
        z [B, Z], in the VAE's own units.
    """
    x = x_T
    abar = diffusion.schedule.alphas_cumprod.double()
    times = denoising_times(diffusion.config.num_timesteps, sampling_steps)
    for i, t in enumerate(times):
        x_0, eps = diffusion.x0_and_eps(x, torch.full((len(x),), t, dtype=torch.int64, device=x.device))
        if i + 1 == len(times):
            return diffusion.denormalize(x_0)
        now, following = abar[t], abar[times[i + 1]]
        sigma = eta * torch.sqrt((1 - following) / (1 - now) * (1 - now / following))
        x = following.sqrt().float() * x_0 + torch.sqrt((1 - following - sigma**2).clamp(min=0)).float() * eps
        if eta > 0:
            x = x + sigma.float() * noise[i]
    return x


# ---------------------------------------------------------------- whole riffs


def sample_riffs(
    vae: RiffVAE,
    diffusion: LatentDiffusion | None,
    seeds: Sequence[int],
    sample: SampleConfig,
    pitch_range: tuple[int, int] = (1, MAX_PITCH),
    attempt: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draw one riff for each seed.

    Args:
        diffusion: the prior of z; None is N(0, I).
        seeds: any non-negative ints; what a seed gives does not depend on the others.
        pitch_range: lowest and highest MIDI pitch, 1..127.
        attempt: another number draws another riff for the same seed.

    Returns:
        tokens: int64 [seeds, T]; z: float32 [seeds, Z]
    """
    device = next(vae.parameters()).device
    steps = len(denoising_times(diffusion.config.num_timesteps, sample.sampling_steps)) if diffusion is not None else 0
    tokens, latents = [], []
    for first in range(0, len(seeds), CHUNK):
        chunk = list(seeds[first : first + CHUNK])
        padded = chunk + chunk[-1:] * (CHUNK - len(chunk))
        rngs = [np.random.default_rng(np.random.SeedSequence([seed, 0, attempt])) for seed in padded]
        uniform = np.stack([rng.random(vae.tokenizer.steps, dtype=np.float32) for rng in rngs])
        draws = 1 + (steps - 1 if sample.eta > 0 and steps else 0)
        normal = np.stack([rng.standard_normal((draws, vae.config.z_size), dtype=np.float32) for rng in rngs], axis=1)
        noise = torch.from_numpy(normal).to(device)  # [draws, B, Z]
        z = noise[0] if diffusion is None else sample_latents(diffusion, noise[0], noise[1:], sample.sampling_steps, sample.eta)
        tokens.append(decode(vae, z, torch.from_numpy(uniform).to(device), sample, pitch_range)[: len(chunk)].cpu())
        latents.append(z[: len(chunk)].cpu())
    return torch.cat(tokens).numpy(), torch.cat(latents).numpy()


Draw = Callable[[Sequence[int], int], np.ndarray]  # seeds and the number of the attempt -> tokens, int64 [seeds, T]


def sample_original_riffs(
    draw: Draw, seeds: Sequence[int], known: TrainingRiffs, max_copy: float
) -> tuple[np.ndarray, np.ndarray, Nearest]:
    """Draw one riff for each seed, and draw it again, up to MAX_ATTEMPTS times in all, where it copies too much.

    Args:
        draw: makes riffs; what a seed gives does not depend on the others.
        known: what to be original against.
        max_copy: largest share of a riff that its nearest training riff may have too, 0..1; 1 allows copies.

    Returns:
        tokens: int64 [seeds, T], of the last attempt; attempts: int64 [seeds], 0 where the first one would do, -1 where none did;
        and what each has in common with the training riffs.
    """
    tokens = draw(seeds, 0)
    attempts = np.zeros(len(seeds), dtype=np.int64)
    nearest = known.nearest(tokens)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        again = np.flatnonzero(nearest.too_close(max_copy))
        if not len(again):
            break
        if attempt == MAX_ATTEMPTS:
            attempts[again] = -1
            break
        tokens[again] = draw([seeds[i] for i in again], attempt)
        attempts[again] = attempt
        nearest = nearest.replaced(again, known.nearest(tokens[again]))
    return tokens, attempts, nearest


# ---------------------------------------------------------------- language models: tokens one by one, with a carried state
# Memory does not grow with the length: what is kept are the states, the tokens and their random numbers.


class EventGrammar:
    """Which event may come next, for some sequences at once. PAD and BOS never may.

    Args:
        strict: no NOTE_OFF of a pitch that is silent or was struck at this very time, no NOTE_ON of a sounding one, and nothing but
            NOTE_ON before the first note.
    """

    def __init__(self, count: int, vocabulary: Vocabulary, strict: bool, device: torch.device | str = "cpu") -> None:
        self.strict = strict
        self._always = torch.ones(count, vocabulary.size, dtype=torch.bool, device=device)
        self._always[:, [PAD, BOS]] = False
        self.sounding = torch.zeros(count, PITCHES, dtype=torch.bool, device=device)
        self.fresh = torch.zeros_like(self.sounding)  # struck since the last TIME_SHIFT
        self.begun = torch.zeros(count, dtype=torch.bool, device=device)  # a note was struck

    def allowed(self) -> Tensor:
        """bool [B, V]"""
        if not self.strict:
            return self._always
        allowed = self._always.clone()
        allowed[:, EOS] = self.begun
        allowed[:, TIME_SHIFT + 1 :] = self.begun[:, None]
        allowed[:, NOTE_ON:NOTE_OFF] = ~self.sounding
        allowed[:, NOTE_OFF : TIME_SHIFT + 1] = self.sounding & ~self.fresh
        return allowed

    def advance(self, tokens: Tensor) -> None:
        """Take in the next token of each sequence. tokens: int64 [B]"""
        pitch = (tokens - NOTE_ON) % PITCHES
        here = torch.nn.functional.one_hot(pitch, PITCHES).bool()
        on, off = (tokens >= NOTE_ON) & (tokens < NOTE_OFF), (tokens >= NOTE_OFF) & (tokens <= TIME_SHIFT)
        self.sounding = (self.sounding | (here & on[:, None])) & ~(here & off[:, None])
        self.begun = self.begun | on
        self.fresh = (self.fresh | (here & on[:, None])) & ~(tokens > TIME_SHIFT)[:, None]


class RiffGrammar:
    """Which riff token may come next: see grammar_mask."""

    def __init__(self, count: int, tokenizer: TokenizerConfig, pitch_range: tuple[int, int], device: torch.device | str = "cpu") -> None:
        self.tokenizer, self.pitch_range = tokenizer, pitch_range
        self.before = torch.full((count,), tokenizer.vocab_size, dtype=torch.int64, device=device)

    def allowed(self) -> Tensor:
        """bool [B, V]"""
        mask = grammar_mask(self.before, self.tokenizer, self.pitch_range)
        return torch.cat([mask, torch.zeros_like(mask[:, :1])], dim=1)  # BOS never comes again

    def advance(self, tokens: Tensor) -> None:
        """Take in the next token of each riff. tokens: int64 [B]"""
        self.before = tokens


def uniform_numbers(seeds: Sequence[int], count: int, attempt: int) -> np.ndarray:
    """The random numbers of each seed, the same whatever their number. float32 [seeds, count]"""
    rngs = (np.random.default_rng(np.random.SeedSequence([seed, UNIFORM, attempt])) for seed in seeds)
    return np.stack([rng.random(count, dtype=np.float32) for rng in rngs])


@torch.inference_mode()
def continue_sequences(
    model: LanguageModel, given: Tensor, grammar: EventGrammar | RiffGrammar, uniform: Tensor, sample: SampleConfig, eos: int | None
) -> Tensor:
    """Go on from what is given, one token at a time.

    Args:
        given: int64 [B, G], from BOS on; G at least 1.
        grammar: at its beginning.
        uniform: [B, T] in 0..1, for the draws.
        eos: ends a sequence; None never does.

    Returns:
        int64 [B, at most T], the new tokens; PAD behind an EOS. Ends early when all have ended.
    """
    new = torch.full(uniform.shape, PAD, dtype=torch.int64, device=given.device)
    logits, state = model(given)
    logits, step = logits[:, -1], LanguageModelStepper(model)
    for t in range(1, given.shape[1]):
        grammar.advance(given[:, t])
    ended = torch.zeros(len(given), dtype=torch.bool, device=given.device)
    for t in range(uniform.shape[1]):
        if t:
            logits, state = step(new[:, t - 1], state)
        token = inverse_cdf(token_probabilities(logits, grammar.allowed(), sample), uniform[:, t])
        new[:, t] = torch.where(ended, PAD, token)
        grammar.advance(token)
        if eos is not None:
            ended |= token == eos
            if bool(ended.all()):
                return new[:, : t + 1]
    return new


def sample_events(
    model: LanguageModel,
    vocabulary: Vocabulary,
    seeds: Sequence[int],
    sample: SampleConfig,
    length: int,
    prime: np.ndarray | None = None,
    attempt: int = 0,
    chunk: int = PIECES_TOGETHER,
) -> list[np.ndarray]:
    """Draw one piece for each seed, from BOS (or after the given beginning) to EOS or to a length.

    Args:
        seeds: any non-negative ints; what a seed gives does not depend on the others.
        length: most tokens of a piece, BOS and the given ones among them.
        prime: int [tokens], from BOS on, shorter than the length.
        attempt: another number draws another piece for the same seed.
        chunk: pieces computed together; rounding, and so a token here and there, may depend on it.

    Returns:
        int64 [tokens] each; EOS last, unless the length ended it.
    """
    device = next(model.parameters()).device
    begin = np.array([BOS]) if prime is None else np.asarray(prime)[:length]
    given = torch.from_numpy(np.repeat(begin[None].astype(np.int64), chunk, axis=0)).to(device)
    pieces = []
    for first in range(0, len(seeds), chunk):
        some = list(seeds[first : first + chunk])
        uniform = torch.from_numpy(uniform_numbers(some + some[-1:] * (chunk - len(some)), length - len(begin), attempt)).to(device)
        new = continue_sequences(model, given, EventGrammar(chunk, vocabulary, sample.grammar, device), uniform, sample, vocabulary.eos)
        for row in new[: len(some)].cpu().numpy():
            ends = np.flatnonzero(row == EOS)
            pieces.append(np.concatenate([begin, row[: ends[0] + 1] if len(ends) else row]))
    return pieces


def sample_riffs_by_lm(
    model: LanguageModel,
    tokenizer: TokenizerConfig,
    seeds: Sequence[int],
    sample: SampleConfig,
    pitch_range: tuple[int, int] = (1, MAX_PITCH),
    attempt: int = 0,
) -> np.ndarray:
    """Draw one riff for each seed. int64 [seeds, steps], legal riffs inside the range; see sample_riffs"""
    device, chunk = next(model.parameters()).device, CHUNK
    given = torch.full((chunk, 1), tokenizer.vocab_size, dtype=torch.int64, device=device)
    riffs = []
    for first in range(0, len(seeds), chunk):
        some = list(seeds[first : first + chunk])
        uniform = torch.from_numpy(uniform_numbers(some + some[-1:] * (chunk - len(some)), tokenizer.steps, attempt)).to(device)
        new = continue_sequences(model, given, RiffGrammar(chunk, tokenizer, pitch_range, device), uniform, sample, None)
        riffs.append(new[: len(some)].cpu().numpy())
    return np.concatenate(riffs)
