"""Training windows that live on a device, all of them: what travels at a step is which windows, and by how much they are transposed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from config import HOLD, REST
from family.corpus import WindowData, drawn_shift, shift_bounds

TOGETHER = 1 << 18  # windows that are carried over together
SHARE = 0.25  # of a device's free memory that windows may take; while they are put together it is twice as much


class ResidentWindows:
    """As WindowData's training windows, and the same numbers, on a device.

    Args:
        windows: of any representation.
    """

    def __init__(self, windows: WindowData, device: torch.device) -> None:
        self.windows, self.device = windows, device
        self.is_groove = windows.tokenizer.representation == "groove"
        moves = bool(windows.config.transpose) and windows.tokenizer.representation in ("mono", "trio")
        tokens, bounds = [], []
        for first in range(0, len(windows.train_index), TOGETHER):
            some = windows.tokens[windows.train_index[first : first + TOGETHER]]
            # a byte or two a step, as in the token file; but PyTorch hardly knows uint16
            tokens.append(torch.from_numpy(some.astype(np.int16) if some.dtype == np.uint16 else some).to(device))
            if moves:
                bounds.append(np.stack(shift_bounds(some.astype(np.int64), windows.config)).astype(np.int8))
        self.tokens = torch.cat(tokens)  # [windows, T] and more
        self.bounds = np.concatenate(bounds, axis=1) if moves else None  # int8 [2, windows], on the CPU

    def batch(self, index: np.ndarray, seed: Sequence[int]) -> Tensor:
        """As WindowData.batch, on the device. -> int64 or float32 [B, T] and more"""
        rows = torch.from_numpy(index).to(self.device)
        steps = self.tokens.index_select(0, rows)
        if self.is_groove:
            return steps.float()
        steps = steps.long()
        if self.bounds is None:
            return steps
        least, most = self.bounds[:, index].astype(np.int64)
        drawn = drawn_shift(least, most, self.windows.uniform(len(index), seed))
        shift = torch.from_numpy(drawn).to(self.device).unsqueeze(1)  # [B, 1]
        if steps.dim() == 2:
            return shifted(steps, shift)
        return torch.stack([*(shifted(steps[..., line], shift) for line in (0, 1)), steps[..., 2]], dim=-1)


def shifted(line: Tensor, shift: Tensor) -> Tensor:
    """As dataset.transpose. line: int64 [B, T]; shift: int64 [B, 1]"""
    return torch.where((line != REST) & (line != HOLD), line + shift, line)


def fits(windows: WindowData, device: torch.device) -> bool:
    """Whether the training windows fit into a GPU's memory with room to spare; on a CPU they are mapped from their file instead."""
    if device.type != "cuda" or windows.tokenizer.given != "all":  # what is given of a window is made on the CPU
        return False
    return len(windows.train_index) * windows.tokens[:1].nbytes < SHARE * torch.cuda.mem_get_info(device)[0]
