"""A pretended GPU: real numbers on the CPU, of which every tensor knows whether it would be on the GPU.

Within :func:`pretended_gpu`, tensors that were put on ``cuda`` say so, operations on tensors of both devices raise as
they do on CUDA, and whatever makes the host wait for the GPU is noted with its place. Autograd, optimisers and models
run as they are, so that results can be compared with the CPU's. It sees no kernels, memory or streams.

CUDA graphs are pretended too: what is captured is noted operation by operation, and replayed on the same tensors.
Mixed precision is the CPU's, which rounds products as CUDA's does.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

import latentwire

PACKAGE = f"{Path(latentwire.__file__).parent}/"
GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
READ, TO_CPU, TO_GPU, INDEX = "read", "copy to the CPU", "copy to the GPU", "boolean index"
# Operations that take tensors of both devices.
COPIES = {"copy_", "_to_copy"}
# Those that take indices from the CPU, and wait if one is a mask, whose positions have to be counted.
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Those whose result, or its shape, the host has to know; with what a wait for it is called.
WAITS = {
    "_local_scalar_dense": READ,
    **{name: name for name in ("equal", "nonzero", "masked_select", "bincount", "repeat_interleave")},
    **dict.fromkeys(("_unique2", "unique_dim", "unique_consecutive"), "unique"),
}
# The same in Python; in inference mode no operation is seen below them.
READS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__contains__", "__format__"}
# Factories that copy what they are given.
GIVEN = {"tensor", "as_tensor", "asarray"}


class DeviceMismatch(RuntimeError):
    """Tensors of both devices met."""


@dataclass(frozen=True)
class Wait:
    """What made the host wait for the GPU: an operation, where in the package (or else in the test) it was called."""

    operation: str
    file: str
    line: int
    function: str


class Graph:
    """What ``torch.cuda.CUDAGraph`` is: operations on tensors that stay where they are, to be done again."""

    def __init__(self) -> None:
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.replays = 0

    def pool(self) -> tuple[int, int]:
        """The memory that graphs share."""
        return (0, 0)

    def replay(self) -> None:
        """Do all of it again. A capture runs nothing on a GPU and did here: that is the first replay."""
        self.replays += 1
        if self.replays == 1:
            return
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            for operation, args, kwargs, results in self.operations:
                again = operation(*args, **kwargs)
                for old, new in zip(_tensors(results), _tensors(again), strict=True):
                    if old is not new and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@dataclass
class Pretended:
    """What is on the GPU, and what has happened.

    Attributes:
        waits: in their order.
        operations: how many ran on the GPU.
        graphs: that were captured.
        capturing: the one that is being captured.
        reading: whether numbers are being read, which was noted.
    """

    waits: list[Wait] = field(default_factory=list)
    operations: int = 0
    graphs: list[Graph] = field(default_factory=list)
    capturing: Graph | None = None
    reading: bool = False
    _here: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on the GPU."""
        return tensor in self._here

    def put(self, result: Any) -> Any:
        """The same, with all its tensors on the GPU."""
        for tensor in _tensors(result):
            self._here[tensor] = True
        return result

    def place(self, result: Any, on_gpu: bool) -> Any:
        """The same, on the GPU if asked."""
        return self.put(result) if on_gpu else result

    def wait(self, operation: str) -> None:
        """Note that the host waits.

        Raises:
            RuntimeError: a graph is being captured, in which nothing can wait.
        """
        found = Wait(operation, *_caller())
        if self.capturing is not None:
            raise RuntimeError(f"operation not permitted when a graph is captured: {found}")
        self.waits.append(found)

    def counts(self) -> Counter[str]:
        """How many waits there were of each operation."""
        return Counter(wait.operation for wait in self.waits)

    @contextmanager
    def read(self) -> Iterator[None]:
        """While the host reads numbers."""
        before, self.reading = self.reading, True
        try:
            yield
        finally:
            self.reading = before

    @contextmanager
    def capture(self, graph: Graph, pool: Any = None) -> Iterator[None]:
        """What ``torch.cuda.graph`` is."""
        self.capturing = graph
        self.graphs.append(graph)
        try:
            yield
        finally:
            self.capturing = None


