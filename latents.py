"""The latents of riffs and windows: what a prior is trained on, and what it is compared with."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from config import DRUM_CLASSES, TokenizerConfig
from dataset import RiffData, augmented_batch, training_stream
from family.corpus import WindowData
from family.windows import given_steps
from models import MusicVAE


@dataclasses.dataclass(frozen=True)
class LatentTable:
    """q(z|x) of many riffs, encoded once: drawing a z is then a look-up."""

    mu: Tensor  # [rows, Z]
    std: Tensor  # [rows, Z]

    def draw(self, index: np.ndarray, noise: Tensor) -> Tensor:
        """z ~ q(z|x). index: int64 [B]; noise: [B, Z], standard normal -> [B, Z]"""
        rows = torch.from_numpy(index)
        return self.mu[rows] + self.std[rows] * noise

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of all latents, posterior noise included. Each [Z]"""
        return self.mu.mean(dim=0), (self.mu.var(dim=0, unbiased=False) + self.std.square().mean(dim=0)).sqrt()


@torch.inference_mode()
def latent_table(vae: MusicVAE, tokens: np.ndarray, device: torch.device) -> LatentTable:
    """Encode music. tokens: [riffs, T] and more, steps"""
    given = encoder_steps(as_steps(tokens), vae.tokenizer)
    parts = [torch.stack(vae.encoder(some.to(device))).cpu() for some in given.split(1024)]
    mu, logvar = torch.cat(parts, dim=1)
    return LatentTable(mu.clone(), torch.exp(0.5 * logvar))


def as_steps(tokens: np.ndarray) -> Tensor:
    """Steps as the models take them: int64, or float32 for groove."""
    return torch.from_numpy(np.array(tokens, dtype=np.float32 if tokens.dtype.kind == "f" else np.int64))


def encoder_steps(steps: Tensor, tokenizer: TokenizerConfig) -> Tensor:
    """What the encoder is given of some steps."""
    return steps if tokenizer.given == "all" else as_steps(given_steps(steps.numpy(), tokenizer))


def given_hits(steps: Tensor, tokenizer: TokenizerConfig) -> Tensor | None:
    """What is struck, where the model is given it and plays nothing else. steps: [..., T, 27] -> bool [..., T, 9]"""
    return steps[..., : len(DRUM_CLASSES)] > 0.5 if tokenizer.given == "hits" else None


def prior_windows(windows: WindowData, latents: int, seed: int) -> np.ndarray:
    """The windows of songs to encode for training: a random choice where there are more, transposed as for the VAE.

    Returns:
        [latents, T] and more, in random order; with fewer windows than that, each comes several times, transposed otherwise
    """
    rng = np.random.default_rng(seed)
    count = len(windows.train_index)
    index = rng.choice(count, latents, replace=False) if count > latents else np.resize(rng.permutation(count), latents)
    return windows.batch(index, [seed])


def prior_tokens(riff_data: RiffData, latents: int, transpose: int, seed: int) -> np.ndarray:
    """The riffs to encode for training: mixed as for the VAE, but not rotated and, unless asked, in the keys they were written in.

    The VAE has to understand a riff in every key; the prior has to know how riffs begin and end, and which keys and registers
    lie well on a guitar.

    Returns:
        int64 [latents or one for each riff, T]
    """
    config = dataclasses.replace(riff_data.config, transpose=transpose, rotate=0.0)
    as_written = dataclasses.replace(riff_data, config=config)
    count = max(latents, len(riff_data.train_tokens))
    return augmented_batch(as_written, training_stream(as_written, seed), step=0, batch_size=count)
