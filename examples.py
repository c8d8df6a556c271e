"""What a VAE is trained on, a folder of riffs or windows of whole songs, behind one face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import dataset
from config import TOKEN_FILE, DataConfig, SongConfig, TokenizerConfig
from dataset import ExampleStream, FileRow, RiffData, augmented_batch, load_riffs, training_stream
from family import corpus
from family.corpus import WindowData, load_windows


class Examples(Protocol):
    """Training examples in a seeded order, and what is held out."""

    @property
    def fingerprint(self) -> str:
        """Changes when an example or the split does."""
        ...

    @property
    def folder(self) -> str: ...
    @property
    def config(self) -> DataConfig: ...
    @property
    def songs(self) -> SongConfig: ...
    @property
    def rows(self) -> list[FileRow]: ...
    @property
    def count(self) -> int:
        """Training examples."""
        ...

    @property
    def held_out(self) -> np.ndarray:
        """Steps of what is held out. [windows, T] and more"""
        ...

    @property
    def shown(self) -> dict[str, np.ndarray]:
        """What final figures are about."""
        ...

    def summary(self) -> str:
        """What was found, in a few lines."""
        ...

    def batch(self, step: int, batch_size: int) -> np.ndarray:
        """The examples of one optimizer step, freshly augmented: a function of (seed, step). [batch_size, T] and more"""
        ...

    def defaults(self) -> dict[str, Any]:
        """What generated music inherits."""
        ...

    def known(self) -> tuple[np.ndarray, Sequence[str]]:
        """Training examples that the checkpoint is to remember, and their names."""
        ...


@dataclass(frozen=True)
class RiffExamples:
    """A folder of riffs: mixed, rotated and transposed."""

    data: RiffData
    seed: int

    @property
    def config(self) -> DataConfig:
        return self.data.config

    @property
    def songs(self) -> SongConfig:
        return SongConfig()

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    @property
    def folder(self) -> str:
        return self.data.folder

    @property
    def rows(self) -> list[FileRow]:
        return self.data.rows

    @property
    def count(self) -> int:
        return len(self.data.train_tokens)

    @property
    def held_out(self) -> np.ndarray:
        return self.data.held_out_tokens

    @property
    def shown(self) -> dict[str, np.ndarray]:
        return self.data.shown

    @cached_property
    def _stream(self) -> ExampleStream:
        return training_stream(self.data, self.seed)

    def summary(self) -> str:
        return dataset.summary(self.data)

    def batch(self, step: int, batch_size: int) -> np.ndarray:
        return augmented_batch(self.data, self._stream, step, batch_size)

    def defaults(self) -> dict[str, Any]:
        return self.data.defaults()

    def known(self) -> tuple[np.ndarray, Sequence[str]]:
        return self.data.train_tokens, self.data.train_names


@dataclass(frozen=True)
class WindowExamples:
    """Windows of songs, out of a token file: transposed."""

    data: WindowData
    seed: int

    @property
    def config(self) -> DataConfig:
        return self.data.config

    @property
    def songs(self) -> SongConfig:
        return self.data.songs_config

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    @property
    def folder(self) -> str:
        return self.data.folder

    @property
    def rows(self) -> list[FileRow]:
        return self.data.rows

    @property
    def count(self) -> int:
        return len(self.data.train_index)

    @property
    def held_out(self) -> np.ndarray:
        return self.data.held_out_tokens

    @property
    def shown(self) -> dict[str, np.ndarray]:
        return self.data.shown

    @cached_property
    def _stream(self) -> ExampleStream:
        still = np.broadcast_to(np.int64(0), self.count)
        return ExampleStream(still, still, self.seed)

    def summary(self) -> str:
        return corpus.summary(self.data)

    def batch(self, step: int, batch_size: int) -> np.ndarray:
        index, _ = self._stream.batch(step, batch_size)
        return self.data.batch(index, [self.seed, step])

    def defaults(self) -> dict[str, Any]:
        return self.data.defaults()

    def known(self) -> tuple[np.ndarray, Sequence[str]]:
        return np.empty((0, self.data.tokenizer.steps), dtype=np.uint8), ()  # they stand in the token file of the run


def load_examples(
    data: DataConfig, songs: SongConfig, tokenizer: TokenizerConfig, run_dir: Path, seed: int, may_change: bool = True
) -> RiffExamples | WindowExamples:
    """
    Args:
        run_dir: where a token file is kept.
        may_change: whether one that is there may be replaced by one with other windows.

    Raises:
        UserError: nothing to train on.
    """
    if songs.songs:
        return WindowExamples(load_windows(data, songs, tokenizer, run_dir / TOKEN_FILE, may_change), seed)
    return RiffExamples(load_riffs(data, tokenizer), seed)
