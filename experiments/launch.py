"""`orbs bench --launcher ray`: units spread over a Ray cluster, with the contract of `experiments.pool.each`.

A unit is one task. If its worker or node is lost it is started again, anywhere, and goes on from its own checkpoint; an
error of its own is reported and not retried. Tasks are dataclasses and functions known by name; what they leave are run
folders, in --out where the nodes share it, or by way of --sync.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import math
import os
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments.options import Bench
from experiments.run_folder import free
from experiments.sync import Target, file_system
from orbs import __version__, reject

__all__ = ["Cluster", "check", "cluster"]

Task = TypeVar("Task")

PATIENCE = 60.0  # seconds that a retried unit waits for the process before it to be gone from the folder
GRACE = 3.0  # and for one on another machine to see that the folder is no longer its own; it looks every second
STOPPING = 30.0  # seconds that units have after Ctrl-C


def check(options: Bench) -> None:
    """ValueError for options of the launcher that make no sense; needs no Ray."""
    if not options.checkpoint_seconds >= 0:
        reject("--checkpoint-seconds", "at least 0", options.checkpoint_seconds, "e.g. 60")
    if options.launcher == "local":
        for field in ("address", "retries", "sync", "sync_seconds"):
            if getattr(options, field) != getattr(Bench, field):
                name = f"--{field.replace('_', '-')}"
                reject(name, "none without --launcher ray", getattr(options, field), "add --launcher ray")
        return
    if options.retries < 0:
        reject("--retries", "at least 0", options.retries, "e.g. 3")
    if not (options.sync_seconds > 0 and math.isfinite(options.sync_seconds)):
        reject("--sync-seconds", "above 0", options.sync_seconds, "e.g. 60")
    if options.address is not None and options.jobs > 1:
        reject("--jobs", "none with --address", options.jobs, "leave it out: the cluster's CPUs say how many units run")
    if options.device.partition(":")[0] == "cuda" and options.device != "cuda":
        reject(
            "--device", "cuda, with --launcher ray", options.device, "Ray gives every unit a GPU, which is its first"
        )
    if options.sync is not None:
        file_system(options.sync)


@contextlib.contextmanager
def cluster(options: Bench, units: Sequence[Any]) -> Iterator[Cluster]:
    """A connection to the cluster of `options`, or a cluster of this machine for as long as it is needed.

    `units` are all that are to come, whose folders are brought up to date with --sync.

    Raises:
        ImportError: Ray is missing; names the extra.
        ValueError: there is no such cluster, or this machine has not what a unit needs.
    """
    # What Ray would otherwise send, and print more than once.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(
            f'--launcher ray: expected the package, got {error}. Fix: pip install "orbs[ray]".'
        ) from error
    ours = not ray.is_initialized()
    if ours:
        # Without "local" Ray joins what was left by a cluster that was killed. Units send no data.
        given: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": 100 << 20}
        if options.jobs > 1:
            given["num_cpus"] = options.jobs * options.threads
        if options.address is not None:
            given = {"address": options.address}
        try:
            ray.init(**given, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            fix = "start one with `ray start --head`, or leave it out for this machine"
            reject("--address", "a Ray cluster that answers", f"'{options.address}' ({error})", fix)
    try:
        made = Cluster(options, ray, fixed=ours and options.address is None)
        made.fetch(units, seed=True)
        yield made
    finally:
        if ours:
            ray.shutdown()


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One start of a unit, as it travels to a worker."""

    function: Callable[[Any, int], None]
    task: Any
    place: int
    number: int
    token: str
    sync: str | None
    sync_seconds: float
    arguments: tuple[str, ...]
    cwd: str
    version: str = __version__


