"""What every learner is, offline or interacting: networks of many runs, acting in the environment's units, saving.

Everything with a leading axis R is one entry per run; run i draws the same numbers whichever runs ride along.
"""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from offline_rl.boundary import device_of, run_ids_of
from offline_rl.critics.interface import Batch
from offline_rl.recording import CudaGraphs, Recorder, Recordings
from orbs import Philox, checked_fields, load_tensors, reject, save_tensors

__all__ = ["Learner"]


class Learner(ABC):
    """Trains `runs` independent copies of one algorithm at once.

    Args:
        obs_dim, action_dim: sizes of one observation and action.
        action_low, action_high: the action box, scalars or (action_dim,).
        runs: how many runs, or the ids of the runs (an id is a random stream: run 3 of runs=5 equals runs=[3]).
        seed: 0 .. 2^32 - 1, shared by all runs.
        device: "cpu", "cuda", "cuda:1", ...
        dtype: torch.float32, or torch.float64 for proofs.
        hyperparameters: fields of the algorithm's configuration.

    Raises:
        ValueError: an unknown hyperparameter (the nearest name is suggested) or one out of range.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[Any]]

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        action_low: float | Sequence[float] | np.ndarray = -1.0,
        action_high: float | Sequence[float] | np.ndarray = 1.0,
        *,
        runs: int | Sequence[int] = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        **hyperparameters: Any,
    ) -> None:
        self.run_ids = run_ids_of(runs)
        if obs_dim < 1 or action_dim < 1:
            reject("obs_dim, action_dim", "positive sizes", (obs_dim, action_dim), "give the shapes of the data")
        if dtype not in (torch.float32, torch.float64):
            reject("dtype", "torch.float32 or torch.float64", dtype, "choose one of these")
        self.config: Any = self.config_class(**checked_fields(self.config_class, hyperparameters, self.name))
        self.obs_dim, self.action_dim, self.dtype = int(obs_dim), int(action_dim), dtype
        self.device = device_of(device)
        for field, bound in (("action_low", action_low), ("action_high", action_high)):
            if np.shape(bound) not in ((), (1,), (action_dim,)):
                fix = "give one bound, or one an action coordinate"
                reject(field, f"a number or shape ({action_dim},)", f"shape {np.shape(bound)}", fix)
        low, high = (
            torch.as_tensor(np.broadcast_to(np.asarray(bound, np.float32), (action_dim,)).copy())
            for bound in (action_low, action_high)
        )
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all() & (low < high).all()):
            reject("action_low, action_high", "finite bounds, low below high", (action_low, action_high), "mend them")
        self.action_low, self.action_high = (bound.to(self.device, dtype) for bound in (low, high))
        # The actor's tanh is stretched over the box: centre + scale * tanh; noise is in units of `scale`.
        self.action_centre = (self.action_high + self.action_low) / 2
        self.action_scale = (self.action_high - self.action_low) / 2
        self.obs_mean = torch.zeros(self.obs_dim, dtype=dtype, device=self.device)
        self.obs_std = torch.ones(self.obs_dim, dtype=dtype, device=self.device)
        self.philox = Philox(seed, self.run_ids, self.device)
        self.seed = self.philox.seed
        self.steps = 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.record_with(CudaGraphs(self.device) if self.device.type == "cuda" else None)
        self._build()

    @property
    def runs(self) -> int:
        return len(self.run_ids)

    @torch.no_grad()
    def act(self, obs: Any, deterministic: bool = True) -> Any:
        """Actions in the environment's units for raw observations.

        Args:
            obs: (obs_dim,) or (n, obs_dim), seen by every run, or (runs, n, obs_dim), each run its own; array or
                tensor.
            deterministic: False changes nothing: the mean is used where the policy is a distribution.

        Returns:
            (action_dim,), (n, action_dim) or (runs, n, action_dim): in kind, with a leading runs axis wherever
            there is more than one run. Array for array, tensor for tensor.

        Raises:
            ValueError: another shape.
        """
        x = obs if isinstance(obs, Tensor) else torch.tensor(np.asarray(obs, order="C"))
        rank = x.ndim
        if rank not in (1, 2, 3) or x.shape[-1] != self.obs_dim or (rank == 3 and x.shape[0] != self.runs):
            expected = f"({self.obs_dim},), (n, {self.obs_dim}) or ({self.runs}, n, {self.obs_dim})"
            reject("act.obs", f"shape {expected}", f"shape {tuple(x.shape)}", "give raw observations of this task")
        x = x.to(self.device, self.dtype)
        x = x if rank == 3 else x.reshape(1, -1, self.obs_dim).expand(self.runs, -1, -1)
        # centre + scale * tanh can round to just outside the box.
        action = torch.clamp(self._policy(self._normalise(x)), self.action_low, self.action_high)
        if rank == 1:
            action = action[:, 0]
        if rank < 3 and self.runs == 1:
            action = action[0]
        if isinstance(obs, Tensor):
            return action.to(obs.device)
        return action.cpu().numpy()

    def metrics(self) -> dict[str, np.ndarray]:
        """Means since the last call, {name: (runs,)}. The one place where the host waits for the device."""
        counted = {name: total for name, total in self._sums.items() if self._counts[name]}
        values = {name: (total / self._counts[name]).cpu().double().numpy() for name, total in counted.items()}
        for name, total in self._sums.items():  # in place: recorded blocks add to these tensors
            total.zero_()
            self._counts[name] = 0
        return values

    def record_with(self, recorder: Recorder | None) -> None:
        """Record blocks of updates and replay them: by default on CUDA, as graphs. None: run every update's Python.

        Replays change no result beyond rounding, and time alone. They are made anew for another `config` and other
        data; what else is set by hand (an optimiser's rate, a critic's mode) is seen after the next call of this.
        """
        self._recordings = None if recorder is None else Recordings(recorder, self.device)

    def finite(self) -> np.ndarray:
        """(runs,) bool: whether every parameter of the run is a finite number."""
        fine = torch.ones(self.runs, dtype=torch.bool, device=self.device)
        for tensor in self._tensors().values():  # a scalar is the same for all runs: a count of steps
            if tensor.ndim:
                fine &= torch.isfinite(tensor.reshape(self.runs, -1)).all(1)
        return fine.cpu().numpy()

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor that training goes on from, by name (views, not copies)."""
        return {"obs_mean": self.obs_mean, "obs_std": self.obs_std, **self._tensors()}

    def meta(self) -> dict[str, Any]:
        """What is needed to build the learner again, as plain JSON values."""
        return {
            "algorithm": self.name,
            "obs_dim": self.obs_dim,
            "action_dim": self.action_dim,
            "action_low": self.action_low.tolist(),
            "action_high": self.action_high.tolist(),
            "runs": self.run_ids,
            "seed": self.seed,
            "dtype": str(self.dtype).removeprefix("torch."),
            "steps": self.steps,
            "config": dataclasses.asdict(self.config),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor], steps: int) -> None:
        """Copy a saved state in; all or nothing.

        Raises:
            ValueError: a missing, unknown or differently shaped tensor.
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            reject("state_dict", "the same names", sorted(own.keys() ^ state.keys())[:5], "load into the same learner")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape or tensor.dtype != state[name].dtype:
                given = f"{tuple(state[name].shape)} {state[name].dtype}"
                reject(f"state_dict.{name}", f"{tuple(tensor.shape)} {tensor.dtype}", given, "load the same algorithm")
        for name, tensor in own.items():
            tensor.copy_(state[name])
        self.steps = int(steps)

    def save(self, path: str | Path, **extra: Any) -> None:
        """Write one safetensors file, atomically. `extra` joins the JSON in its header."""
        save_tensors(path, self.state_dict(), {**self.meta(), **extra})

    @classmethod
    def of_meta(cls, meta: dict[str, Any], device: str | torch.device = "cpu") -> Self:
        """An untrained learner of the same arguments as the one that gave this `meta`."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in meta["config"].items()
        }
        dims, box = (meta["obs_dim"], meta["action_dim"]), (meta["action_low"], meta["action_high"])
        runs, seed, dtype = meta["runs"], meta["seed"], getattr(torch, meta["dtype"])
        return cls(*dims, *box, runs=runs, seed=seed, device=device, dtype=dtype, **values)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """A learner as it was saved; attach the data again to go on training.

        Raises:
            ValueError: a damaged file, or one of another algorithm.
        """
        tensors, meta = load_tensors(path)
        if meta.get("algorithm") != cls.name:
            reject("load", f"a checkpoint of {cls.name}", meta.get("algorithm"), "use offline_rl.load")
        try:
            learner = cls.of_meta(meta, device)
            learner._restore(tensors, meta)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"load: expected a learner's checkpoint, got {path} with a header that lacks or garbles {error}. Fix: "
                "use an earlier copy or train again."
            ) from error
        return learner

    # What a learner fills in.

    @abstractmethod
    def _build(self) -> None:
        """Make the networks and optimisers."""

    @abstractmethod
    def _step(self, batch: Batch, noise: dict[str, Tensor]) -> None:
        """One update of all runs; `self.steps` is its number, from 1."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """Everything to save but the normaliser: scalars, or run-major with a leading axis of R or a multiple of it."""

    @abstractmethod
    def _policy(self, obs: Tensor) -> Tensor:
        """(R, B, obs_dim) normalised -> (R, B, action_dim) in the environment's units."""

    def _noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Standard normal numbers wanted per update and run: {name: shape}."""
        return {}

    # What they share.

    def _restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from a checkpoint's tensors and header."""
        self.load_state_dict(tensors, meta["steps"])

    def _replayed(self, key: Hashable, updates: int, work: Callable[[], object]) -> None:
        """Do `work`, which makes the next `updates` updates, by its recording.

        The key says whatever the work depends on that is no tensor's content. Its work is done plainly at first, and
        recorded the second time.
        """
        kept = self._recordings
        if kept is None or not kept.tried(key):
            work()
            return
        steps, before = self.steps, dict(self._counts)
        if kept.get(key) is None:

            def counted() -> dict[str, int]:
                return {name: count - before.get(name, 0) for name, count in self._counts.items()}

            failure = None
            try:
                with self.philox.following(kept.clock, steps, updates):
                    kept.make(key, work, counted)
            except RuntimeError as error:
                failure = error
            finally:  # nothing was done yet: Python goes back to where the device still is
                self.steps, self._counts = steps, before
            if failure is not None:
                reason = str(failure).partition("\n")[0]
                message = f"{self.name}: updates run one by one from here on, a block could not be recorded ({reason})"
                warnings.warn(message, stacklevel=4)
                self._recordings = None
                work()
                return
        found = kept.get(key)
        assert found is not None
        replay, counts = found
        kept.clock.fill_(steps)
        replay()
        self.steps = steps + updates
        for name, count in counts.items():
            self._counts[name] += count

    def _record(self, **values: Tensor) -> None:
        """Add (runs,) values to the running means, on the device."""
        known = [name for name in values if name in self._sums]
        if known:  # one kernel on a GPU
            torch._foreach_add_([self._sums[name] for name in known], [values[name].detach() for name in known])
        for name in [name for name in values if name not in self._sums]:
            if self.philox.recorded:
                raise RuntimeError(f"{self.name}: the metric {name} first appears while a block is recorded")
            self._sums[name] = values[name].detach().clone()
        for name in values:
            self._counts[name] = self._counts.get(name, 0) + 1

    def _normalise(self, obs: Tensor) -> Tensor:
        return (obs - self.obs_mean) / self.obs_std
