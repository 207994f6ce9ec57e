"""Blocks of updates recorded once and replayed: on CUDA one graph, launched whole instead of kernel by kernel.

A replay repeats the device's work on the same memory and runs no Python. So whatever an update depends on lies in
tensors that stay where they are: parameters, data, running sums, and the number of the step, from which the random
numbers follow (`Philox.following`). What Python alone knows, hyperparameters, shapes, which update of a period it is,
makes up the recording's key: another key, another recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["CudaGraphs", "Recorder", "Recordings"]

KEPT = 8  # recordings; each holds the memory of its temporaries


class Recorder(Protocol):
    """Makes recordings."""

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        """What repeats the device's work of `work`, whenever it is called. Recording leaves the device as it was."""
        ...


class CudaGraphs:
    """Recordings as CUDA graphs. `work` waits for nothing and moves nothing between host and device."""

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


class Recordings:
    """The recordings of one learner, by key, the latest few.

    Attributes:
        clock: () int64 on the device, the number of updates done when a replay begins.
        made: how many were made so far.
    """

    def __init__(self, recorder: Recorder, device: torch.device) -> None:
        self.recorder = recorder
        self.clock: Tensor = torch.zeros((), dtype=torch.int64, device=device)
        self.made = 0
        self._replays: dict[Hashable, tuple[Callable[[], None], dict[str, int]]] = {}
        self._tried: dict[Hashable, None] = {}

    def tried(self, key: Hashable) -> bool:
        """Whether the key was asked for before: what is only made once is made where its work is first done plainly."""
        before = key in self._tried
        self._tried[key] = None
        while len(self._tried) > KEPT:
            del self._tried[next(iter(self._tried))]
        return before

    def get(self, key: Hashable) -> tuple[Callable[[], None], dict[str, int]] | None:
        """The replay and what else it stands for, None where there is none."""
        return self._replays.get(key)

    def make(self, key: Hashable, work: Callable[[], object], counted: Callable[[], dict[str, int]]) -> None:
        """Record `work`; `counted`, asked after it, gives what it stands for beside the device's work."""
        while len(self._replays) >= KEPT:
            del self._replays[next(iter(self._replays))]
        replay = self.recorder.record(work)
        self._replays[key] = (replay, counted())
        self.made += 1
