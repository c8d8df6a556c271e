"""Latent diffusion: the noise schedule, the denoiser, and the model over a VAE's latents.

No device choice, no printing, no file access in here. Dimensions: B batch, H hidden, Z latent, A attributes, T timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import DiffusionConfig
from products import QuickLinear


class NoiseSchedule(nn.Module):
    """Variances of the forward process q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I), t = 0..T - 1.

    Both shapes end with abar near zero at every T: sampling starts from pure noise, so the model must have seen it. The
    linear shape therefore scales its betas by 1000 / T (with 1e-4..0.02 as they are, T = 200 would end at abar = 0.13).
    """

    alphas_cumprod: Tensor

    def __init__(self, num_timesteps: int, schedule: str = "cosine") -> None:
        super().__init__()
        steps = torch.arange(num_timesteps + 1, dtype=torch.float64)
        if schedule == "cosine":  # Nichol & Dhariwal 2021, eq. 17
            curve = torch.cos((steps / num_timesteps + 0.008) / 1.008 * math.pi / 2).square()
            betas = 1 - curve[1:] / curve[:-1]
        elif schedule == "linear":  # Ho et al. 2020, section 4
            betas = torch.linspace(1e-4, 0.02, num_timesteps, dtype=torch.float64) * (1000 / num_timesteps)
        else:
            raise ValueError(f"schedule {schedule!r}: choose cosine or linear")
        alphas_cumprod = torch.cumprod(1 - betas.clamp(max=0.999), dim=0)
        self.register_buffer("alphas_cumprod", alphas_cumprod.float())  # [T]; computed in float64, kept in float32

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise scales at time t. t: int64 [B] -> sqrt(abar), sqrt(1 - abar): [B, 1]; or [1] for all -> [1, 1]"""
        abar = self.alphas_cumprod[t].unsqueeze(-1)
        return abar.sqrt(), (1 - abar).sqrt()

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t for a given noise (Ho et al. 2020, eq. 4). x_0, eps: [B, Z]; t: int64 [B]"""
        signal, noise = self.coefficients(t)
        return signal * x_0 + noise * eps

    def target(self, prediction_type: str, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the denoiser should say: eps, x_0, or v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans & Ho 2022, appendix D). [B, Z]"""
        signal, noise = self.coefficients(t)
        return {"eps": eps, "x0": x_0, "v": signal * eps - noise * x_0}[prediction_type]

    def x0_and_eps(self, prediction_type: str, prediction: Tensor, x_t: Tensor, t: Tensor, limit: float = 6.0) -> tuple[Tensor, Tensor]:
        """Read a prediction as x_0 and eps, with x_0 held within +-limit: at t = T - 1 an eps prediction says little of x_0.

        Returns:
            x_0 and eps, each [B, Z], that together make x_t.
        """
        signal, noise = self.coefficients(t)
        if prediction_type == "eps":
            x_0 = (x_t - noise * prediction) / signal
        elif prediction_type == "x0":
            x_0 = prediction
        else:
            x_0 = signal * x_t - noise * prediction
        x_0 = x_0.clamp(-limit, limit)
        return x_0, (x_t - signal * x_0) / noise


