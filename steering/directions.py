"""Directions of the latent space along which an attribute grows: more or less of it for any riff, by any VAE."""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from torch import Tensor

from config import ATTRIBUTES, UserError
from latents import latent_table
from models import RiffVAE
from steering.attributes import measure

MOST = 10.0  # standard deviations that can be asked for


def parse_changes(text: str) -> dict[str, float]:
    """Read `density=+1,rests=-0.5`: changes in standard deviations of the training riffs.

    Raises:
        UserError: another attribute, or no number.
    """
    changes: dict[str, float] = {}
    for part in text.split(",") if text.strip() else []:
        match = re.fullmatch(r"\s*([a-z]+)\s*=\s*([+-]?\d+\.?\d*|[+-]?\.\d+)\s*", part)
        if match is None or match[1] not in ATTRIBUTES or match[1] in changes or abs(float(match[2])) > MOST:
            choices = ", ".join(ATTRIBUTES)
            raise UserError(
                f"--attribute {text[:60]}: give each once, such as density=+1,rests=-0.5, in -{MOST:g}..{MOST:g}; there are {choices}"
            )
        changes[match[1]] = float(match[2])
    return changes


def direction(vae: RiffVAE, name: str, tokens: np.ndarray) -> Tensor:
    """How z changes, on average, with one standard deviation more of an attribute: the slope of the regression of z on it.

    (With a switch instead of a number this is the difference of means of MusicVAE's attribute vectors, Roberts et al. 2018, section 5.)

    Args:
        name: of ATTRIBUTES.
        tokens: int [riffs, T], to learn it from.

    Returns:
        [Z]

    Raises:
        UserError: all riffs have the same of it.
    """
    values = measure(name, tokens, vae.tokenizer)
    if len(values) < 2 or not math.isfinite(values.std()) or values.std() < 1e-9:
        raise UserError(f"--attribute {name}: the training riffs all have the same of it, which shows no direction")
    mu = latent_table(vae, tokens, next(vae.parameters()).device).mu
    standard = torch.from_numpy((values - values.mean()) / values.std()).to(mu)
    return ((mu - mu.mean(dim=0)) * standard[:, None]).mean(dim=0)
