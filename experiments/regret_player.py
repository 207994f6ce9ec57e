"""One learner of `orbs regret` in its own world and folder: rounds, record points, checkpoints, runs that diverge.

Metrics are written before the checkpoint, so a resume only ever drops rows.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bandits.online_learning.named import expected_bound
from experiments import results
from orbs import load_tensors, reject, save_tensors, write_atomically

if TYPE_CHECKING:
    from envs.regret_world import RegretWorld
    from experiments.loggers import Logger
    from experiments.regret_session import Comparator

__all__ = ["Player", "theorem"]

_clock = time.perf_counter


@dataclasses.dataclass
class Player:
    """One learner in its own world and folder.

    Attributes:
        name, base: what it is called, and the learner that it is (another one's name for a variant).
        recorded: the last round that the table holds.
        lost: (R,) the runs whose numbers are no longer finite; they play the region's centre from then on.
        diverged: {run: round} of these.
        bound: round -> (R,) a bound on the expected regret, or None where no theorem gives one.
        ended: how it ended; "running" while it plays.
        jumps: held actions are played at once, by the world's `advance`.
    """

    name: str
    base: str
    folder: Path
    learner: Any
    world: RegretWorld
    config: dict[str, Any]
    table: results.Table
    loggers: list[Logger]
    bound: Callable[[int], Tensor] | None = None
    jumps: bool = False
    recorded: int = 0
    lost: Tensor | None = None
    diverged: dict[int, int] = dataclasses.field(default_factory=dict)
    ended: str = "running"
    error: Exception | None = None
    _thinking: float = 0.0
    _spent: float = 0.0
    _rounds: int = 0

    @property
    def runs(self) -> list[int]:
        return list(self.learner.run_ids)

    @functools.cached_property
    def centre(self) -> Tensor:
        region = self.world.region
        return torch.as_tensor(region.centre(), device=self.world.device).to(region.dtype)

    def jump(self, stop: int) -> None:
        """Play up to round `stop`, all rounds of a held action at once."""
        learner, world = self.learner, self.world
        began, thinking, first = _clock(), 0.0, world.round
        while world.round < stop:
            at = _clock()
            x = learner.act()
            rounds = min(learner.hold(), stop - world.round)
            thinking += _clock() - at
            feedback = world.advance(x, rounds)  # type: ignore[attr-defined]
            at = _clock()
            learner.skip(rounds - 1)
            learner.observe(x, feedback)
            thinking += _clock() - at
        self._count(began, thinking, stop - first)

    def advance(self, stop: int) -> None:
        """Play up to round `stop`, one by one."""
        learner, world = self.learner, self.world
        rounds = range(world.round, stop)
        waits = world.device.type != "cpu"
        began, thinking = _clock(), 0.0
        for _ in rounds:
            at = _clock()
            x = learner.act(world.context())
            thinking += _clock() - at
            if waits or self.lost is not None:
                x = self._mended(x)
            try:
                feedback = world.step(x)[4]["feedback"]
            except ValueError:
                if bool(torch.isfinite(x).all()):
                    raise
                x = self._mended(x)
                feedback = world.step(x)[4]["feedback"]
            at = _clock()
            learner.observe(x, feedback)
            thinking += _clock() - at
        self._count(began, thinking, len(rounds))

    def _count(self, began: float, thinking: float, rounds: int) -> None:
        if self.world.device.type != "cpu" and torch.cuda.is_available():
            torch.cuda.synchronize(self.world.device)
        self._thinking += thinking
        self._spent += _clock() - began
        self._rounds += rounds

    def _mended(self, x: Tensor) -> Tensor:
        """The points; those of runs that are lost become the centre, so that the others go on."""
        strange = ~torch.isfinite(x.reshape(len(x), -1)).all(1)
        self.lost = strange if self.lost is None else self.lost | strange
        return torch.where(self.lost.view(-1, *[1] * (x.ndim - 1)), self.centre, x)

    def record(self, comparator: Comparator | None) -> dict[str, np.ndarray]:
        """Put this round's metrics into the table and return them, (R,) each."""
        world, learner, step = self.world, self.learner, self.world.round
        learner.check()
        regret = dict(world.regret())
        least = comparator.value(step) if comparator is not None else None
        if least is not None:
            regret["regret/sampled"] = world.loss - least
        fine: Tensor = learner.finite()
        for found in regret.values():
            fine = fine & torch.isfinite(found)
        if not bool(fine.all()):
            self.lost = ~fine if self.lost is None else self.lost | ~fine
        if self.lost is not None:
            self._note_diverged(self.lost, step)
        path = learner.regret_bound()
        if path is not None:
            regret["bound/path"] = path
        if self.bound is not None:
            regret["bound/expected"] = self.bound(step)
        if hasattr(world, "measures"):
            regret |= world.measures()
        values = {name: value.detach().double().cpu().numpy().copy() for name, value in regret.items()}
        dead = np.isin(self.runs, list(self.diverged))
        for value in values.values():
            value[dead] = np.nan
        played = self._rounds * len(self.runs)
        if played:
            values["time/loop_rounds_per_second"] = np.full(len(self.runs), played / self._spent)
            if world.device.type == "cpu":  # elsewhere the clock tells when work was handed over, not when it was done
                values["time/rounds_per_second"] = np.full(len(self.runs), played / self._thinking)
        self._thinking, self._spent, self._rounds = 0.0, 0.0, 0
        self.table.record_runs(step, values, self.runs)
        for logger in self.loggers:
            logger.log(step, values, self.runs)
        self.recorded = step
        return values

    def _note_diverged(self, lost: Tensor, step: int) -> None:
        for slot in lost.nonzero().flatten().tolist():
            run = self.runs[slot]
            if run not in self.diverged:
                self.diverged[run] = step
                rest = "no run is left" if len(self.diverged) == len(self.runs) else "the other runs go on"
                tqdm.write(f"{self.name}: run {run} diverged (not finite) by round {step}; {rest}.", file=sys.stderr)

    def save(self, comparator: Comparator | None) -> None:
        """Metrics first, then the checkpoint."""
        results.write_table(self.table.frame(), self.folder / "metrics.parquet")
        tensors = {f"learner.{name}": tensor for name, tensor in self.learner.state_dict().items()}
        tensors |= {f"world.{name}": tensor for name, tensor in self.world.state_dict().items()}
        if self.lost is not None:
            tensors["lost"] = self.lost
        if comparator is not None:
            tensors["comparator"] = comparator.start
        diverged = {str(run): step for run, step in self.diverged.items()}
        meta = {"learner": self.name, "round": self.world.round, "recorded": self.recorded, "diverged": diverged}
        save_tensors(self.folder / "checkpoint.safetensors", tensors, meta)

    def load(self, rounds: Sequence[int], comparator: Comparator | None) -> None:
        """Go on from the folder's checkpoint; `rounds` are the record points, other rows are dropped.

        Raises:
            ValueError: a damaged file, one of another learner or world, or one beyond the horizon.
        """
        tensors, meta = load_tensors(self.folder / "checkpoint.safetensors")
        if meta["round"] > rounds[-1]:
            reject("--horizon", f"at least {meta['round']}, where {self.folder} is", rounds[-1], "ask for more rounds")

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(name): t for key, t in tensors.items() if key.startswith(name)}

        self.learner.load_state_dict(part("learner."))
        self.world.load_state_dict(part("world."))
        if "lost" in tensors:
            self.lost = tensors["lost"].to(self.world.device)
        self.recorded = int(meta["recorded"])
        self.diverged = {int(run): int(step) for run, step in meta["diverged"].items()}
        kept = results.drop_after(results.read_table(self.folder / "metrics.parquet"), self.recorded)
        # An earlier horizon was a record point that a longer run does not have.
        kept = kept[kept["step"].isin(rounds)].reset_index(drop=True)
        self.table = results.Table(self.config["experiment"], self.name, self.config["problem"], kept)
        if comparator is not None and "comparator" in tensors:
            comparator.start = tensors["comparator"].to(self.world.device)

    def write_config(self, status: str) -> None:
        self.ended = status
        self.config["status"] = status
        self.config["diverged"] = {str(run): step for run, step in self.diverged.items()}
        write_atomically(self.folder / "config.json", json.dumps(self.config, indent=2) + "\n")


def theorem(name: str, config: Any, world: RegretWorld) -> Callable[[int], Tensor] | None:
    """The bound on the expected regret of "optimistic-omd" as published, in a SEA world, as a function of the round."""
    if name != "optimistic-omd" or not hasattr(world, "variance"):
        return None
    if any(given is not None for given in (config.delta, config.diameter, config.bound)):
        return None
    facts = world.facts
    diameter, bound = facts["diameter"], facts["gradient_bound"]

    def after(rounds: int) -> Tensor:
        # The theorem has the mean over runs under its roots.
        variance, variation = (float(amount(rounds).mean()) for amount in (world.variance, world.variation))  # type: ignore[attr-defined]
        value = expected_bound(diameter, bound, facts["smoothness"], variance, variation)
        return torch.full((world.num_envs,), value, dtype=torch.float64)

    return after
