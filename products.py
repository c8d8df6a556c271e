"""Matrix products by weights that stay as they are: laid out once for oneDNN, where there is one, and used without gradients.

PyTorch multiplies float32 matrices with MKL, which on processors that are not Intel's reaches half of what oneDNN does. For layers of an
LSTM it takes oneDNN by itself; for single products one has to ask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Part = TypeVar("Part", bound=nn.Module)
Layout = TypeVar("Layout")


class Product:
    """x -> x W^T + b, many times.

    Args:
        weight: [outputs, inputs]
        bias: [outputs] or None.
        precision: what is multiplied; sums are float32 inside.
    """

    FEW = 4  # rows: up to so many, F.linear is quicker

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: torch.dtype = torch.float32) -> None:
        self.precision, self.bias = precision, None if bias is None else bias.to(precision)
        self.weight: Tensor | None = weight.to(precision).contiguous()
        self.packed = None
        if onednn_multiplies(weight.device.type, precision):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)
            if precision != torch.float32:
                self.weight = None  # only for few rows of float32 it is of use besides

    def __call__(self, x: Tensor) -> Tensor:
        """x: float32 [B, inputs] -> [B, outputs], in the precision multiplied in"""
        x = x.to(self.precision)
        if self.packed is None or (self.weight is not None and len(x) <= self.FEW):
            assert self.weight is not None
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


@functools.cache
def onednn_multiplies(device: str, precision: torch.dtype) -> bool:
    """Whether oneDNN is there for products of a precision."""
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return precision == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


_PREPARED: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()


@torch.no_grad()
def prepared(part: Part, layout: Callable[[Part, torch.dtype], Layout], precision: torch.dtype, *used: nn.Module) -> Layout:
    """The weights of a part, laid out; laid out again only when one of them has changed: in place, as load_state_dict
    and training.clip_and_step do (not through .data, nor by a fused optimizer alone, which PyTorch does not count). used: what else the
    layout is made of"""
    weights = [weight for module in (part, *used) for weight in module.parameters()]
    state = (precision, [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights])
    found = _PREPARED.get(part)
    if found is None or found[0] != state:
        _PREPARED.pop(part, None)
        with torch.autocast(weights[0].device.type, enabled=False):
            found = _PREPARED[part] = state, layout(part, precision)
    return found[1]
