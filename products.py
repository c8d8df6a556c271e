"""Matrix products by weights that stay as they are: laid out once for oneDNN, where there is one, and used without gradients.

PyTorch multiplies float32 matrices with MKL, which on processors that are not Intel's reaches half of what oneDNN does. For layers of an
LSTM it takes oneDNN by itself; for single products one has to ask. TorchScript reads annotations as they stand, so nothing puts them off.
"""

import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FITTING = 512  # rows that are worked out together at most
LEAST = 256  # rows that are worth a thread of their own
Item = TypeVar("Item")
Result = TypeVar("Result")
Part = TypeVar("Part", bound=nn.Module)
Layout = TypeVar("Layout")


class Laid(NamedTuple):
    """A product's weights, laid out for some number of rows; see Product."""

    weight: Tensor  # [O, I]
    bias: Tensor | None  # [O]
    packed: bool  # by oneDNN, in a layout of its own
    one_row: bool


def multiply(x: Tensor, by: Laid) -> Tensor:
    """x W^T + b. [B, I] -> [B, O], all in the precision multiplied in"""
    if by.packed:
        return torch.ops.mkldnn._linear_pointwise(x, by.weight, by.bias, "none", [], "")
    if by.one_row:
        return _multiply_vector(x.squeeze(0), by.weight, by.bias).unsqueeze(0)
    return F.linear(x, by.weight, by.bias)


def _multiply_vector(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mv(weight, x) if bias is None else torch.addmv(bias, weight, x)


def multiply_into(x: Tensor, by: Laid, room: Tensor, add: bool) -> Tensor:
    """The product in float32.

    Args:
        x: [B, I], in the precision multiplied in.
        room: float32 [B, O]
        add: to what stands in the room; not with a bias.

    Returns:
        where it stands: in the room or, if it is not added, where that is quicker.
    """
    assert not add or by.bias is None
    if by.one_row:
        row, bias = room.squeeze(0), by.bias  # as x, refused where there are more
        if add:
            torch.addmv(row, by.weight, x.squeeze(0), out=row)
            return room
        if bias is not None:
            torch.addmv(bias, by.weight, x.squeeze(0), out=row)
            return room
    product = multiply(x, by)
    if add:
        return room.add_(product)
    return product if product.dtype == room.dtype else room.copy_(product)


class Product:
    """x -> x W^T + b, many times.

    Args:
        weight: [outputs, inputs]
        bias: [outputs] or None.
        precision: what is multiplied; sums are float32 inside.
    """

    FEW = 4  # rows: up to so many, F.linear is quicker, and for one a product of a matrix and a vector

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: torch.dtype = torch.float32) -> None:
        self.precision, bias = precision, None if bias is None else bias.detach().to(precision)
        weight = weight.detach().to(precision).contiguous()
        self._many = self._few = self._one = Laid(weight, bias, packed=False, one_row=False)
        if onednn_multiplies(weight.device.type, precision):
            self._many = Laid(torch.ops.mkldnn._reorder_linear_weight(weight, None), bias, packed=True, one_row=False)
            if precision == torch.float32:
                self._one = Laid(weight, bias, packed=False, one_row=True)
            else:
                self._few = self._one = self._many

    def laid(self, rows: int) -> Laid:
        """The weights, laid out for so many rows."""
        return self._one if rows == 1 else self._few if rows <= self.FEW else self._many

    def __call__(self, x: Tensor) -> Tensor:
        """x: [B, inputs] -> [B, outputs], in the precision multiplied in"""
        return multiply(x if x.dtype == self.precision else x.to(self.precision), self.laid(len(x)))


@functools.cache
def onednn_multiplies(device: str, precision: torch.dtype) -> bool:
    """Whether oneDNN is there for products of a precision."""
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return precision == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


_PREPARED: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()
_PREPARING = threading.RLock()  # of several threads one lays weights out, and the others wait for it


@torch.no_grad()
def prepared(part: Part, layout: Callable[[Part, torch.dtype], Layout], precision: torch.dtype, *used: nn.Module) -> Layout:
    """The weights of a part, laid out; laid out again only when one of them has changed: in place, as load_state_dict
    and training.clip_and_step do (not through .data, nor by a fused optimizer alone, which PyTorch does not count). used: what else the
    layout is made of"""
    weights = [weight for module in (part, *used) for weight in module.parameters()]
    state = (precision, [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights])
    with _PREPARING:
        found = _PREPARED.get(part)
        if found is None or found[0] != state:
            _PREPARED.pop(part, None)
            with torch.autocast(weights[0].device.type, enabled=False):
                found = _PREPARED[part] = state, layout(part, precision)
        return found[1]


def layouts(model: nn.Module) -> list[Any]:
    """What is laid out now of a model's parts, itself left out."""
    return [_PREPARED[part] for part in model.modules() if part is not model and part in _PREPARED]


# ---------------------------------------------------------------- side by side

_STOP = threading.local()  # .event: whether a thread of in_threads shall stop


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> list[Result]:
    """The result for each of some chunks, worked out side by side on as many CPU threads as PyTorch may use, one for each chunk: the
    products of 64 rows are too small to be shared (two threads: 1.5 times as quick as sharing them).

    A single chunk has one thread too: MKL rounds otherwise with two, and what a seed gives would hang on how many others there are.
    """
    if device.type != "cpu":
        return [work(item) for item in items]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # new threads begin with it
    try:
        if min(threads, len(items)) < 2:
            return [work(item) for item in items]
        stop = threading.Event()
        with ThreadPoolExecutor(threads, initializer=functools.partial(setattr, _STOP, "event", stop)) as pool:
            try:
                return list(pool.map(work, items))
            except BaseException:
                stop.set()  # leaving the pool waits for what is under way
                raise
    finally:
        torch.set_num_threads(threads)


def stop_if_asked() -> None:
    """For long work in a thread: goes no further where the result is not waited for any more.

    Raises:
        InterruptedError: so it is.
    """
    event = getattr(_STOP, "event", None)
    if event is not None and event.is_set():
        raise InterruptedError


def in_parts(work: Callable[[slice], Tensor], rows: int, device: torch.device) -> Tensor:
    """What is made of many rows, side by side in parts of one size on a CPU.

    Args:
        work: makes a tensor [rows of the slice, ...].

    Returns:
        [rows, ...]
    """
    if rows <= FITTING or device.type != "cpu":
        return work(slice(0, rows))
    parts = max(-(-rows // FITTING), min(torch.get_num_threads(), rows // LEAST))
    ends = [rows * part // parts for part in range(parts + 1)]
    return torch.cat(in_threads(work, [slice(*pair) for pair in itertools.pairwise(ends)], device))
