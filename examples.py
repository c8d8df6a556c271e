"""What a VAE is trained on, a folder of riffs or windows of whole songs, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import dataset
from config import TOKEN_FILE, DataConfig, SongConfig, TokenizerConfig
from dataset import ExampleStream, RiffData, augmented_batch, load_riffs, training_stream
from family import corpus
from family.corpus import WindowData, load_windows
from family.resident import ResidentWindows, fits
from latents import as_steps

Batches = Callable[[int, int], Tensor]  # step and batch size -> steps


@dataclass(frozen=True)
class Examples:
    """Training examples in a seeded order, and the data that they are of."""

    data: RiffData | WindowData
    batch: Callable[[int, int], np.ndarray]  # step and batch size -> freshly augmented [batch_size, T] and more, a function of (seed, step)
    count: int  # training examples
    summary: str  # what was found, in a few lines
    songs: SongConfig
    known: tuple[np.ndarray, Sequence[str]]  # training examples that the checkpoint is to remember, and their names
    resident: Callable[[torch.device], Batches | None] | None = None  # `batch` on a device, if all of them fit there

    def batches(self, device: torch.device) -> Batches:
        """`batch` as the models take it, on the device where the examples live there."""
        there = self.resident(device) if self.resident else None
        return there or (lambda step, size: as_steps(self.batch(step, size)))


def load_examples(
    data: DataConfig, songs: SongConfig, tokenizer: TokenizerConfig, run_dir: Path, seed: int, may_change: bool = True
) -> Examples:
    """
    Args:
        run_dir: where a token file is kept.
        may_change: whether one that is there may be replaced by one with other windows.

    Raises:
        UserError: nothing to train on.
    """
    if not songs.songs:
        riffs = load_riffs(data, tokenizer)
        stream, known = training_stream(riffs, seed), (riffs.train_tokens, riffs.train_names)
        count = len(riffs.train_tokens)
        return Examples(riffs, lambda step, size: augmented_batch(riffs, stream, step, size), count, dataset.summary(riffs), songs, known)
    windows = load_windows(data, songs, tokenizer, run_dir / TOKEN_FILE, may_change)
    still = np.broadcast_to(np.int64(0), len(windows.train_index))  # they are transposed apart from the stream, by what is in a batch
    order = ExampleStream(still, still, seed)
    nothing = np.empty((0, tokenizer.steps), dtype=np.uint8), ()  # they stand in the token file of the run

    def batch(step: int, size: int) -> np.ndarray:
        return windows.batch(order.batch(step, size)[0], [seed, step])

    def resident(device: torch.device) -> Batches | None:
        if not fits(windows, device):
            return None
        there = ResidentWindows(windows, device)
        return lambda step, size: there.batch(order.batch(step, size)[0], [seed, step])

    cut = windows.songs_config
    other = [
        f"--{f.name.replace('_', '-')} {getattr(cut, f.name)}" for f in fields(songs) if getattr(cut, f.name) != getattr(songs, f.name)
    ]
    summary = corpus.summary(windows) + (f"\n      {data.data} was made with {', '.join(other)}: that counts here" if other else "")
    return Examples(windows, batch, len(still), summary, cut, nothing, resident)