class Cluster:
    """A connected cluster; calling it runs units there. One that is `fixed` gets no further nodes."""

    def __init__(self, options: Bench, ray: Any, fixed: bool) -> None:
        self._options, self._ray = options, ray
        self._lost = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.LocalRayletDiedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.ObjectLostError,
            ray.exceptions.RaySystemError,
        )
        self._streams = (
            not ray.util.client.ray.is_connected()
        )  # Ray Client has none: there units tell of their end alone
        needs = {"CPU": max(1, options.threads), "GPU": 1 if options.device == "cuda" else 0}
        self._remote = ray.remote(
            num_cpus=needs["CPU"],
            num_gpus=needs["GPU"],
            max_retries=0,
            **({"num_returns": "streaming"} if self._streams else {}),
        )(_told if self._streams else _last_told)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(kind, 0) >= count for kind, count in needs.items()) for node in nodes):
            what = f"{needs['CPU']} CPUs" + (" and a GPU" if needs["GPU"] else "")
            if fixed:
                reject("--launcher", f"a machine with {what}", "fewer", "use fewer --threads, or --device cpu")
            print(f"No node of the cluster has {what}: units wait until one joins.", flush=True)

    def __call__(
        self, function: Callable[[Task, int], None], tasks: Sequence[Task], keep_going: bool = False
    ) -> list[Exception | None]:
        """Call function(task, place) for every task on some node; errors come back at their places.

        Args:
            function: importable by name, on the nodes too.
            tasks: units, with `folder` and `options`; their folders are made absolute.
            keep_going: an error of one task is returned rather than raised, and the others go on.

        Raises:
            RuntimeError: without `keep_going`, a unit's error.
            KeyboardInterrupt: after every unit has been told to stop.
        """
        errors: list[Exception | None] = [None] * len(tasks)
        board = _Board(self._options.retries, [_name(task) for task in tasks])
        running = {self._start(function, task, place, 1): place for place, task in enumerate(tasks)}
        numbers = [1] * len(tasks)
        try:
            while running:
                for ref in self._ray.wait(list(running), timeout=1.0)[0]:
                    place = running[ref]
                    try:
                        event = self._ray.get(next(ref) if self._streams else ref)
                    except Exception as error:
                        del running[ref]
                        if self._is_lost(error) and numbers[place] <= self._options.retries:
                            board.retried(place, error, numbers[place])
                            numbers[place] += 1
                            running[self._start(function, tasks[place], place, numbers[place])] = place
                            continue
                        event = (None, None, f"{type(error).__name__}: {_first_line(error)}")
                    else:
                        if len(event) == 1:
                            board.started(place, event[0])
                            continue
                        del running[ref]
                    errors[place] = board.ended(place, *event)
                    if errors[place] is not None and not keep_going:
                        raise errors[place]  # type: ignore[misc]
        except BaseException as error:
            self._cancel(list(running))
            if isinstance(error, KeyboardInterrupt):
                left = f"{board.done} of {len(tasks)} units are done; the others keep their last checkpoints"
                print(f"\nStopped; {left}. The same command goes on.", file=sys.stderr, flush=True)
            raise
        finally:
            self.fetch(tasks)
        return errors

    def fetch(self, units: Sequence[Any], seed: bool = False) -> None:
        """Copy folders from --sync into --out; with `seed`, those that only --out has the other way."""
        if self._options.sync is None:
            return
        for unit in units:
            target = Target(self._options.sync, _name(unit))
            if not target.pull(unit.folder) and seed and unit.folder.is_dir():
                target.push(unit.folder)

    def _start(self, function: Callable[[Any, int], None], task: Any, place: int, number: int) -> Any:
        attempt = Attempt(
            function,
            _moved(task, task.options.out.absolute()),
            place,
            number,
            uuid.uuid4().hex,
            self._options.sync,
            self._options.sync_seconds,
            tuple(sys.argv),
            os.getcwd(),
        )
        return self._remote.options(name=_name(task)).remote(attempt)

    def _is_lost(self, error: Exception) -> bool:
        cause = error.cause if isinstance(error, self._ray.exceptions.RayTaskError) else error
        return isinstance(cause, self._lost)

    def _cancel(self, refs: list[Any]) -> None:
        """Interrupt what runs, as Ctrl-C would, and end what does not stop by itself."""
        for force in (False, True):
            for ref in refs:
                with contextlib.suppress(Exception):
                    self._ray.cancel(ref, force=force)
            deadline = time.monotonic() + STOPPING
            while refs and time.monotonic() < deadline:
                for ref in self._ray.wait(refs, timeout=1.0)[0]:
                    try:
                        event = self._ray.get(next(ref) if self._streams else ref)
                    except BaseException:  # cancelled, which is not always an Exception
                        event = (None, None, None)
                    if len(event) > 1:
                        refs.remove(ref)


class _Board:
    """What is said of the units while they run, a line an event."""

    def __init__(self, retries: int, names: list[str]) -> None:
        self.done, self._retries, self._names = 0, retries, names
        self._where: dict[int, tuple[str, float]] = {}

    def _say(self, word: str, place: int, more: str) -> None:
        print(f"[{self.done}/{len(self._names)}] {word} {self._names[place]}{more}", flush=True)

    def _last(self, place: int) -> str:
        if place not in self._where:
            return ""
        node, began = self._where[place]
        return f" on {node} after {time.monotonic() - began:.1f} s"

    def started(self, place: int, node: str) -> None:
        self._where[place] = node, time.monotonic()
        self._say("started", place, f" on {node}")

    def retried(self, place: int, error: Exception, number: int) -> None:
        kind = error.cause if hasattr(error, "cause") else error
        why = f"{type(kind).__name__}{self._last(place)}, retry {number} of {self._retries}"
        self._where.pop(place, None)
        self._say("retried", place, f": {why}; goes on from its checkpoint")

    def ended(self, place: int, node: str | None, seconds: float | None, error: str | None) -> Exception | None:
        self.done += 1
        where = self._last(place) if node is None else f" on {node} after {seconds:.1f} s"
        if error is None:
            self._say("complete", place, where)
            return None
        self._say("failed", place, f"{where}: {error}")
        return RuntimeError(error)


