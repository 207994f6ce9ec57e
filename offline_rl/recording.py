"""Blocks of updates recorded once and replayed: on CUDA one graph, launched whole instead of kernel by kernel.

A replay repeats the device's work on the same memory and runs no Python. So whatever an update depends on lies in
tensors that stay where they are: parameters, data, running sums, and the number of the step, from which the random
numbers follow (`Philox.following`). What Python alone knows, hyperparameters, shapes, which update of a period it is,
makes up the recording's key: another key, another recording.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["CudaGraphs", "Recorder", "Recordings"]

KEPT = 32  # recordings of a learner


class Recorder(Protocol):
    """Makes recordings."""

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        """What repeats the device's work of `work`, whenever it is called. Recording leaves the device as it was."""
        ...


class CudaGraphs:
    """Recordings as CUDA graphs on one device. `work` waits for nothing and moves nothing between host and device.

    All share one pool of memory: one is replayed at a time, and none needs a temporary of another.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        if self._stream is None:
            self._stream, self._pool = torch.cuda.Stream(self.device), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.device(self.device), warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*CUDA Graph is empty.*")
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    work()
        except Exception as error:
            # The end of a capture that has failed raises before it gives the stream back, and hides why it failed.
            torch.cuda.set_stream(before)
            self._stream = None
            first: BaseException = error
            while first.__context__ is not None:
                first = first.__context__
            raise RuntimeError(f"{type(first).__name__}: {first}") from error

        def replay() -> None:
            with torch.cuda.device(self.device):
                graph.replay()

        return replay


class Recordings:
    """The recordings of one learner, by key, those used last.

    Attributes:
        clock: () int64 on the device, the number of updates done when a replay begins.
        made: how many were made so far.
    """

    def __init__(self, recorder: Recorder, device: torch.device) -> None:
        self.recorder = recorder
        self.clock: Tensor = torch.zeros((), dtype=torch.int64, device=device)
        self.made = 0
        self._kept: dict[Hashable, tuple[Callable[[], None], dict[str, int]] | None] = {}

    def tried(self, key: Hashable) -> bool:
        """Whether the key was asked for before: what is only made once is made where its work is first done plainly."""
        before = key in self._kept
        self._kept[key] = self._kept.pop(key, None)
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return before

    def get(self, key: Hashable) -> tuple[Callable[[], None], dict[str, int]] | None:
        """The replay and what else it stands for, None where there is none."""
        return self._kept.get(key)

    def make(self, key: Hashable, work: Callable[[], object], counted: Callable[[], dict[str, int]]) -> None:
        """Record `work`; `counted`, asked after it, gives what it stands for beside the device's work."""
        replay = self.recorder.record(work)
        self._kept[key] = (replay, counted())
        self.made += 1
