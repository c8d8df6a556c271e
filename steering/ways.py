"""Ways through the latent space, from one piece of music to another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from config import SampleConfig
from diffusion import LatentDiffusion
from sampling import sample_latents
from steering.drawing import times_of


def slerp(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake 1985): along the arc between two directions, and evenly in length.

    Args:
        a, b: [Z]; equal, opposite or zero vectors are joined by a straight line, on which the arc is not defined.
        shares: [N], 0 is a and 1 is b.

    Returns:
        [N, Z], finite; a and b themselves at 0 and 1.
    """
    shares = shares.double().unsqueeze(1)
    x, y = a.double(), b.double()
    length_a, length_b = x.norm(), y.norm()
    straight = (1 - shares) * x + shares * y
    if length_a < 1e-12 or length_b < 1e-12:
        return straight.to(a.dtype)
    angle = torch.arccos(torch.clamp((x / length_a) @ (y / length_b), -1, 1))
    if angle < 1e-6 or angle > torch.pi - 1e-6:
        return straight.to(a.dtype)
    arc = (torch.sin((1 - shares) * angle) * x / length_a + torch.sin(shares * angle) * y / length_b) / torch.sin(angle)
    z = arc * ((1 - shares) * length_a + shares * length_b)
    z = torch.where(shares == 0, x, torch.where(shares == 1, y, z))
    return z.to(a.dtype)


@torch.no_grad()
def way(
    diffusion: LatentDiffusion | None, begin: Tensor, end: Tensor, steps: int, strength: float, seed: int, sample: SampleConfig
) -> Tensor:
    """Latents on the way from one to another, both ends included.

    Args:
        begin, end: [Z]
        steps: latents in all, 2 or more.
        strength: how far those on the way are noised and denoised, most in the middle and not at all at the ends; 0 takes the arc as it is.
        seed: of the noise, one for the whole way, so that neighbours stay neighbours.

    Returns:
        [steps, Z]
    """
    shares = torch.linspace(0, 1, steps, device=begin.device)
    z = slerp(begin, end, shares)
    if diffusion is None or strength == 0:
        return z
    x_0 = diffusion.normalize(torch.stack([begin, end]))  # [2, Z]
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0, 0]))
    noise = torch.from_numpy(rng.standard_normal((1, x_0.shape[1]), dtype=np.float32)).to(x_0)
    for i in range(1, steps - 1):
        times = times_of(diffusion, sample, strength * 4 * float(shares[i]) * (1 - float(shares[i])))
        if times:
            t = torch.full((2,), times[0], dtype=torch.int64, device=x_0.device)
            x = diffusion.schedule.q_sample(x_0, t, noise)  # [2, Z]
            z[i] = sample_latents(diffusion, slerp(x[0], x[1], shares[i : i + 1]), noise[:0], times, 0.0)[0]
    return z
