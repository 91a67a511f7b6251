"""A device that is none: tensors "on" it live in main memory and are computed by the CPU, under an accelerator's rules.

What an accelerator forbids, waits for or counts can so be tested where there is none. A `_Tensor` wraps the CPU tensor
that holds its numbers; every operation on it comes to `__torch_dispatch__`, which checks the rules, counts, runs the
CPU's own kernel and wraps what that gives. So numbers are those of the CPU, bit for bit; what differs are the rules:

- tensors of two devices meet in no operation; a CPU tensor without dimensions and indices on the CPU may come;
- there is no way to NumPy but over `.cpu()`;
- under "mps" there is no float64;
- under `limit` there is so much memory, and `torch.OutOfMemoryError` beyond it.

`counting` tells launched kernels and waits. It cannot show how an accelerator rounds, nor races, nor times.
It stands on PrivateUse1, PyTorch's key for devices that are added from outside, in its experimental Python form.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils import backend_registration

from tests.support.ledger import Block, allocated, counting, launch, limit, peak, wait

__all__ = ["NAME", "allocated", "counting", "limit", "peak", "rules"]

NAME = "pretend"
DEVICES = 2
MATH = 9  # kernels of attention that is not fused: two scalings, two products, a mask, a softmax and what lies between
KERNELS = {"logsumexp": 6, "sort": 3, "nonzero": 3, "topk": 2, "cumsum": 2, "std": 2}  # others are counted as one
WAIT = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero")
INDEX = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
NUMBERS = ("where", "fill", "fill_", "masked_fill", "masked_fill_", "_foreach_mul_")  # take numbers that lie on the CPU
aten = torch.ops.aten


class _World:
    """The state of all pretended devices."""

    def __init__(self) -> None:
        self.library: Any = None
        self.float64 = True
        self.failed: list[Exception] | None = None  # in the backward pass that runs
        self.lawless = False


_w = _World()


@contextmanager
def rules(of: Literal["cuda", "mps"] = "cuda") -> Iterator[None]:
    """The devices `pretend:0` and `pretend:1` can be used in the `with` block, by the rules of CUDA or of MPS."""
    _install()
    before = torch.__future__.get_swap_module_params_on_conversion(), torch.autograd._engine_run_backward, _w.float64
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay tied when a model is moved
    torch.autograd._engine_run_backward = _backward(before[1])
    torch.autograd.graph._engine_run_backward = torch.autograd._engine_run_backward
    _w.float64 = of == "cuda"
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before[0])
        torch.autograd._engine_run_backward = torch.autograd.graph._engine_run_backward = before[1]
        _w.float64 = before[2]


# --- tensors ---


class _Tensor(torch.Tensor):
    numbers: Tensor  # on the CPU
    block: Block

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor, device: torch.device | None = None, requires_grad: bool = False) -> Any:
        if device is None:  # a class of parameters is called with the data alone, such as by accelerate
            return torch.nn.Parameter(numbers, requires_grad)
        if not _w.float64 and not _w.lawless and numbers.dtype in (torch.float64, torch.complex128):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        block = Block.of(numbers, refuse=not _w.lawless)
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=device,
        )
        self.numbers, self.block = numbers, block
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __repr__(self, **_: Any) -> str:
        return f"{self.numbers!r} on {self.device}"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def untyped_storage(self) -> Any:  # tells which tensors share memory
        return self.numbers.untyped_storage()

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copy = self.detach().clone().requires_grad_(self.requires_grad)
            if hasattr(self, "_is_param"):
                copy._is_param = True
            memo[id(self)] = copy
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _w.failed is None:
            return _run(op, args, kwargs or {})
        try:
            return _run(op, args, kwargs or {})
        except Exception as error:  # see _backward
            _w.failed.append(error.with_traceback(None))
            _w.lawless = True
            try:
                return _run(op, args, kwargs or {})
            finally:
                _w.lawless = False


def _run(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation on the CPU's numbers."""
    name = op._schema.name.removeprefix("aten::")
    if name == "_to_copy":
        return _moved(op, *args, **kwargs)
    if name == "copy_":
        return _copied(*args, **kwargs)
    given: dict[int, Any] = {}  # tensors by the id of what the CPU's kernel gets for them
    memory = set()  # that these lie in

    def inner(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(map(inner, x))
        if isinstance(x, Tensor):
            within = x.numbers if isinstance(x, _Tensor) else x
            given[id(within)] = x
            memory.add(within.untyped_storage()._cdata)
            return within
        return x

    plain, named = inner(args), {key: inner(value) for key, value in kwargs.items() if key != "pin_memory"}
    device = _meet(op, name, args, list(given.values()))
    if (target := kwargs.get("device")) is not None:
        named["device"] = torch.device("cpu")
        device = _indexed(target)
    out = op(*plain, **named)
    fresh = False

    def outer(x: Any) -> Any:
        nonlocal fresh
        if isinstance(x, (list, tuple)):
            return type(x)(map(outer, x))
        if not isinstance(x, Tensor):
            return x
        if id(x) in given:  # written in place
            fresh |= name not in ("lift_fresh", "detach_")
            return given[id(x)]
        fresh |= x.numel() > 0 and x.untyped_storage()._cdata not in memory and not name.startswith(("empty", "new_em"))
        return x if device.type == "cpu" else _Tensor(x, device)

    found = outer(out)
    if name in WAIT or (name in INDEX and any(i is not None and i.dtype == torch.bool for i in args[1])):
        wait("to host")
    if fresh or found is None or name in WAIT:
        launch(name, KERNELS.get(name, 1))
    return found


def _meet(op: Any, name: str, args: Any, tensors: list[Tensor]) -> torch.device:
    """The device of an operation's tensors, which has to be one."""
    if name in INDEX and isinstance(args[0], _Tensor):
        for index in args[1]:
            if index is not None and not isinstance(index, _Tensor):
                wait("to device")
                tensors = [t for t in tensors if t is not index]
    ours = [t for t in tensors if isinstance(t, _Tensor)]
    if torch.Tag.pointwise in op.tags or name in NUMBERS or name in INDEX:
        tensors = [t for t in tensors if isinstance(t, _Tensor) or t.dim()]
    if len(places := {t.device for t in tensors}) > 1 and not _w.lawless:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(map(str, places)))}! (aten::{name})"
        )
    return ours[0].device