def _tensors(*nests: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(nests) if isinstance(leaf, torch.Tensor)]


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _caller() -> tuple[str, int, str]:
    """The innermost line of the package; if there is none, of what is neither torch nor this module."""
    frame: FrameType | None = sys._getframe(1)
    other = ("?", 0, "?")
    while frame is not None:
        name, code = frame.f_code.co_filename, frame.f_code
        if name.startswith(PACKAGE):
            return name.removeprefix(PACKAGE), frame.f_lineno, code.co_name
        if other[1] == 0 and "/torch/" not in name and name != __file__:
            other = (name.rpartition("/")[2], frame.f_lineno, code.co_name)
        frame = frame.f_back
    return other


class _Operations(TorchDispatchMode):
    """Every operation that computes, those of the backward pass among them."""

    def __init__(self, world: Pretended) -> None:
        super().__init__()
        self.world = world

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        world, kwargs = self.world, dict(kwargs or {})
        name = func._schema.name.partition("::")[2]
        own = [world.has(tensor) for tensor in _tensors(args, kwargs)]
        if any(own):
            world.operations += 1
            self._check(name, args, kwargs)
        device = kwargs.get("device")
        if _is_gpu(device):
            kwargs["device"] = CPU
        results = func(*args, **kwargs)
        if world.capturing is not None:
            world.capturing.operations.append((func, args, kwargs, results))
        if name == "copy_":
            return results
        # Where a result is like a tensor, autograd hands on that tensor's device, which is the CPU in truth. Moves that
        # are asked for in Python are placed there.
        if device is not None and not (name == "_to_copy" or name.startswith("new_") or name.endswith("_like")):
            return world.place(results, _is_gpu(device))
        return world.place(results, any(own))

    def _check(self, name: str, args: Any, kwargs: Any) -> None:
        """Raise or wait, as CUDA would. A single number on the CPU may meet tensors of the GPU."""
        world, tensors = self.world, _tensors(args, kwargs)
        if name == "copy_":
            target, source = map(world.has, tensors[:2])
            if target != source and not self._goes_on(args, kwargs):
                world.wait(TO_GPU if target else TO_CPU)
        if name in WAITS and not world.reading:
            world.wait(WAITS[name])
        if name in INDEXED and any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1])):
            world.wait(INDEX)
        indexed = name in INDEXED and world.has(args[0])
        compared = [args[0], *_tensors(args[2:])] if indexed else tensors
        strangers = [tensor for tensor in compared if not world.has(tensor) and tensor.dim() > 0]
        if strangers and name not in COPIES:
            shapes = [tuple(tensor.shape) for tensor in strangers]
            raise DeviceMismatch(f"{name}: tensors on cuda:0 and cpu; those on the CPU have the shapes {shapes}")

    def _goes_on(self, args: Any, kwargs: Any) -> bool:
        """Whether a copy to the GPU was asked for without waiting."""
        return self.world.has(args[0]) and bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))


class _Functions(TorchFunctionMode):
    """What is asked for in Python: where tensors are, moves, and reads of their memory."""

    def __init__(self, world: Pretended) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        world, kwargs = self.world, dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensors = _tensors(args, kwargs)
        on_gpu = bool(tensors) and world.has(tensors[0])
        if name == "__get__":
            return self._attribute(getattr(func, "__self__", None), args[0], func, args, kwargs)
        if name in ("numpy", "__array__") and on_gpu:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name in READS and on_gpu:
            world.wait(READ)
            with world.read():
                return func(*args, **kwargs)
        if name in ("to", "cpu", "cuda"):
            return self._moved(name, args, kwargs)
        if _is_gpu(kwargs.get("device")):
            if name in GIVEN and not on_gpu:
                world.wait(TO_GPU)
            return world.put(func(*args, **kwargs | {"device": CPU}))
        results = func(*args, **kwargs)
        return world.place(results, on_gpu) if name in ("detach", "requires_grad_") else results

    def _attribute(self, attribute: Any, tensor: torch.Tensor, func: Any, args: Any, kwargs: Any) -> Any:
        here = self.world.has(tensor)
        if attribute is torch.Tensor.device and here:
            return GPU
        if attribute is torch.Tensor.is_cuda:
            return here
        found = func(*args, **kwargs)
        own = attribute in (torch.Tensor.grad, torch.Tensor.data) and found is not None
        return self.world.place(found, own and here)

    def _moved(self, name: str, args: Any, kwargs: Any) -> torch.Tensor:
        """What ``to``, ``cpu`` and ``cuda`` return."""
        world, tensor = self.world, args[0]
        here = GPU if world.has(tensor) else CPU
        target = {"cpu": CPU, "cuda": GPU}.get(name, here)
        options, rest = dict(kwargs), []
        for value in (*args[1:], *([options.pop("device")] if options.get("device") is not None else [])):
            if isinstance(value, (torch.device, str)):
                target = torch.device(value)
            elif isinstance(value, torch.Tensor):
                target, options["dtype"] = (GPU if world.has(value) else CPU), value.dtype
            else:
                rest.append(value)
        crosses = target.type != here.type
        if crosses and not (target.type == "cuda" and options.get("non_blocking")):
            world.wait(TO_GPU if target.type == "cuda" else TO_CPU)
        options = options if name == "to" else {}
        if crosses:
            options["copy"] = True
        with torch._C.DisableTorchFunctionSubclass():
            moved = torch.Tensor.to(tensor, *rest, **options) if rest or options else tensor
        if target.type == "cpu" and moved is not tensor:
            world._here.pop(moved, None)
        return world.place(moved, target.type == "cuda")


