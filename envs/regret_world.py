"""What the worlds of online learning share: rounds, noise drawn in blocks, running sums for regret.

A world plays `num_envs` runs of one problem at once, through gymnasium's vector interface with torch tensors. Its
numbers are functions of (seed, run, round), so a run is the same whichever runs ride along, wherever it is resumed and
however many rounds are drawn at once. `SingleWorld` is one run of any of them as an ordinary gymnasium environment.
"""

from __future__ import annotations

import copy
import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from envs.regions import Region
from orbs import Feedback, Philox, reject, runs_last

__all__ = ["RegretWorld", "SingleWorld", "Tape"]

BLOCK_NUMBERS = 2**17  # a block of noise: large enough to hide the cost of a call, small enough for the caches
TOLERANCE = 1e-6  # how far outside its region an action may lie


def whole(field: str, value: object, least: int) -> int:
    """`value` as an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        reject(field, f"an integer of at least {least}", repr(value), "mend it, or leave it out for the default")
    return int(value)


def between(field: str, value: float, low: float, high: float) -> float:
    """`value` as a float in [low, high]; an infinite bound is not attained."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (number and low <= value <= high and abs(value) < np.inf):
        wanted = f"a number from {low:g} to {high:g}" if high < np.inf else f"a finite number of at least {low:g}"
        reject(field, wanted, repr(value), "mend it, or leave it out for the default")
    return float(value)


def known(field: str, value: str, names: Collection[str]) -> str:
    """`value`, one of `names`; the error suggests the nearest."""
    if value not in names:
        near = difflib.get_close_matches(str(value), names, n=1)
        reject(field, f"one of {', '.join(names)}", repr(value), f"did you mean '{near[0]}'" if near else "choose one")
    return value


def unit_vectors(philox: Philox, purpose: str, first: int, rounds: int, dimension: int) -> Tensor:
    """(R, rounds, d), uniform on the unit sphere: normal vectors over their norms."""
    z = philox.normal(purpose, first, rounds, dimension, torch.float64)
    return runs_last(z / (z * z).sum(-1, keepdim=True).sqrt())


