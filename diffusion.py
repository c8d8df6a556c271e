"""Latent diffusion: the noise schedule, the denoiser, and the model over a VAE's latents.

No device choice, no printing, no file access in here. Dimensions: B batch, H hidden, Z latent, A attributes, T timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import DiffusionConfig
from denoising import DenoiserAtTimes, Guided
from products import Product, prepared


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


class ResidualBlock(nn.Module):
    """An MLP block whose normalised input is scaled and shifted by the time embedding; starts as the identity."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.condition = nn.Linear(hidden_size, 2 * hidden_size)
        self.up = nn.Linear(hidden_size, 2 * hidden_size)
        self.down = nn.Linear(2 * hidden_size, hidden_size)

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
        self.time = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.time_scale = 1000 / model.num_timesteps
        self.enter = nn.Linear(z_size, hidden)
        self.blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(model.blocks))
        self.norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, z_size)
        conditions = len(model.condition_names)
        self.condition = nn.Sequential(nn.Linear(2 * conditions, hidden), nn.SiLU(), nn.Linear(hidden, hidden)) if conditions else None
        for block in self.blocks:
            nn.init.zeros_(block.down.weight)  # type: ignore[union-attr,arg-type]
            nn.init.zeros_(block.down.bias)  # type: ignore[union-attr,arg-type]
        nn.init.normal_(self.leave.weight, std=0.02)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x_t: Tensor, t: Tensor, conditions: Tensor | None = None) -> Tensor:
        """x_t: [B, Z]; t: int64 [B], or [1] for all; conditions: [B, A] or [1, A], normalised, NaN where nothing is asked, or None for
        nothing -> [B, Z]"""
        time, x = self.embed_time(t, conditions), self.enter(x_t)  # [B, H]
        for block in self.blocks:
            x = block(x, time)
        return self.leave(self.norm(x))

    def embed_time(self, t: Tensor, conditions: Tensor | None) -> Tensor:
        """What the blocks are told of the time, and of what is asked. As in forward -> [B, H]"""
        angles = t.unsqueeze(-1) * self.time_scale * self.frequencies  # [B, H / 2]
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))
        if self.condition is None:
            return time
        asked = time.new_zeros(len(t), self.condition[0].in_features // 2) if conditions is None else conditions.isfinite().to(time)
        values = asked if conditions is None else conditions.nan_to_num(0.0)
        return time + self.condition(torch.cat([values, asked], dim=-1))


class DenoiserWeights:
    """A denoiser's products, laid out."""

    def __init__(self, denoiser: Denoiser, precision: torch.dtype) -> None:
        def product(layer: nn.Module) -> Product:
            assert isinstance(layer, nn.Linear)
            return Product(layer.weight.detach(), layer.bias.detach(), precision)

        self.enter, self.leave = product(denoiser.enter), product(denoiser.leave)
        self.blocks = [(product(block.up), product(block.down)) for block in denoiser.blocks if isinstance(block, ResidualBlock)]


@torch.no_grad()
def denoiser_at_times(denoiser: Denoiser, times: Tensor, rows: int, conditions: Tensor | None) -> DenoiserAtTimes:
    """A denoiser at times that are known beforehand, without gradients: what hangs on the time, and on what is asked, is computed once.

    Args:
        times: int64 [N]
        rows: B, of what it will be asked.
        conditions: [1, A], or None; see Denoiser.
    """
    weights, time = prepared(denoiser, DenoiserWeights, torch.float32), denoiser.embed_time(times, conditions)  # [N, H]
    conditioned = [block.condition(time).chunk(2, dim=-1) for block in denoiser.blocks if isinstance(block, ResidualBlock)]
    return DenoiserAtTimes(
        enter=weights.enter.laid(rows),
        up=[up.laid(rows) for up, _ in weights.blocks],
        down=[down.laid(rows) for _, down in weights.blocks],
        scale=[list((1 + scale).unbind()) for scale, _ in conditioned],
        shift=[list(shift.unbind()) for _, shift in conditioned],
        norm_weight=denoiser.norm.weight.detach(),
        norm_bias=denoiser.norm.bias.detach(),
        leave=weights.leave.laid(rows),
    )


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

    def guided(self, times: Sequence[int], rows: int, conditions: Tensor | None = None, guidance_scale: float = 1.0) -> Guided:
        """The model at known times, with classifier-free guidance (Ho & Salimans 2022, eq. 6, where 1 + w is our scale).

        Args:
            rows: B, of what it will be asked.
            conditions: [1, A], see Denoiser.
            guidance_scale: 1 follows the conditions as trained, more exaggerates them, 0 does not listen.
        """
        t = torch.tensor(times, device=self.latent_mean.device)
        conditional = denoiser_at_times(self.denoiser, t, rows, conditions)
        unconditional = None if conditions is None or guidance_scale == 1 else denoiser_at_times(self.denoiser, t, rows, None)
        coefficients = torch.cat(self.schedule.coefficients(t), dim=1).tolist()
        return Guided(conditional, unconditional, guidance_scale, self.config.prediction_type, coefficients)

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