def _module_to(world: Pretended) -> Callable[..., torch.nn.Module]:
    """``Module.to``, which moves parameters in place."""
    move = torch.nn.Module.to

    def moved(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        devices = [value for value in (*args, kwargs.get("device")) if isinstance(value, (torch.device, str))]
        if any(map(_is_gpu, devices)):
            world.put([*module.parameters(), *module.buffers()])
        rest = [value for value in args if not isinstance(value, (torch.device, str))]
        return move(module, *rest) if rest else module

    return moved


def _grouped(world: Pretended) -> Callable[..., Any]:
    """How optimisers and the clipping of gradients sort tensors, which they do in C++."""
    group = torch._C._group_tensors_by_device_and_dtype

    def grouped(tensors: Any, with_indices: bool = False) -> Any:
        found = group(tensors, with_indices)
        on_gpu = any(map(world.has, _tensors(tensors)))
        return {(GPU if on_gpu else device, dtype): own for (device, dtype), own in found.items()}

    return grouped


def varlen_attention(
    query_THE: torch.Tensor,
    key_THE: torch.Tensor,
    value_THE: torch.Tensor,
    ends: torch.Tensor,
    *_: Any,
    scale: float,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """What CUDA's kernel for sequences one after another gives, by a mask of all pairs."""
    assert window_size == (-1, 0), "causal"
    place_T = torch.arange(len(query_THE), device=query_THE.device)
    owner_T = torch.searchsorted(ends, place_T, right=True)
    mask_TT = (owner_T[:, None] == owner_T) & (place_T[:, None] >= place_T)
    heads_first = (own.transpose(0, 1)[None] for own in (query_THE, key_THE, value_THE))
    read_1HTE = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=mask_TT, scale=scale)
    return read_1HTE[0].transpose(0, 1)


@contextmanager
def pretended_gpu() -> Iterator[Pretended]:
    """A world in which ``torch.device("cuda")`` works."""
    world, state, autocast = Pretended(), torch.zeros(16, dtype=torch.uint8), torch.autocast
    instead = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.is_current_stream_capturing": lambda: world.capturing is not None,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.get_device_name": lambda device=None: "a pretended GPU",
        "torch.cuda.synchronize": lambda device=None: None,
        "torch.cuda.max_memory_allocated": lambda device=None: 0,
        "torch.cuda.reset_peak_memory_stats": lambda device=None: None,
        "torch.cuda.get_rng_state": lambda device=None: state,
        "torch.cuda.set_rng_state": lambda new, device=None: None,
        "torch.cuda.CUDAGraph": Graph,
        "torch.cuda.graph": world.capture,
        "torch._C._group_tensors_by_device_and_dtype": _grouped(world),
        "torch.nn.attention.varlen.varlen_attn": varlen_attention,
        "torch.autocast": lambda device_type, **options: autocast("cpu", **options),
        "torch.nn.Module.to": _module_to(world),
    }
    with ExitStack() as stack:
        for name, own in instead.items():
            stack.enter_context(mock.patch(name, own))
        stack.enter_context(_Operations(world))
        stack.enter_context(_Functions(world))
        yield world
