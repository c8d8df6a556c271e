"""What is measured on trained models: losses and accuracies on music they know and music they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

import training
from config import VAETrainConfig
from language_model import LanguageModel
from latents import as_steps, encoder_steps
from measures.metrics import active_units, step_accuracies
from models import Draws, MusicVAE, kl_cost, kl_nats
from pieces import IGNORED
from sampling import reconstruct

DRAWS = 1  # purpose of random numbers
EVALUATED_TOGETHER = 16  # pieces of a language model
EVALUATED_TOKENS = 512  # of each at a time; the state goes on
MAX_EVALUATED = 4096  # riffs looked at in one evaluation


def some_of(tokens: np.ndarray) -> np.ndarray:
    """All riffs, or of many a fixed random choice. tokens: int [riffs, T]"""
    if len(tokens) <= MAX_EVALUATED:
        return tokens
    return tokens[np.sort(np.random.default_rng(training.EVALUATION_SEED).choice(len(tokens), MAX_EVALUATED, replace=False))]


@torch.inference_mode()
def evaluate(model: MusicVAE, tokens: np.ndarray, train: VAETrainConfig, device: torch.device, chunk: int = 256) -> dict[str, float]:
    """Teacher-forced numbers on some riffs or windows, without word dropout, z drawn from q(z|x) with the evaluation's own seed.

    Returns:
        reconstruction, kl and negative_elbo in nats per riff; objective (reconstruction + beta * KL, what training
        lowers); accuracy. Means over riffs, whatever the chunk.
    """
    was_training = model.training
    model.eval()
    shown = as_steps(some_of(tokens))
    given = encoder_steps(shown, model.tokenizer)
    noise = torch.randn(len(shown), model.config.z_size, generator=training.generator(training.EVALUATION_SEED, DRAWS))
    sums = torch.zeros(4, dtype=torch.float64)
    for some, seen, eps in zip(shown.split(chunk), given.split(chunk), noise.split(chunk), strict=True):
        some = some.to(device)
        logits, mu, logvar = model(some, Draws(noise=eps.to(device)), seen.to(device))
        kl = kl_nats(mu, logvar)
        right = model.embedding.right(model.embedding.likeliest(logits), some).float().mean(dim=1)
        parts = [model.reconstruction_nats(logits, some), kl.sum(dim=1), kl_cost(kl, train.free_bits), right]
        sums += torch.stack([part.sum() for part in parts]).double().cpu()
    model.train(was_training)
    reconstruction, kl_total, cost, accuracy = (sums / len(shown)).tolist()
    return {
        "reconstruction": reconstruction,
        "kl": kl_total,
        "negative_elbo": reconstruction + kl_total,
        "objective": reconstruction + train.beta * cost,
        "accuracy": accuracy,
    }


# ---------------------------------------------------------------- the summary at the end


@torch.inference_mode()
def final_figures(
    model: MusicVAE, music: Mapping[str, np.ndarray], train: VAETrainConfig, device: torch.device, apart: float = 0.0
) -> dict[str, dict[str, float]]:
    """Everything a reader wants to know of a trained VAE, for the training and the held-out music.

    Free-running figures decode from the posterior mean at temperature 0; the sampled ones from a draw of q(z|x) at temperature 1.
    `onset_accuracy_other_z` decodes each riff from the z of another one: the distance to it says how much of the riff z carries. Where
    hits are given, there are errors of velocities (0..1) and offsets (half steps) instead, from the riff's own z and another's.

    Args:
        music: steps by what they are called; what is empty is passed over.
        apart: how far in the list the other one is, as a share of it; 0 is the next. Windows of one song overlap.
    """
    model.eval()
    figures = {}
    for name, tokens in music.items():
        if not len(tokens):
            continue
        shown = as_steps(some_of(tokens))
        encoded = [model.encoder(some.to(device)) for some in encoder_steps(shown, model.tokenizer).split(256)]
        mu, logvar = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        noise = torch.randn(mu.shape, generator=training.generator(training.EVALUATION_SEED, DRAWS)).to(device)
        drawn = reconstruct(model, shown, z=mu + torch.exp(0.5 * logvar) * noise, temperature=1.0, seed=training.EVALUATION_SEED).numpy()
        sampled = step_accuracies(drawn, shown.numpy(), model.tokenizer)
        free = step_accuracies(reconstruct(model, shown, z=mu).numpy(), shown.numpy(), model.tokenizer)
        other = step_accuracies(
            reconstruct(model, shown, z=mu.roll(max(1, round(apart * len(mu))), dims=0)).numpy(), shown.numpy(), model.tokenizer
        )
        forced = evaluate(model, tokens, train, device)
        figures[name] = {
            **{key: forced[key] for key in ("reconstruction", "kl", "negative_elbo")},
            "active_units": active_units(mu.cpu().numpy()),
            "accuracy": forced["accuracy"],
        }
        if model.tokenizer.given == "hits":  # those come back whatever the model does; how they are played is its own
            errors = ("velocity_error", "offset_error")
            figures[name] |= {f"free_{key}": free[key] for key in errors} | {f"{key}_other_z": other[key] for key in errors}
            continue
        figures[name] |= {
            "free_accuracy": free["accuracy"],
            "onset_accuracy": free["onset_accuracy"],
            "free_accuracy_sampled": sampled["accuracy"],
            "onset_accuracy_sampled": sampled["onset_accuracy"],
            "onset_accuracy_other_z": other["onset_accuracy"],
            "exact": free["exact"],
            **{f"free_{name}": value for name, value in free.items() if name not in ("accuracy", "onset_accuracy", "exact")},
        }
    return figures


FIGURE_LABELS = {
    "reconstruction": "reconstruction, nats per riff",
    "kl": "KL, nats per riff",
    "negative_elbo": "-ELBO, nats per riff",
    "active_units": "active units of z",
    "accuracy": "accuracy, teacher-forced (z drawn)",
    "free_accuracy": "accuracy, free-running (z mean)",
    "onset_accuracy": "onset accuracy, free-running",
    "free_accuracy_sampled": "accuracy, free-running (z, T = 1)",
    "onset_accuracy_sampled": "onset accuracy, the same",
    "onset_accuracy_other_z": "onset accuracy from another riff's z",
    "exact": "riffs returned exactly",
}


def print_summary(figures: dict[str, dict[str, float]], noun: str = "riff") -> None:
    """All figures, one line each. noun: what they are of"""
    print(f"\n{'':38s}" + "".join(f"{name:>10s}" for name in figures))
    for key, label in FIGURE_LABELS.items():
        if key not in figures["train"]:
            continue
        print(f"{label.replace('riff', noun):38s}" + "".join(f"{columns[key]:10.3g}" for columns in figures.values()))
    for key in next(iter(figures.values())):
        if key not in FIGURE_LABELS:
            print(f"{key.replace('_', ' '):38s}" + "".join(f"{columns[key]:10.3g}" for columns in figures.values()))
    if figures["train"]["kl"] < 1:
        print("the KL is near zero: z carries nothing and this run has failed; lower --beta or raise --word-dropout")


# ---------------------------------------------------------------- language models


@torch.inference_mode()
def evaluate_pieces(model: LanguageModel, pieces: Sequence[np.ndarray], device: torch.device) -> dict[str, float]:
    """How well whole pieces are predicted, each from its BOS on with the state carried along.

    Returns:
        loss: nats per token, mean over all tokens but BOS; perplexity: its exponential; accuracy; nats_per_piece.
    """
    was_training = model.training
    model.eval()
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
    totals = torch.zeros(3, dtype=torch.float64)
    for first in range(0, len(order), EVALUATED_TOGETHER):
        some = [torch.from_numpy(pieces[i]) for i in order[first : first + EVALUATED_TOGETHER]]
        inputs = torch.nn.utils.rnn.pad_sequence([piece[:-1] for piece in some], batch_first=True)
        targets = torch.nn.utils.rnn.pad_sequence([piece[1:] for piece in some], batch_first=True, padding_value=IGNORED)
        state = None
        for begin in range(0, inputs.shape[1], EVALUATED_TOKENS):
            part = slice(begin, begin + EVALUATED_TOKENS)
            logits, state = model(inputs[:, part].to(device), state)
            wanted = targets[:, part].to(device)
            nats = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
            right = (logits.argmax(dim=-1) == wanted).sum()
            totals += torch.stack([nats.double(), right.double(), (wanted != IGNORED).sum().double()]).cpu()
    model.train(was_training)
    nats, right, count = totals.tolist()
    return {"loss": nats / count, "perplexity": perplexity(nats / count), "accuracy": right / count, "nats_per_piece": nats / len(pieces)}


def perplexity(nats: float) -> float:
    """exp of nats per token; inf where that is too large to write."""
    return math.exp(nats) if nats < 700 else math.inf