def _name(unit: Any) -> str:
    """BENCHMARK/PROBLEM/ALGORITHM: the unit in a line of progress, and its place below --sync."""
    return str(unit.folder.relative_to(unit.options.out.parent).as_posix())


def _moved(unit: Any, out: Path) -> Any:
    """The unit with another OUT."""
    changes: dict[str, Any] = {"options": dataclasses.replace(unit.options, out=out)}
    if "folder" in {field.name for field in dataclasses.fields(unit)}:
        changes["folder"] = out / unit.folder.relative_to(unit.options.out)
    return dataclasses.replace(unit, **changes)


def _first_line(error: Exception) -> str:
    return next((line for line in reversed(str(error).strip().splitlines()) if line.strip()), "")


def _told(attempt: Attempt) -> Iterator[tuple[Any, ...]]:
    """On a worker: (node,) when it starts, (node, seconds, error or None) when it has ended."""
    ray: Any = importlib.import_module("ray")
    node, began, error = ray.util.get_node_ip_address(), time.monotonic(), None
    yield (node,)
    try:
        _work(attempt)
    except Exception as found:
        error = f"{type(found).__name__}: {found}"
    yield (node, time.monotonic() - began, error)


def _last_told(attempt: Attempt) -> tuple[Any, ...]:
    return list(_told(attempt))[-1]


def _work(attempt: Attempt) -> None:
    """The unit, in its shared folder or in a scratch folder beside its target."""
    if attempt.version != __version__:
        reject("--address", f"nodes with orbs {attempt.version}", __version__, "install the same on all of them")
    sys.argv = list(attempt.arguments)  # the configuration names the command
    if Path(attempt.cwd).is_dir():
        os.chdir(attempt.cwd)
    task, name = attempt.task, _name(attempt.task)
    scratch = Path(tempfile.mkdtemp(prefix="orbs-")) if attempt.sync is not None else None
    if scratch is not None:
        task = _moved(task, scratch / task.options.out.name)
    target = Target(attempt.sync or task.options.out.parent.as_uri(), name)
    target.claim(attempt.token)
    if scratch is not None:
        target.pull(task.folder)
    else:
        _wait_for(task.folder, attempt.number)
    watch = _Watch(target, task.folder, attempt, copies=scratch is not None)
    try:
        with watch:
            attempt.function(task, attempt.place)
    finally:
        if scratch is not None and watch.copied:
            shutil.rmtree(scratch, ignore_errors=True)
        target.release(attempt.token)


def _wait_for(folder: Path, number: int) -> None:
    """Until the attempt before is gone: a killed node's processes outlive it for a moment."""
    if number > 1:
        time.sleep(GRACE)
    deadline = time.monotonic() + PATIENCE
    while not free(folder) and time.monotonic() < deadline:
        time.sleep(0.2)


class _Watch:
    """Beside a unit that runs: ends this process once another attempt has the folder, copies what is new."""

    def __init__(self, target: Target, folder: Path, attempt: Attempt, copies: bool) -> None:
        self._target, self._folder, self._attempt, self._copies = target, folder, attempt, copies
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stamp, self.copied = 0, False

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        if self._copies:
            self._copy_at_last()

    def _run(self) -> None:
        while not self._over.wait(self._attempt.sync_seconds if self._copies else 1.0):
            try:
                if not self._target.owned(self._attempt.token):
                    print(f"{self._folder}: another attempt goes on here, this one ends.", file=sys.stderr, flush=True)
                    os._exit(1)
                if self._copies:
                    self._copy()
            except Exception as error:  # a network that is away for a moment must not end the unit
                print(f"{self._folder}: not copied this time: {error}", file=sys.stderr, flush=True)

    def _copy(self) -> None:
        checkpoint = self._folder / "checkpoint.safetensors"
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        if stamp != self._stamp:
            self._target.push(self._folder)
            self._stamp = stamp

    def _copy_at_last(self) -> None:
        for wait in (1.0, 5.0, 0.0):
            try:
                if self._target.owned(self._attempt.token):
                    self._target.push(self._folder)
                self.copied = True
                return
            except Exception as error:
                if not wait:
                    raise OSError(
                        f"--sync: expected a target that can be written, got {error}. Fix: mend it and start again; "
                        f"what was made lies in {self._folder} of this node."
                    ) from error
                time.sleep(wait)
