"""The process's settings for fast float32 arithmetic on a CPU, made by the harness and undone on exit.

Four things cost a small network most: a second thread on a busy machine, memory that the C library hands back to
the system after each large tensor (every page is then faulted in again), matrix products that leave the chip's
bfloat16 unit idle, and collections of garbage that walk through all libraries. Nothing here is done at import.

"bfloat16" is the one setting that gives accuracy away: the factors of the networks' products (mm, bmm and those that
add to them, forward and backward) are rounded to bfloat16 and summed in float32. A layer with a single output is no
such product on a CPU, and stays float32. Never chosen unasked.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from orbs import reject

__all__ = ["Kernels", "Matmul", "choose_matmul", "cpu_settings", "rounds_in_hardware"]

Kernels = Literal["float32", "bf16", "bfloat16"]
Matmul = Literal["auto", "float32", "bf16", "bfloat16"]

# Twice the error that MKL's float32 product shows on this check; real bfloat16 rounding is a hundred times above.
MAX_ERROR = 1e-4
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def choose_matmul(wanted: Matmul) -> Kernels:
    """The kernels for float32 matrix products: "bf16" lets oneDNN split float32 into bfloat16 parts.

    On chips with AVX512-BF16 and no AMX this still is float32 arithmetic, at twice the speed; with AMX it would
    really round. So "auto" takes it only where the flags say so and a measured error confirms it. "bfloat16" rounds
    on every chip, and is only ever what was asked for.

    Raises:
        ValueError: "bf16" was asked for where it would round to bfloat16.
    """
    if wanted in ("float32", "bfloat16"):
        return wanted
    flags = _cpu_flags()
    able = "avx512_bf16" in flags and not any(flag.startswith("amx") for flag in flags)
    if wanted == "auto" and not able:
        return "float32"
    if _error_of_bf16() < MAX_ERROR:
        return "bf16" if able else "float32"
    if wanted == "bf16":
        reject("matmul", "kernels that keep float32 accuracy", "bf16 on a chip that rounds", "use matmul=float32")
    return "float32"


def rounds_in_hardware() -> bool:
    """Whether this chip's own kernels round operands to bfloat16 (AMX); elsewhere that is done in software, slower."""
    return _error_of_bf16() >= MAX_ERROR


@contextlib.contextmanager
def cpu_settings(matmul: Kernels = "float32", threads: int = 1) -> Iterator[None]:
    """Set threads, memory, garbage and matrix kernels for this process; threads, garbage and kernels are restored."""
    before_threads, before_precision = torch.get_num_threads(), _matmul().fp32_precision
    torch.set_num_threads(threads)
    _keep_freed_memory()
    outermost = gc.get_freeze_count() == 0
    if outermost:
        gc.collect()
        gc.freeze()  # else every large collection walks through the libraries' objects again: a twentieth of the time
    software = matmul == "bfloat16" and not rounds_in_hardware()
    if matmul != "float32":
        _matmul().fp32_precision = "bf16"
    try:
        with _Rounded() if software else contextlib.nullcontext():  # type: ignore[no-untyped-call]
            yield
    finally:
        if outermost:
            gc.unfreeze()
        torch.set_num_threads(before_threads)
        _matmul().fp32_precision = before_precision


_aten = torch.ops.aten
# {product: positions of the operands that are multiplied}
_PRODUCTS = {
    _aten.mm: (0, 1), _aten.bmm: (0, 1), _aten.addmm: (1, 2), _aten.baddbmm: (1, 2), _aten.addmm_: (1, 2),
    _aten.baddbmm_: (1, 2), _aten.mv: (0, 1), _aten.addmv: (1, 2),
}  # fmt: skip


class _Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds float32 operands of products to bfloat16, below autograd: backward products come by here as well.

    Whoever asks for exact products (`offline_rl.neighbour_table.full_precision`) takes the setting back for as long.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        places = _PRODUCTS.get(func.overloadpacket)
        if places is not None and _matmul().fp32_precision == "bf16":
            args = tuple(_rounded(x) if place in places else x for place, x in enumerate(args))
        return func(*args, **(kwargs or {}))


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """To the nearest bfloat16 and back, strides kept: kernels are chosen by them."""
    return x.to(torch.bfloat16).to(torch.float32) if x.dtype == torch.float32 else x


def _keep_freed_memory() -> None:
    """Tell glibc to keep up to 1 GiB of freed memory; other C libraries are left alone."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)


def _matmul() -> Any:
    """oneDNN's matrix product settings; this attribute alone, because the global one turns CUDA to TF32 too."""
    backend: Any = torch.backends.mkldnn
    return backend.matmul


def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return set()
    lines = (line for line in info.read_text().splitlines() if line.startswith("flags"))
    return set(next(lines, "").split())


def _error_of_bf16() -> float:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    before = _matmul().fp32_precision
    _matmul().fp32_precision = "bf16"
    try:
        product = a @ b
    finally:
        _matmul().fp32_precision = before
    return float((product.double() - a.double() @ b.double()).abs().max())
