"""Directions of the latent space along which an attribute grows: more or less of it for any riff, by any VAE."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from config import ATTRIBUTES, SampleConfig, UserError
from latents import latent_table
from models import MusicVAE
from sampling import CHUNK, decode
from steering.attributes import measure

MOST = 10.0  # standard deviations that can be asked for
POINTS = 2048  # latents to learn a direction from
NEARBY = 0.5  # how far they lie from the training riffs' own, in standard deviations
RIDGE = 1e-3  # of the regression, as a share of the latents' variance


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


@torch.no_grad()
def direction(vae: MusicVAE, name: str, tokens: np.ndarray) -> Tensor:
    """The change of z that is likeliest to bring one standard deviation more of an attribute.

    Latents around those of the training riffs are decoded to their likeliest notes, and the attribute of these is regressed on z: what
    counts is how the decoder answers. Of all changes for which the regression promises as much, this is the one that leads least far out
    of the latents' spread. (With a switch instead of a number and the riffs themselves it would be the difference of means of MusicVAE's
    attribute vectors, Roberts et al. 2018, section 5, which a hundred riffs do not tell well.)

    Args:
        name: of ATTRIBUTES.
        tokens: int [riffs, T], the training riffs: two at least, or there is no spread.

    Returns:
        [Z]

    Raises:
        UserError: all riffs have the same of it.
    """
    deviation = measure(name, tokens, vae.tokenizer).std() if len(tokens) > 1 else 0.0
    if deviation < 1e-9:
        raise UserError(f"--attribute {name}: the training riffs all have the same of it, which shows no direction")
    device = next(vae.parameters()).device
    mu = latent_table(vae, tokens, device).mu.double().numpy()
    rng = np.random.default_rng(0)
    z = mu[rng.integers(len(mu), size=POINTS)] + NEARBY * mu.std(axis=0) * rng.standard_normal((POINTS, mu.shape[1]))
    some = torch.from_numpy(z).float().to(device).split(CHUNK)
    likeliest = SampleConfig(temperature=0.0)
    decoded = [decode(vae, part, part.new_zeros(len(part), vae.tokenizer.steps), likeliest).cpu().numpy() for part in some]
    values = measure(name, np.concatenate(decoded), vae.tokenizer)
    centred = z - z.mean(axis=0)
    spread = centred.T @ centred / POINTS
    with_value = centred.T @ (values - values.mean()) / POINTS  # [Z], the covariance of z with the attribute
    weights = np.linalg.solve(spread + RIDGE * np.trace(spread) / len(spread) * np.eye(len(spread)), with_value)
    promised = weights @ spread @ weights
    if promised < 1e-12 * deviation**2:
        raise UserError(f"--attribute {name}: this decoder writes the same of it whatever z is")
    return torch.from_numpy(spread @ weights / promised * deviation).float().to(device)
