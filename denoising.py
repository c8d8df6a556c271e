"""Denoising without gradients: the loop from noise to latents, as functions that TorchScript takes too; see graphs.looped.

No `from __future__ import annotations` in here: TorchScript reads annotations as they stand. Dimensions: B batch, Z latent, H hidden.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from products import Laid, multiply


class DenoiserAtTimes(NamedTuple):
    """A denoiser at times that are known beforehand, for so many rows; see diffusion.denoiser_at_times."""

    enter: Laid
    up: list[Laid]  # of each block
    down: list[Laid]
    scale: list[list[Tensor]]  # [H] of each block and time, what its normalised input is multiplied by
    shift: list[list[Tensor]]
    norm_weight: Tensor  # [H]
    norm_bias: Tensor
    leave: Laid


def predicted(denoiser: DenoiserAtTimes, i: int, x_t: Tensor) -> Tensor:
    """At the i-th time, as diffusion.Denoiser.forward. x_t: [B, Z] -> [B, Z]"""
    x = multiply(x_t, denoiser.enter)
    size = [x.shape[1]]
    for block in range(len(denoiser.up)):
        inside = F.layer_norm(x, size, denoiser.scale[block][i], denoiser.shift[block][i])
        x = multiply(F.silu(multiply(inside, denoiser.up[block]), inplace=True), denoiser.down[block]).add_(x)
    return multiply(F.layer_norm(x, size, denoiser.norm_weight, denoiser.norm_bias), denoiser.leave)


def x0_and_eps(
    prediction_type: str, prediction: Tensor, x_t: Tensor, signal: float, noise: float, limit: float = 6.0
) -> tuple[Tensor, Tensor]:
    """Read a prediction as x_0 and eps, with x_0 held within +-limit: at t = T - 1 an eps prediction says little of x_0.

    Args:
        prediction, x_t: [B, Z]
        signal, noise: the scales at their time, see diffusion.NoiseSchedule.coefficients; from Python also as [B, 1].

    Returns:
        x_0 and eps, each [B, Z], that together make x_t.
    """
    if prediction_type == "eps":
        x_0 = (x_t - noise * prediction) / signal
    elif prediction_type == "x0":
        x_0 = prediction
    else:
        x_0 = signal * x_t - noise * prediction
    x_0 = x_0.clamp(-limit, limit)
    return x_0, (x_t - signal * x_0) / noise


class Guided(NamedTuple):
    """A diffusion model at known times, with what is asked of it; see diffusion.LatentDiffusion.guided."""

    conditional: DenoiserAtTimes
    unconditional: DenoiserAtTimes | None
    guidance_scale: float
    prediction_type: str
    coefficients: list[list[float]]  # signal and noise of each time


def x0_and_eps_at(model: Guided, i: int, x_t: Tensor) -> tuple[Tensor, Tensor]:
    """What the model takes x_t to be made of at the i-th time. x_t: [B, Z] -> x_0 and eps, [B, Z] each"""
    prediction, unconditional = predicted(model.conditional, i, x_t), model.unconditional
    if unconditional is not None:  # eps, x_0 and v are linear in each other at one x_t
        prediction = torch.lerp(predicted(unconditional, i, x_t), prediction, model.guidance_scale)
    signal, noise = model.coefficients[i]
    return x0_and_eps(model.prediction_type, prediction, x_t, signal, noise)


def denoise(model: Guided, x: Tensor, noise: Tensor, steps: list[list[float]]) -> Tensor:
    """From noise to x_0.

    Args:
        model: at one time more than there are steps.
        x: [B, Z], x_t at the first time.
        noise: [steps, B, Z], standard normal; not read where none is added.
        steps: what x_0, eps and noise are multiplied by to make x_t at the next time.

    Returns:
        x_0 [B, Z]
    """
    for i in range(len(steps)):
        x_0, eps = x0_and_eps_at(model, i, x)
        signal, kept, added = steps[i]
        x = signal * x_0 + kept * eps
        if added > 0:
            x = x + added * noise[i]
    return x0_and_eps_at(model, len(steps), x)[0]