def _indexed(device: Any) -> torch.device:
    device = torch.device(device)
    return torch.device(NAME, device.index or 0) if device.type == NAME else device


# --- copies ---


def _moved(op: Any, source: Tensor, *, device: Any = None, non_blocking: bool = False, **options: Any) -> Tensor:
    target = _indexed(source.device if device is None else device)
    options.pop("pin_memory", None)
    numbers = source.numbers if isinstance(source, _Tensor) else source
    moved = op(numbers, device=torch.device("cpu"), **options)
    _tell_copy(source.device, target, non_blocking)
    return _Tensor(moved, target) if target.type == NAME else moved


def _copied(to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    within = [t.numbers if isinstance(t, _Tensor) else t for t in (to, source)]
    within[0].copy_(within[1])
    _tell_copy(source.device, to.device, non_blocking)
    return to


def _tell_copy(source: torch.device, target: torch.device, non_blocking: bool) -> None:
    if source.type == target.type == NAME:
        launch("copy_")
    elif target.type != NAME:
        wait("to host")  # also without blocking, where memory is not pinned
    elif not non_blocking:
        wait("to device")


# --- attention: the kernels that the CPU would take, counted as those that CUDA would take ---


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any, options: dict[str, Any]) -> Tensor:
        parts = [t for t in (query, key, value, mask) if t is not None]
        if len({str(t.device) for t in parts}) > 1:
            raise RuntimeError("Expected all tensors to be on the same device (scaled_dot_product_attention)")
        wanted = ctx.needs_input_grad[:3]
        inner = [t.numbers.detach().requires_grad_(w) for t, w in zip((query, key, value), wanted, strict=True)]
        with torch.enable_grad() if any(wanted) else nullcontext():
            out = scaled_dot_product_attention(*inner, None if mask is None else mask.numbers, **options)
        ctx.inner, ctx.out, ctx.device = inner, out, query.device
        plain = options["enable_gqa"] and query.dtype == torch.float32
        launch("attention, not fused" if plain else "attention", MATH if plain else 1)
        return _Tensor(out.detach(), query.device)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        wanted = [t for t in ctx.inner if t.requires_grad]
        found = iter(torch.autograd.grad(ctx.out, wanted, grads[0].numbers, retain_graph=True))
        launch("attention backward")
        return *(_Tensor(next(found), ctx.device) if t.requires_grad else None for t in ctx.inner), None, None


