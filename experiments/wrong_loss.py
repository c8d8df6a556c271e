"""Train a groove model with the loss of a categorical decoder, as the fourth reference document once did: it does not converge.

python -m experiments.wrong_loss [the options of train_vae.py]

The 27 numbers of a step are taken for the classes of one softmax, and what was played, velocities and offsets included, for their weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

import graphs
import stepwise
import train_vae
from config import run_script
from heads import DRUMS, GrooveEmbedding


def softmax_nats(self: GrooveEmbedding, logits: Tensor, steps: Tensor) -> Tensor:
    """Cross-entropy against weights that are no distribution. logits, steps: [B, T, 27] -> [B, T]"""
    return -(steps * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def one_class(logits: Tensor) -> Tensor:
    """What such a decoder writes: the likeliest of the 27 alone, which is a hit if it is one of the first nine. [..., 27]"""
    winner = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    return torch.cat([winner[..., :DRUMS], torch.zeros_like(winner[..., DRUMS:])], dim=-1)


def drawn_class(logits: Tensor, uniform: Tensor, temperature: float, spread: Tensor | None) -> Tensor:
    """In place of stepwise.draw_groove: the same with one of the 27 drawn. logits: [B, 27]; uniform: [B, 9], of which the first is used"""
    if temperature:
        drawn = stepwise.drawn_at((logits / temperature).softmax(dim=-1), uniform[:, :1].double())
        logits = F.one_hot(drawn, logits.shape[-1]).to(logits.dtype)
    return one_class(logits)


@contextmanager
def wrong_loss() -> Iterator[None]:
    """Inside, groove models have that loss, and write as it says, as plain Python."""
    right = GrooveEmbedding.nats, GrooveEmbedding.likeliest, stepwise.draw_groove, graphs.SCRIPTS
    GrooveEmbedding.nats, GrooveEmbedding.likeliest = softmax_nats, lambda self, logits: one_class(logits)  # type: ignore[method-assign]
    stepwise.draw_groove, graphs.SCRIPTS = drawn_class, False  # type: ignore[assignment]
    try:
        yield
    finally:
        GrooveEmbedding.nats, GrooveEmbedding.likeliest, stepwise.draw_groove, graphs.SCRIPTS = right  # type: ignore[method-assign]


def main(argv: Sequence[str]) -> int:
    with wrong_loss():
        return train_vae.main(argv)


if __name__ == "__main__":
    run_script(main)