class ResidualBlock(nn.Module):
    """An MLP block whose normalised input is scaled and shifted by the time embedding; starts as the identity."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.condition = QuickLinear(hidden_size, 2 * hidden_size)
        self.up = QuickLinear(hidden_size, 2 * hidden_size)
        self.down = QuickLinear(2 * hidden_size, hidden_size)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.condition(time).chunk(2, dim=-1)  # [B, H] each
        return x + self.down(F.silu(self.up(self.norm(x) * (1 + scale) + shift)))


class Denoiser(nn.Module):
    """Residual MLP that predicts eps, x_0 or v from a noisy latent and its time, and from what was asked for, if anything was."""

    frequencies: Tensor

    def __init__(self, z_size: int, model: DiffusionConfig) -> None:
        super().__init__()
        hidden = model.hidden_size
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * torch.arange(hidden // 2) / (hidden // 2)), persistent=False)
        self.time = nn.Sequential(QuickLinear(hidden, hidden), nn.SiLU(), QuickLinear(hidden, hidden), nn.SiLU())
        self.time_scale = 1000 / model.num_timesteps
        self.enter = QuickLinear(z_size, hidden)
        self.blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(model.blocks))
        self.norm = nn.LayerNorm(hidden)
        self.leave = QuickLinear(hidden, z_size)
        conditions = len(model.condition_names)
        self.condition = nn.Sequential(QuickLinear(2 * conditions, hidden), nn.SiLU(), QuickLinear(hidden, hidden)) if conditions else None
        for block in self.blocks:
            nn.init.zeros_(block.down.weight)  # type: ignore[union-attr,arg-type]
            nn.init.zeros_(block.down.bias)  # type: ignore[union-attr,arg-type]
        nn.init.normal_(self.leave.weight, std=0.02)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x_t: Tensor, t: Tensor, conditions: Tensor | None = None) -> Tensor:
        """x_t: [B, Z]; t: int64 [B], or [1] for all; conditions: [B, A] or [1, A], normalised, NaN where nothing is asked, or None for
        nothing -> [B, Z]"""
        angles = t.unsqueeze(-1) * self.time_scale * self.frequencies  # [B, H / 2]
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))  # [B, H]
        if self.condition is not None:
            asked = x_t.new_zeros(len(t), self.condition[0].in_features // 2) if conditions is None else conditions.isfinite().to(x_t)
            values = asked if conditions is None else conditions.nan_to_num(0.0)
            time = time + self.condition(torch.cat([values, asked], dim=-1))
        x = self.enter(x_t)  # [B, H]
        for block in self.blocks:
            x = block(x, time)
        return self.leave(self.norm(x))


class LatentDiffusion(nn.Module):
    """A diffusion model over the latents of one VAE, normalised by the mean and standard deviation it carries."""

    latent_mean: Tensor
    latent_std: Tensor
    condition_mean: Tensor
    condition_std: Tensor

    def __init__(self, z_size: int, model: DiffusionConfig) -> None:
        super().__init__()
        self.config, self.z_size = model, z_size
        self.denoiser = Denoiser(z_size, model)
        self.schedule = NoiseSchedule(model.num_timesteps, model.schedule)
        self.register_buffer("latent_mean", torch.zeros(z_size))
        self.register_buffer("latent_std", torch.ones(z_size))
        if names := model.condition_names:
            self.register_buffer("condition_mean", torch.zeros(len(names)))
            self.register_buffer("condition_std", torch.ones(len(names)))

    def forward(self, x_0: Tensor, t: Tensor, eps: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Squared error of the prediction, mean over dimensions.

        Args:
            x_0, eps: [B, Z], normalised.
            t: int64 [B], or [1] for all
            conditions: see Denoiser.

        Returns:
            [B]
        """
        prediction = self.denoiser(self.schedule.q_sample(x_0, t, eps), t, conditions)
        return (prediction - self.schedule.target(self.config.prediction_type, x_0, t, eps)).square().mean(dim=1)

    def x0_and_eps(
        self, x_t: Tensor, t: Tensor, conditions: Tensor | None = None, guidance_scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The denoiser's view of x_t, with classifier-free guidance (Ho & Salimans 2022, eq. 6, where 1 + w is our scale).

        Args:
            x_t: [B, Z]
            t: int64 [B], or [1] for all
            conditions: see Denoiser.
            guidance_scale: 1 follows the conditions as trained, more exaggerates them, 0 does not listen.

        Returns:
            x_0, eps: [B, Z]
        """
        prediction = self.denoiser(x_t, t, conditions)
        if conditions is not None and guidance_scale != 1:
            free = self.denoiser(x_t, t)
            prediction = free + guidance_scale * (prediction - free)  # eps, x_0 and v are linear in each other at one x_t
        return self.schedule.x0_and_eps(self.config.prediction_type, prediction, x_t, t)

    def conditions(self, asked: Mapping[str, float]) -> Tensor:
        """What was asked for, as the denoiser is told: normalised, held within three standard deviations, NaN for the rest.

        Args:
            asked: by attribute, in its unit; all of them among the config's conditions.

        Returns:
            [1, A]
        """
        values = [asked.get(name, math.nan) for name in self.config.condition_names]
        row = torch.tensor([values], dtype=torch.float32, device=self.latent_mean.device)
        return self.normalize_conditions(row)

    def normalize_conditions(self, values: Tensor) -> Tensor:
        """Attributes in the training riffs' standard deviations, held within three of them; NaN stays NaN. [B, A]"""
        return ((values - self.condition_mean) / self.condition_std).clamp(-3, 3)

    def normalize(self, z: Tensor) -> Tensor:
        return (z - self.latent_mean) / self.latent_std

    def denormalize(self, x: Tensor) -> Tensor:
        return x * self.latent_std + self.latent_mean