def _attend(*given: Any, **options: Any) -> Any:
    parts = [*given, *(None, 0.0, False)[len(given) - 3 :]]
    whole = {"dropout_p": parts[4], "is_causal": parts[5], "scale": None, "enable_gqa": False, **options}
    return _Attention.apply(*parts[:3], whole.pop("attn_mask", parts[3]), whole)


# --- the device as PyTorch knows it ---


def _backward(run: Callable[..., Any]) -> Callable[..., Any]:
    """Backward passes in this very thread. PyTorch ends the process where an operation of a device that is written in
    Python fails in one, so what fails is done without rules, and told when the pass is over."""

    def backward(*args: Any, **kwargs: Any) -> Any:
        if _w.failed is not None:  # within another
            return run(*args, **kwargs)
        _w.failed = []
        try:
            with torch.autograd.set_multithreading_enabled(False):
                found = run(*args, **kwargs)
            if _w.failed:
                raise _w.failed[0]
            return found
        finally:
            _w.failed = None

    return backward


def _made(op: Any) -> Callable[..., Tensor]:
    """What makes a tensor out of no other."""
    name = op._schema.name.removeprefix("aten::")

    def make(*args: Any, device: Any = None, pin_memory: Any = None, **kwargs: Any) -> Tensor:
        if not name.startswith("empty"):
            launch(name)
        return _Tensor(op(*args, device=torch.device("cpu"), **kwargs), _indexed(device or NAME))

    return make


def _install() -> None:
    if _w.library is not None:
        return
    answers = {
        "is_available": True,
        "is_initialized": True,
        "_is_in_bad_fork": False,
        "device_count": DEVICES,
        "current_device": 0,
        "set_device": None,
        "synchronize": None,
        "manual_seed_all": None,
        "manual_seed": None,
        "empty_cache": None,
        "get_amp_supported_dtype": [torch.float16, torch.bfloat16],
    }
    module = types.ModuleType(f"torch.{NAME}")
    for name, answer in answers.items():
        setattr(module, name, lambda *_, answer=answer, **__: answer)
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
    _w.library = torch.library.Library("aten", "IMPL")
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    for full in torch._C._dispatch_get_all_op_names():
        name, _, overload = full.removeprefix("aten::").partition(".")
        if (
            not full.startswith("aten::")
            or (op := getattr(getattr(aten, name, None), overload or "default", None)) is None
        ):
            continue
        arguments = op._schema.arguments
        creates = any(a.name == "device" for a in arguments) and not any("Tensor" in str(a.type) for a in arguments)
        if creates and [str(r.type) for r in op._schema.returns] == ["Tensor"] and not has(full, "PrivateUse1"):
            _w.library.impl(full.removeprefix("aten::"), _made(op), "PrivateUse1")
        elif has(full, "CPU") and has(full, "CompositeImplicitAutograd"):  # kernels that others make out of parts
            _w.library.impl(full.removeprefix("aten::"), lambda *a, op=op, **k: _run(op, a, k), "PrivateUse1")
    for name in ("_copy_from", "_copy_from_and_resize"):  # torch.tensor(numbers, device=...) fills its tensor so
        _w.library.impl(name, lambda source, to, *_: _copied(to, source), "PrivateUse1")
    for key in ("PrivateUse1", "AutogradPrivateUse1"):
        _w.library.impl("scaled_dot_product_attention", _attend, key)
