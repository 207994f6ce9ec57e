"""What floating-point results depend on: the machine's kind and the versions of the packages that compute."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

__all__ = ["platform_facts"]

_PACKAGES = ("gymnasium", "mujoco", "numpy", "stable_baselines3", "torch")


def platform_facts() -> dict[str, str]:
    """Operating system, C library, CPU family, Python, and the versions of the packages that are installed."""
    facts = {
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "machine": platform.machine(),
        "cpu": _cpu_family(),
        "python": platform.python_version(),
    }
    facts["blas"] = _blas()
    for package in _PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "absent"
    return facts


def _blas() -> str:
    """The library behind numpy's matrix products and the kernels that it chose for this CPU."""
    import numpy as np
    import threadpoolctl

    np.dot(np.ones(2), np.ones(2))  # so that the library is loaded
    found = threadpoolctl.threadpool_info()
    names = {
        f"{x['internal_api']} {x['version']} {x.get('architecture', '')}".strip()
        for x in found
        if x["user_api"] == "blas"
    }
    return ", ".join(sorted(names)) or "unknown"


def _cpu_family() -> str:
    """Vendor, family and model where Linux tells them, else what the platform module knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines[:30])}
    return " ".join(values[key] for key in ("vendor_id", "cpu family", "model") if key in values) or "unknown"
