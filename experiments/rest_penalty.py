"""The rest-penalty story: what one-shot decoding, autoregressive decoding, a penalty on rests and temperature do to a
collapsed model and to ours.

    python -m experiments.rest_penalty [--run-dir runs/riff_2bar] [--samples 1000] [--seed 0]

The collapsed model repeats the published recipe, faults included: tokens without hold, the decoder sees the very token it
has to predict, reconstruction is a mean over tokens beside a summed KL, latents are not normalised, and 200 diffusion
steps use the betas meant for 1000. Ours is the run's own. Prints the table of the README as Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checkpoints import load_diffusion, load_same_riffs, load_vae
from config import DIFFUSION_FILE, HOLD, REST, VAE_FILE, DiffusionConfig, SampleConfig, TokenizerConfig, run_script
from dataset import load_riffs
from diffusion import Denoiser
from measures.metrics import distinct_share, notes_per_bar, rest_ratio
from models import kl_nats
from sampling import sample_riffs, token_probabilities

PLAIN = TokenizerConfig(hold_token=False)
Z, HIDDEN, TIMESTEPS = 32, 128, 200
SETTINGS = [
    ("autoregressive, argmax", SampleConfig(temperature=0)),
    *[(f"+ rest penalty {penalty}", SampleConfig(temperature=0, rest_penalty=penalty)) for penalty in (1, 2, 3, 4)],
    *[(f"+ temperature {t:g}, no penalty", SampleConfig(temperature=t)) for t in (1.0, 1.15, 1.3)],
    *[(f"+ temperature {t:g}, penalty 2", SampleConfig(temperature=t, rest_penalty=2)) for t in (1.0, 1.15, 1.3)],
]


# ---------------------------------------------------------------- the published recipe


class CollapsingVAE(nn.Module):
    """GRU VAE whose decoder reads the token it must predict: the shortest way to a low loss is to copy it and forget z."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PLAIN.vocab_size, HIDDEN)
        self.encoder = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.mu, self.logvar = nn.Linear(HIDDEN, Z), nn.Linear(HIDDEN, Z)
        self.first_state = nn.Linear(Z, HIDDEN)
        self.decoder = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, PLAIN.vocab_size)

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        last = self.encoder(self.embedding(tokens))[1][0]  # [B, H]
        return self.mu(last), self.logvar(last)

    def decode(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        output, state = self.decoder(self.embedding(inputs), state)
        return self.output(output), state

    def start(self, z: Tensor) -> Tensor:
        return self.first_state(z).unsqueeze(0)  # [1, B, H]


def train_collapsing(tokens: Tensor, steps: int, seed: int) -> tuple[CollapsingVAE, Denoiser, Tensor]:
    """Train both models of the published recipe. tokens: int64 [N, T]"""
    torch.manual_seed(seed)
    vae, rng = CollapsingVAE(), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = tokens[rng.integers(len(tokens), size=32)]
        mu, logvar = vae.encode(batch)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        logits, _ = vae.decode(batch, vae.start(z))  # not shifted
        loss = F.cross_entropy(logits.transpose(1, 2), batch) + 0.1 * kl_nats(mu, logvar).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        mu, logvar = vae.encode(tokens)
        print(f"published recipe: KL {kl_nats(mu, logvar).sum(dim=1).mean():.4f} nats, loss {float(loss):.4f} per token")
    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, TIMESTEPS), dim=0)
    print(f"published recipe: alphas_cumprod ends at {alphas_cumprod[-1]:.3f}")
    denoiser = Denoiser(Z, DiffusionConfig(hidden_size=HIDDEN, blocks=2, num_timesteps=TIMESTEPS))
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
    for _ in range(steps):
        x_0 = mu[rng.integers(len(mu), size=64)]
        t = torch.from_numpy(rng.integers(TIMESTEPS, size=len(x_0)))
        eps, abar = torch.randn_like(x_0), alphas_cumprod[t].unsqueeze(1)
        loss = F.mse_loss(denoiser(abar.sqrt() * x_0 + (1 - abar).sqrt() * eps, t), eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vae.eval(), denoiser.eval(), alphas_cumprod


@torch.inference_mode()
def collapsed_latents(denoiser: Denoiser, alphas_cumprod: Tensor, samples: int) -> Tensor:
    """DDPM sampling from pure noise, which this schedule never showed the model. -> [samples, Z]"""
    x = torch.randn(samples, Z)
    alphas = alphas_cumprod / torch.cat([torch.ones(1), alphas_cumprod[:-1]])
    for t in range(TIMESTEPS - 1, -1, -1):
        eps = denoiser(x, torch.full((samples,), t))
        x = (x - (1 - alphas[t]) / (1 - alphas_cumprod[t]).sqrt() * eps) / alphas[t].sqrt()
        if t:
            x = x + (1 - alphas[t]).sqrt() * torch.randn_like(x)
    return x


@torch.inference_mode()
def decode_collapsed(vae: CollapsingVAE, z: Tensor, sample: SampleConfig | None) -> np.ndarray:
    """One pass over rests with argmax (sample None), or one step at a time. -> int64 [B, T]"""
    if sample is None:
        inputs = torch.full((len(z), PLAIN.steps), REST)
        return vae.decode(inputs, vae.start(z))[0].argmax(dim=-1).numpy()
    state, before, tokens = vae.start(z), torch.full((len(z), 1), REST), []
    for _ in range(PLAIN.steps):
        logits, state = vae.decode(before, state)
        probabilities = token_probabilities(logits[:, 0], torch.ones(logits[:, 0].shape, dtype=torch.bool), sample)
        before = torch.multinomial(probabilities, 1)
        tokens.append(before)
    return torch.cat(tokens, dim=1).numpy()


# ---------------------------------------------------------------- ours


@torch.inference_mode()
def one_shot(vae, z: np.ndarray) -> np.ndarray:
    """All steps at once from z alone, every input hidden, argmax; a hold with nothing to hold becomes a rest. -> int64 [B, T]"""
    inputs = vae.embedding.start(len(z)).unsqueeze(1).expand(-1, vae.tokenizer.steps)
    tokens = vae.decoder(torch.from_numpy(z), inputs).argmax(dim=-1).numpy()
    for t in range(tokens.shape[1]):
        before = tokens[:, t - 1] if t else np.full(len(tokens), REST)
        tokens[(tokens[:, t] == HOLD) & (before == REST), t] = REST
    return tokens


# ---------------------------------------------------------------- table


def columns(tokens: np.ndarray, tokenizer: TokenizerConfig) -> str:
    silent = (rest_ratio(tokens) == 1).mean()
    return f"{rest_ratio(tokens).mean():.3f} | {notes_per_bar(tokens, tokenizer).mean():.1f} | {silent:.0%} | {distinct_share(tokens):.1%}"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run-dir", default="runs/riff_2bar", help="the run that is ours")
    parser.add_argument("--samples", type=int, default=1000, help="riffs per row")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of each model of the published recipe")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)

    run = Path(options.run_dir)
    vae, content = load_vae(run / VAE_FILE)
    diffusion, _ = load_diffusion(run / DIFFUSION_FILE, vae)
    riff_data = load_same_riffs(content, vae.tokenizer, "", run / VAE_FILE)
    plain = load_riffs(riff_data.config, PLAIN)
    collapsing, denoiser, alphas_cumprod = train_collapsing(torch.from_numpy(plain.train_tokens), options.steps, options.seed)
    z_collapsed = collapsed_latents(denoiser, alphas_cumprod, options.samples)
    seeds = range(options.seed, options.seed + options.samples)

    def ours(sample: SampleConfig | None) -> np.ndarray:
        if sample is None:
            return one_shot(vae, sample_riffs(vae, diffusion, seeds, SampleConfig(temperature=0))[1])
        return sample_riffs(vae, diffusion, seeds, dataclasses.replace(sample, prior="diffusion"))[0]

    head = "rests | notes per bar | silent | distinct"
    print(f"\n| decoding | published: {head} | ours: {head} |\n|---|{'---|' * 8}")
    print(f"| the riffs themselves | {columns(plain.train_tokens, PLAIN)} | {columns(riff_data.train_tokens, vae.tokenizer)} |")
    rows: list[tuple[str, SampleConfig | None]] = [("one shot, argmax", None), *SETTINGS]
    decode: Callable = decode_collapsed
    for name, sample in rows:
        print(
            f"| {name} | {columns(decode(collapsing, z_collapsed, sample), PLAIN)} | {columns(ours(sample), vae.tokenizer)} |", flush=True
        )
    return 0


if __name__ == "__main__":
    run_script(main)
