"""Optional live logging to TensorBoard or Weights & Biases. The parquet table is written whether or not they are on."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["Logger", "make_loggers"]


class Logger(Protocol):
    def log(self, step: int, values: Mapping[str, np.ndarray], run_ids: Sequence[int]) -> None:
        """values: {metric: (runs,)}."""
        ...

    def close(self) -> None: ...


def make_loggers(folder: Path, config: Mapping[str, Any], tensorboard: bool, wandb: str | None) -> list[Logger]:
    """The loggers asked for; `wandb` is a project's name.

    Raises:
        ImportError: an extra is missing; names it.
    """
    loggers: list[Logger] = []
    if tensorboard:
        loggers.append(_TensorBoard(folder))
    if wandb is not None:
        loggers.append(_WandB(folder, config, wandb))
    return loggers


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'{extra}: expected the package, got {error}. Fix: pip install "orbs[{extra}]".') from error


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        module = _module("torch.utils.tensorboard", "tensorboard")
        self._kind, self._folder = module.SummaryWriter, folder / "tensorboard"
        self._writers: dict[int, Any] = {}

    def log(self, step: int, values: Mapping[str, np.ndarray], run_ids: Sequence[int]) -> None:
        for slot, run in enumerate(run_ids):
            if run not in self._writers:
                self._writers[run] = self._kind(str(self._folder / f"run{run}"))
            for metric, value in values.items():
                self._writers[run].add_scalar(metric, float(value[slot]), step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class _WandB:
    def __init__(self, folder: Path, config: Mapping[str, Any], project: str) -> None:
        module = _module("wandb", "wandb")
        name = f"{config['algorithm']} {config['problem']}"
        folder.mkdir(parents=True, exist_ok=True)  # else W&B writes to a temporary folder
        self._run = module.init(project=project, name=name, dir=str(folder), config=dict(config))

    def log(self, step: int, values: Mapping[str, np.ndarray], run_ids: Sequence[int]) -> None:
        flat = {
            f"run{run}/{metric}": float(v[slot]) for metric, v in values.items() for slot, run in enumerate(run_ids)
        }
        self._run.log(flat, step=step)

    def close(self) -> None:
        self._run.finish()
