"""Trained models that write riffs, with what they know and the guitar they write for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints import BASE_NAME, build_config, load_language_model, load_prior, load_vae, require_riffs, weights_hash
from config import DIFFUSION_FILE, LM_FILE, VAE_FILE, SampleConfig, TokenizerConfig, UserError
from diffusion import LatentDiffusion
from guitar.fretboard import Fretboard, fretboard
from language_model import LanguageModel
from lm_sampling import sample_riffs_by_lm
from midi_utils import pitch_name
from models import MusicVAE
from presets import Generate, is_language_model
from sampling import Draw
from steering.drawing import Wish, draw


@dataclasses.dataclass(frozen=True)
class RiffModel:
    """A VAE with its prior, or a language model of riffs."""

    tokenizer: TokenizerConfig
    content: dict[str, Any]  # of the checkpoint that knows the training riffs
    board: Fretboard  # the guitar that the riffs are for
    pitch_range: tuple[int, int]  # MIDI pitches that the riffs stay in: those of the training riffs that the guitar has
    hashes: dict[str, str | None]  # of the weights, for the record
    vae: MusicVAE | None = None
    diffusion: LatentDiffusion | None = None  # the VAE's prior; None is N(0, I)
    language_model: LanguageModel | None = None

    @property
    def known_tokens(self) -> np.ndarray:
        """The riffs that the run was trained on: not the base model's, if there are others. int64 [riffs, T]"""
        known = self.content["known"]
        own = np.array([not name.startswith(BASE_NAME) for name in known["names"]])
        return known["tokens"].numpy().astype(np.int64)[own if own.any() else slice(None)]

    def drawing(self, sample: SampleConfig, wish: Wish) -> Draw:
        """What draws riffs for seeds; a language model heeds of the wish the rules alone."""

        def draw_some(seeds: Sequence[int], attempt: int) -> np.ndarray:
            if self.language_model is not None:
                return sample_riffs_by_lm(self.language_model, self.tokenizer, seeds, sample, wish.rules, attempt)
            assert self.vae is not None
            return draw(self.vae, self.diffusion, seeds, sample, wish, attempt).tokens

        return draw_some


def load_riff_model(options: Generate, device: torch.device) -> RiffModel:
    """The models of a run.

    Raises:
        UserError: none there, or they do not fit together.
    """
    folder, sample = Path(options.run.run_dir), options.sample
    if is_language_model(options.preset):
        model, content = load_language_model(folder / LM_FILE, "riff", str(device))
        tokenizer = build_config(TokenizerConfig, content["tokenizer"], folder / LM_FILE)
        board, pitch_range = guitar_of(content, options)
        hashes: dict[str, str | None] = {"language_model": weights_hash(model.state_dict())}
        return RiffModel(tokenizer, content, board, pitch_range, hashes, language_model=model)
    vae, content = load_vae(folder / VAE_FILE, str(device))
    require_riffs(content, folder / VAE_FILE)
    diffusion = None
    if sample.prior == "diffusion":
        diffusion = load_prior(folder / DIFFUSION_FILE, vae, sample, str(device))
    board, pitch_range = guitar_of(content, options)
    hashes = {"vae": weights_hash(vae.state_dict()), "diffusion": weights_hash(diffusion.state_dict()) if diffusion else None}
    return RiffModel(vae.tokenizer, content, board, pitch_range, hashes, vae, diffusion)


def guitar_of(content: Mapping[str, Any], options: Generate) -> tuple[Fretboard, tuple[int, int]]:
    """The guitar that riffs are written for, and the MIDI pitches they stay in: those of the training riffs that it has.

    Raises:
        UserError: it has none of them, or there is no such tuning.
    """
    low, high = content["data"]["lowest"], content["data"]["highest"]
    board = fretboard(options.guitar, low, high)
    both = max(low, board.lowest), min(high, board.highest)
    if both[0] > both[1]:
        raise UserError(
            f"--tuning {board.notes}: goes from {pitch_name(board.lowest)} to {pitch_name(board.highest)}, "
            f"the training riffs from {pitch_name(low)} to {pitch_name(high)}; give another"
        )
    return board, both