class Tape:
    """What nature does in each round, drawn a block of rounds at a time and kept for all who play it.

    Blocks begin at multiples of their length. The last two are kept, for worlds that play the same tape in turns.

    Args:
        draw: (first round, rounds) -> tensors with the rounds along axis 1; rounds count from 0.
        width: numbers a round, over all runs.
        horizon: rounds in all.
        view: from a block's tensor (R, rounds, ...) to what is handed out of each of its rounds; tensors if None.

    Attributes:
        draws: blocks drawn so far.
    """

    def __init__(
        self,
        draw: Callable[[int, int], tuple[Tensor, ...]],
        width: int,
        horizon: int,
        view: Callable[[Tensor], Sequence[Any]] | None = None,
    ) -> None:
        self.draw, self.horizon = draw, horizon
        self.view = view or (lambda part: part.unbind(1))
        self.block = min(max(16, BLOCK_NUMBERS // width), horizon)
        self.draws = 0
        self._kept: dict[int, list[tuple[Any, ...]]] = {}

    def round(self, index: int) -> tuple[Any, ...]:
        """The tensors of a round, counted from 0, without the round axis."""
        place = index % self.block
        rows = self._kept.get(index - place)
        if rows is None:
            first = index - place
            drawn = self.draw(first, min(self.block, self.horizon - first))
            rows = list(zip(*(self.view(part) for part in drawn), strict=True))
            self.draws += 1
            if len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            self._kept[first] = rows
        return rows[place]


class RegretWorld(VectorEnv[Tensor, Tensor, Tensor], ABC):
    """`num_envs` runs of a problem of `horizon` rounds: act, see the loss's gradient, be judged by regret.

    Actions are (R, d) float64; the observation is the gradient of the round's loss at the action, (R, d), zeros at
    first; the reward is minus the loss, (R,); info["feedback"] is an `orbs.Feedback`. All runs are truncated after the
    last round, and nothing resets by itself. What a step returns is to be read alone: it may lie on the tape.

    An action of another shape, not finite, or outside by more than 1e-6 is a ValueError: at once on a CPU; on other
    devices `regret` and `state_dict` raise it, so that no round waits.

    A subclass sets what it needs and then calls this constructor, with `_prepare`, `_draw`, `_play` and `regret`.

    Args:
        region: where actions lie.
        horizon: rounds, at least 1.
        runs: how many, or their ids.
        seed: 0 .. 2^32 - 1.
        device: of all tensors.
        width: numbers that a round of a run holds.
        facts: what a learner may know beforehand, besides domain, dimension, horizon and diameter.
        observed: bounds of an observation's coordinates, and its shape (one a coordinate of the region if None).

    Attributes:
        facts, horizon, seed, device, num_envs as above; run_ids: the runs' ids; round: rounds played so far; tape: the
            numbers of all rounds.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 (gymnasium's own form)
    _view: Callable[[Tensor], Sequence[Any]] | None = None  # of the tape's blocks

    def __init__(
        self,
        region: Region,
        horizon: int,
        runs: int | Sequence[int],
        seed: int,
        device: torch.device | str,
        width: int,
        facts: Mapping[str, Any],
        observed: tuple[float, float, tuple[int, ...] | None] = (-np.inf, np.inf, None),
    ) -> None:
        self.region, self.horizon = region, whole("horizon", horizon, 1)
        count = isinstance(runs, (int, np.integer))
        self.run_ids = list(range(whole("runs", runs, 1))) if count else [int(run) for run in runs]  # type: ignore[union-attr]
        self.num_envs = whole("runs", len(self.run_ids), 1)
        self.device, self._width = torch.device(device), width
        self.facts: Mapping[str, Any] = {
            "dimension": region.dimension, "domain": region.plain, "horizon": self.horizon, **facts,
        }  # fmt: skip
        if region.dtype != torch.int64:
            self.facts = {"diameter": region.diameter, **self.facts}
        low, high, shape = observed
        self.single_observation_space = spaces.Box(low, high, shape or (region.dimension,), np.float32)
        self.single_action_space = region.space()
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._none = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self._all = ~self._none
        self._seed(seed)
        self._start()

    def _prepare(self) -> None:
        """Draw what a run keeps through all rounds; `self.philox` is ready."""

    @abstractmethod
    def _draw(self, first: int, rounds: int) -> tuple[Tensor, ...]:
        """The block of rounds first .. first + rounds - 1, each tensor (R or 1, rounds, ...)."""

    @abstractmethod
    def _sums(self) -> dict[str, Tensor]:
        """The running sums, zero; made with `zeros`."""

    @abstractmethod
    def _play(self, x: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        """A round: its loss (R,), the observation (R, .) and the terms (None: bandit feedback); adds to the sums."""

    @abstractmethod
    def regret(self) -> dict[str, Tensor]:
        """{name: (R,)} after the rounds so far, against each comparator that has a closed form here."""

    def context(self) -> Tensor | None:
        """What a learner is shown before the coming round; None where rounds differ in nothing that can be seen."""
        return None

    def zeros(self, *shape: int) -> Tensor:
        """(R, *shape) zeros, the run axis last in memory."""
        return torch.zeros(*shape, self.num_envs, dtype=torch.float64, device=self.device).movedim(-1, 0)

    @property
    def loss(self) -> Tensor:
        """(R,) the sum of the losses of the actions so far, as sampled."""
        self._refuse_if_outside()
        return self.sums["loss"].clone()

    def _seed(self, seed: int) -> None:
        self.philox = Philox(seed, self.run_ids, self.device, runs_last=True)
        self.seed = self.philox.seed
        self._prepare()
        self.__dict__.pop("tape", None)
        # Of a copy: a later seed of this world must not reach the tape that its twins still play.
        self.tape = Tape(copy.copy(self)._draw, self._width * self.num_envs, self.horizon, self._view)

    def _start(self) -> None:
        self.round = 0
        self.sums = {"loss": self.zeros(), **self._sums()}
        self._worst = torch.full((), -np.inf, dtype=torch.float64, device=self.device)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Back to the first round, of the same numbers or, with another seed, of that seed's."""
        if seed is not None and seed != self.seed:
            self._seed(seed)
        self._start()
        shape = self.single_observation_space.shape
        return self.zeros(*(shape or ())), {}

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        if self.round >= self.horizon:
            reject("step", f"at most {self.horizon} rounds", "one more", "reset, or make the horizon longer")
        x = self._checked(torch.as_tensor(action, device=self.device))
        loss, seen, terms = self._play(x, self.tape.round(self.round))
        self.round += 1
        self.sums["loss"] += loss
        reward = -loss
        feedback = Feedback(reward) if terms is None else Feedback(reward, seen, terms)
        ended = self._all if self.round == self.horizon else self._none
        return seen, reward, self._none, ended, {"feedback": feedback}

    def _checked(self, x: Tensor) -> Tensor:
        """The actions in the region's type.

        Raises:
            ValueError: another shape, or, where looking costs no waiting, one outside.
        """
        if x.dtype != self.region.dtype:
            # An arm is an integer: a distribution's float would otherwise be cut off to one.
            if self.region.dtype == torch.int64 and x.is_floating_point():
                reject("action", "int64 arms", f"{x.dtype}", "draw an arm a run")
            x = x.to(self.region.dtype)
        if x.shape != (self.num_envs, *self.region.shape):
            wanted = (self.num_envs, *self.region.shape)
            reject("action", f"shape {wanted}", f"shape {tuple(x.shape)}", "give a row a run")
        self._judge(self.region, x)
        return x

    def _judge(self, region: Region, x: Tensor) -> None:
        """Refuse actions outside, or remember for later how far the worst one is."""
        excess = region.excess(x)
        if self.device.type == "cpu":
            self._refuse(float(excess), region)
        else:
            self._worst = torch.maximum(self._worst, excess)

    def _refuse_if_outside(self) -> None:
        self._refuse(float(self._worst), self.region)

    def _refuse(self, worst: float, region: Region) -> None:
        if not worst <= TOLERANCE:
            name, values = region.plain
            given = "a NaN or inf" if not abs(worst) < np.inf else f"one outside by {worst:.3g}"
            wanted = f"finite actions in the {name} {values}, up to {TOLERANCE:g}"
            reject("action", wanted, given, "project it, or mend the learner's step")

    def twin(self) -> Self:
        """A fresh world at the first round that meets the same numbers; a block of them is drawn once for both."""
        other = copy.copy(self)
        other._start()
        return other

    def state_dict(self) -> dict[str, Tensor]:
        """The rounds played and the running sums; all else follows from the constructor's arguments."""
        self._refuse_if_outside()
        state = {"round": self.round, "seed": self.seed, "run_ids": self.run_ids}
        return {name: torch.tensor(value) for name, value in state.items()} | {
            f"sums.{name}": value.clone() for name, value in self.sums.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where a world of the same arguments was saved, to the same bits."""
        self._start()
        wanted = self.state_dict()
        if set(state) != set(wanted):
            reject("state", f"the entries {sorted(wanted)}", sorted(state), "load what this kind of world saved")
        for name in ("seed", "run_ids"):
            if state[name].tolist() != wanted[name].tolist():
                mine, given = wanted[name].tolist(), state[name].tolist()
                reject(f"state.{name}", f"{mine}, this world's", given, "build the world with the saved arguments")
        for name, value in self.sums.items():
            if state[f"sums.{name}"].shape != value.shape:
                shapes = tuple(value.shape), tuple(state[f"sums.{name}"].shape)
                reject(f"state.sums.{name}", f"shape {shapes[0]}", f"shape {shapes[1]}", "build the same world")
        rounds = int(state["round"])
        if not 0 <= rounds <= self.horizon:
            reject("state.round", f"0 to {self.horizon}", rounds, "build the world with the saved horizon")
        self.round = rounds
        for name, value in self.sums.items():
            value.copy_(state[f"sums.{name}"])


class SingleWorld(gym.Env[np.ndarray, Any]):
    """One run of a regret world as a gymnasium environment with numpy arrays.

    Observation: the last loss's gradient at the action (bandit feedback: the last loss), float32, zeros at first. An
    action outside the world's region is brought inside by the region's rule (ball: scaled to the boundary; simplex:
    clipped at 0 and divided by the sum; box and arms: clipped). Reward: minus the loss. Truncated after the last round,
    whose info holds the regrets as floats. `reset(seed=s)` plays seed s of the world, a reset without one a seed that
    the environment's own generator draws.

    Args:
        world: the world's class.
        run: the run's id.
        arguments: the world's own, but for runs, seed and device.
    """

    def __init__(self, world: type[RegretWorld], run: int = 0, **arguments: Any) -> None:
        self.world = world(runs=[run], **arguments)
        self.observation_space = self.world.single_observation_space
        self.action_space = self.world.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**32)) if seed is None else seed
        observation, _ = self.world.reset(seed=chosen)
        return observation[0].numpy().astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        region = self.world.region
        given = np.asarray(action, np.float64 if region.dtype == torch.float64 else np.int64)
        if given.shape != region.shape:
            reject("action", f"shape {region.shape}", f"shape {given.shape}", "give one of the action space")
        inside = torch.as_tensor(region.inside(given)).unsqueeze(0)
        observation, reward, _, truncated, _ = self.world.step(inside)
        ended = bool(truncated[0])
        info = {name: float(value[0]) for name, value in self.world.regret().items()} if ended else {}
        return observation[0].numpy().astype(np.float32), float(reward[0]), False, ended, info
