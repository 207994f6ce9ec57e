"""The process's settings for fast float32 arithmetic on a CPU, made by the harness and undone on exit.

Three things cost a small network most: a second thread on a busy machine, memory that the C library hands back to
the system after each large tensor (every page is then faulted in again), and matrix products that leave the chip's
bfloat16 unit idle. Nothing here is done at import.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from orbs import reject

__all__ = ["Matmul", "cpu_settings", "choose_matmul"]

Matmul = Literal["auto", "float32", "bf16"]

# Twice the error that MKL's float32 product shows on this check; real bfloat16 rounding is a hundred times above.
MAX_ERROR = 1e-4
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def choose_matmul(wanted: Matmul) -> Literal["float32", "bf16"]:
    """The kernels for float32 matrix products: "bf16" lets oneDNN split float32 into bfloat16 parts.

    On chips with AVX512-BF16 and no AMX this still is float32 arithmetic, at twice the speed; with AMX it would
    really round. So "auto" takes it only where the flags say so and a measured error confirms it.

    Raises:
        ValueError: "bf16" was asked for where it would round to bfloat16.
    """
    if wanted == "float32":
        return "float32"
    flags = _cpu_flags()
    able = "avx512_bf16" in flags and not any(flag.startswith("amx") for flag in flags)
    if wanted == "auto" and not able:
        return "float32"
    if _error_of_bf16() < MAX_ERROR:
        return "bf16" if able else "float32"
    if wanted == "bf16":
        reject("matmul", "kernels that keep float32 accuracy", "bf16 on a chip that rounds", "use matmul=float32")
    return "float32"


@contextlib.contextmanager
def cpu_settings(matmul: Literal["float32", "bf16"] = "float32", threads: int = 1) -> Iterator[None]:
    """Set threads, memory and matrix kernels for this process; threads and kernels are restored on exit."""
    before_threads, before_precision = torch.get_num_threads(), _matmul().fp32_precision
    torch.set_num_threads(threads)
    _keep_freed_memory()
    if matmul == "bf16":
        _matmul().fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.set_num_threads(before_threads)
        _matmul().fp32_precision = before_precision


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
