"""Units of work in processes of their own: one command, several cores, one Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

__all__ = ["each", "end_with_parent", "stopped"]

Task = TypeVar("Task")

# Set in a worker process: whether the user has stopped the command.
_stop: Any = None


def stopped() -> bool:
    """Whether this process is a worker of a command that the user has stopped."""
    return _stop is not None and bool(_stop.is_set())


def each(
    function: Callable[[Task, int], None], tasks: Sequence[Task], jobs: int, keep_going: bool = False
) -> list[Exception | None]:
    """Call function(task, place) for every task in a process of its own, at most `jobs` at a time.

    Args:
        function: importable by name; `place` counts the tasks, for the lines of progress bars.
        keep_going: an error of one task is returned at its place rather than raised, and the others go on.

    Raises:
        ChildProcessError: a process was killed.
        KeyboardInterrupt: after every process has ended.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    errors: list[Exception | None] = [None] * len(tasks)
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _start, (stop,)) as pool:
        futures = [pool.submit(_call, function, task, place) for place, task in enumerate(tasks)]
        try:
            for place, future in enumerate(futures):
                try:
                    future.result()
                except BrokenProcessPool as error:
                    raise ChildProcessError(
                        "jobs: expected training processes that end by themselves, one was killed (out of memory?). "
                        "Fix: go on with --resume and fewer --jobs."
                    ) from error
                except Exception as error:
                    if not keep_going:
                        raise
                    errors[place] = error
        except KeyboardInterrupt:
            stop.set()
            raise
    return errors


def _start(stop: Any) -> None:
    """What a process of the pool does first: an orphan would write into the folder beside a resumed run."""
    global _stop
    _stop = stop
    end_with_parent()


def end_with_parent() -> None:
    """End this process with the one that started it, even if that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call(function: Callable[[Task, int], None], task: Task, place: int) -> None:
    if stopped():  # the pool hands out one task more than it has processes, also after Ctrl-C
        return
    try:
        function(task, place)
    except KeyboardInterrupt:
        _stop.set()
        raise
