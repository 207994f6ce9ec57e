"""Worker processes that play evaluations beside training, from copies of the policy, each its share of the slots.

A worker is spawned, so that a process with a GPU may have some; it acts on the CPU with one thread, and ends with the
process that started it, however that ends. Its answer does not depend on how many there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import pool
from orbs import reject

if TYPE_CHECKING:
    from experiments.cpu import Kernels
    from experiments.evaluate import Played
    from experiments.options import Train

__all__ = ["MOST", "Copy", "Setup", "Task", "Workers", "check", "copy_of", "cores", "policy_of", "wanted"]

MOST = 8  # of "auto": every worker computes the actions of all slots, and holds a PyTorch of its own


def cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check(given: int | str) -> None:
    """ValueError for another --eval-workers than "auto" and a count."""
    if given != "auto" and (not isinstance(given, int) or given < 0):
        reject("--eval-workers", "auto, or at least 0", given, "give 0 to evaluate in the training process")


def wanted(options: Train) -> int:
    """Workers of each training process: those asked for, or "auto"'s share of the cores that training leaves free."""
    if options.eval_workers != "auto":
        return int(options.eval_workers)
    free = cores() - options.jobs * options.threads
    return max(0, min(free // options.jobs, MOST))


@dataclasses.dataclass(frozen=True)
class Copy:
    """A learner as it is at one moment, without its replay: the header and the bytes of a safetensors file."""

    meta: dict[str, Any]
    tensors: bytes


def copy_of(learner: Any) -> Copy:
    """What is needed to act and to judge as the learner does now."""
    from safetensors.torch import save

    state = {name: tensor for name, tensor in learner.state_dict().items() if name != "replay"}
    return Copy(learner.meta(), save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))


def policy_of(copy: Copy, earlier: Any = None) -> Any:
    """The learner of a copy, on the CPU; it replaces an earlier one of the same training, where that is given."""
    from safetensors.torch import load

    from offline_rl import algorithm

    learner = earlier if earlier is not None else algorithm(copy.meta["algorithm"]).of_meta(copy.meta)
    learner.load_state_dict(load(copy.tensors), copy.meta["steps"])
    return learner


@dataclasses.dataclass(frozen=True)
class Setup:
    """What evaluations of one training share: the arguments of `Evaluator`, the kernels of matrix products."""

    env_id: str
    runs: Sequence[int]
    episodes: int
    seed: int
    matmul: Kernels


@dataclasses.dataclass(frozen=True)
class Task:
    """One evaluation: the arguments of `experiments.evaluate.play`."""

    copy: Copy
    step: int
    skip: list[int]
    valued: bool


class Workers:
    """`count` processes that share the slots: worker k plays every count-th slot from k on.

    They start at once and in the background; whatever goes wrong in one is an error of `collect`.

    Raises:
        ChildProcessError: no process can be started.
    """

    def __init__(self, setup: Setup, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        slots = len(setup.runs) * setup.episodes
        self._all: list[tuple[Any, Connection]] = []
        self._shares = [list(range(first, slots, count)) for first in range(count)]
        self._sender: threading.Thread | None = None
        try:
            for share in self._shares:
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(there, setup, share), name="orbs-evaluation", daemon=True)
                self._all.append((process, here))
                with _unseen_main(), _interrupts_held():
                    process.start()
                there.close()  # so that the end of the process is the end of the pipe
        except (OSError, AssertionError) as error:  # the second: a daemon may have no children
            self.close()
            raise ChildProcessError(f"a process cannot be started ({error})") from error

    @property
    def pids(self) -> list[int]:
        return [process.pid for process, _ in self._all]

    def begin(self, task: Task) -> None:
        """Hand out an evaluation; in the background, because a worker that still starts does not read."""

        def send() -> None:
            for _, pipe in self._all:
                with contextlib.suppress(OSError):  # `collect` finds out why
                    pipe.send(task)

        self._sender = threading.Thread(target=send, daemon=True)
        self._sender.start()

    def ready(self) -> bool:
        """Whether `collect` would not wait."""
        try:
            return all(pipe.poll() for _, pipe in self._all)
        except OSError:
            return True

    def collect(self) -> Played:
        """The evaluation begun last, once every worker has played its share.

        Raises:
            ChildProcessError: a worker has died or raised; says which.
        """
        from experiments.evaluate import Played

        parts: list[Played] = []
        for process, pipe in self._all:
            try:
                answer = pipe.recv()
            except (EOFError, OSError) as error:
                process.join(5)
                raise ChildProcessError(f"process {process.pid} ended (exit code {process.exitcode})") from error
            if isinstance(answer, str):
                raise ChildProcessError(answer)
            parts.append(answer)
        if self._sender is not None:
            self._sender.join()
        shape = parts[0].returns.shape
        returns, lengths = np.full(shape, np.nan).reshape(-1), np.zeros(shape, np.int64).reshape(-1)
        for share, part in zip(self._shares, parts, strict=True):
            returns[share], lengths[share] = part.returns.reshape(-1)[share], part.lengths.reshape(-1)[share]
        return Played(returns.reshape(shape), lengths.reshape(shape), parts[0].value_error)

    def close(self) -> None:
        """End the processes, whatever they do."""
        started = [process for process, _ in self._all if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        if self._sender is not None:  # nobody reads any more
            self._sender.join()
        for _, pipe in self._all:
            pipe.close()
        self._all = []


def _work(pipe: Connection, setup: Setup, slots: list[int]) -> None:
    """A worker's life: play what comes until the pipe ends; an error is answered as text, and is the last answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pool.end_with_parent()
    from experiments.evaluate import Evaluator, play

    try:
        evaluator = Evaluator(setup.env_id, setup.runs, setup.episodes, setup.seed, slots)
        learner = None
        while True:
            task: Task = pipe.recv()
            learner = policy_of(task.copy, learner)
            pipe.send(play(evaluator, learner, task.step, task.skip, task.valued, setup.matmul))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _unseen_main() -> Iterator[None]:
    """A process started meanwhile does not run the user's script again, which may have no guard against that."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started meanwhile never sees Ctrl-C, which goes to all of a terminal: its parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # else it is started with the first process, and lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
