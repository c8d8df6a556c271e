"""Trained models of windows: the VAE of a MusicVAE or GrooVAE preset, its prior if there is one, and the windows it has seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints import load_prior, load_same_windows, load_vae, require_kind, songs_config, weights_hash
from config import DIFFUSION_FILE, VAE_FILE, DataConfig, SongConfig, TokenizerConfig, UserError
from diffusion import LatentDiffusion
from family.corpus import RULES, WindowData
from family.measures import KnownWindows, NearestWindow
from latents import as_steps, encoder_steps
from models import MusicVAE
from presets import Generate

COMPARED = 100_000  # training windows that new ones are compared with, at most


@dataclass(frozen=True)
class WindowModel:
    """A VAE of windows with what belongs to it."""

    vae: MusicVAE
    diffusion: LatentDiffusion | None  # None is N(0, I)
    content: dict[str, Any]  # of the VAE's checkpoint
    songs: SongConfig
    windows: WindowData | None  # what it was trained on; None where that is gone

    @property
    def tokenizer(self) -> TokenizerConfig:
        return self.vae.tokenizer

    @property
    def data(self) -> DataConfig:
        """How its files are read."""
        values = self.content["data"]
        return DataConfig(**{name: values[name] for name in RULES})

    def hashes(self) -> dict[str, str | None]:
        """Of the weights, for the record."""
        prior = weights_hash(self.diffusion.state_dict()) if self.diffusion is not None else None
        return {"vae": weights_hash(self.vae.state_dict()), "diffusion": prior}

    @cached_property
    def compared(self) -> np.ndarray:
        """Which training windows new music is compared with: all, or of very many a random choice. int64"""
        if self.windows is None:
            return np.empty(0, dtype=np.int64)
        index = self.windows.train_index
        return np.sort(np.random.default_rng(0).choice(index, COMPARED, replace=False)) if len(index) > COMPARED else index

    @cached_property
    def known(self) -> KnownWindows:
        """The windows at `compared`."""
        steps = self.windows.tokens[self.compared] if self.windows is not None else np.empty((0, self.tokenizer.steps), dtype=np.uint8)
        return KnownWindows(steps, self.tokenizer)

    def names_of(self, nearest: NearestWindow) -> list[str]:
        """What the nearest training windows are called; "-" where they are gone."""
        if self.windows is None:
            return ["-"] * len(nearest.index)
        return [self.windows.name_of(int(self.compared[i])) for i in nearest.index]

    @torch.inference_mode()
    def encode(self, steps: np.ndarray) -> torch.Tensor:
        """Means of q(z|x) of some windows, from what the encoder is given of them. steps: [windows, T] and more -> [windows, Z]"""
        given = encoder_steps(as_steps(steps), self.tokenizer)
        return self.vae.encoder(given.to(next(self.vae.parameters()).device))[0]


def load_window_model(options: Generate, device: torch.device, with_prior: bool) -> WindowModel:
    """The model of a run. A diffusion model is used where there is one, and N(0, I) where none was trained.

    Args:
        with_prior: whether a prior is of use at all.

    Raises:
        UserError: no VAE there, one of riffs, or a prior that does not fit it.
    """
    folder = Path(options.run.run_dir)
    path = folder / VAE_FILE
    vae, content = load_vae(path, str(device))
    songs = songs_config(content, path)
    if not songs.songs:
        raise UserError(f"{path}: is a VAE of riffs; give --preset riff_2bar (or the preset it was trained with)")
    require_kind(vae, content, options.preset, path)
    diffusion = None
    if with_prior and options.sample.prior == "diffusion" and (folder / DIFFUSION_FILE).exists():
        diffusion = load_prior(folder / DIFFUSION_FILE, vae, options.sample, str(device))
    try:
        windows = load_same_windows(content, vae.tokenizer, "", path)
    except (UserError, OSError):
        windows = None  # it can write all the same; what it copies cannot be said
    return WindowModel(vae, diffusion, content, songs, windows)
