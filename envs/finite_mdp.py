"""Finite episodic Markov decision processes: laws of the next state, mixed by features; checked, and read from files.

The law of the next state is P_h(.|s, a) = sum_i features(s, a)_i laws_{h, i}: a linear MDP when the features are given,
an ordinary tabular one when every pair (s, a) has a law of its own. What nature perturbs in a robust problem is each
law by itself (`envs.uncertainty`): d-rectangular sets in the first case, (s, a)-rectangular ones in the second.
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbs import reject

__all__ = ["FiniteMDP", "linear_mdp", "load_mdp", "tabular_mdp"]

TOLERANCE = 1e-6  # by how much rows may miss their sum, and fall below 0, as those of float32 do; they are mended


@dataclasses.dataclass(frozen=True, eq=False)
class FiniteMDP:
    """S states, A actions, F laws, episodes of H steps; all tensors float64 on one device.

    Attributes:
        laws: (H, F, S), or (1, F, S) where all steps have the same; each row a distribution over the next state.
        reward: (..., H, S, A), or (..., 1, S, A); leading axes are runs that differ in their rewards.
        steps: H.
        features: (S, A, F) or (H, S, A, F), rows in the simplex; None where law s * A + a is that of (s, a).
        start: (S,) the distribution of the first state; state 0 if None.
        fail: states that pay nothing and only reach themselves, so that their value is known to be 0.

    Raises:
        ValueError: a shape that does not fit, laws that are no distributions, features outside the simplex.
    """

    laws: Tensor
    reward: Tensor
    steps: int
    features: Tensor | None = None
    start: Tensor = None  # type: ignore[assignment]
    fail: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        def put(field: str, value: Any) -> None:
            object.__setattr__(self, field, value)

        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            reject("FiniteMDP.steps", "a whole number of at least 1", repr(self.steps), "give the length of an episode")
        for field, ranks in (("laws", (3,)), ("reward", (3, 4)), ("features", (3, 4)), ("start", (1,))):
            value = getattr(self, field)
            if value is None and field in ("features", "start"):
                continue
            try:
                value = torch.as_tensor(value)
            except (TypeError, ValueError, RuntimeError):
                reject(f"FiniteMDP.{field}", "a tensor of numbers", repr(value), "see the class's shapes")
            if value.is_complex():
                reject(f"FiniteMDP.{field}", "real numbers", f"{value.dtype}", "mend the model")
            value = value.to(torch.float64)
            if value.ndim not in ranks:
                wanted = " or ".join(f"{rank} axes" for rank in ranks)
                reject(f"FiniteMDP.{field}", wanted, f"shape {tuple(value.shape)}", "see the class's shapes")
            if not bool(torch.isfinite(value).all()):
                reject(f"FiniteMDP.{field}", "finite numbers", "a NaN or inf", "mend the model")
            put(field, value)
        for field in ("laws", "reward", "features"):
            value = getattr(self, field)
            if value is None or (field == "features" and value.ndim == 3):
                continue
            length = value.shape[0 if field == "laws" else -3 if field == "reward" else 0]
            if length not in (1, self.steps):
                wanted = f"{self.steps} steps (or 1 for all)"
                reject(f"FiniteMDP.{field}", wanted, f"{length}", "give an entry a step, or another number of steps")
        states, actions = self.reward.shape[-2:]
        if self.laws.shape[-1] != states:
            wanted = f"laws over {states} states, as the rewards have"
            reject("FiniteMDP.laws", wanted, f"shape {tuple(self.laws.shape)}", "align laws and rewards")
        if self.start is None:
            put("start", torch.nn.functional.one_hot(torch.zeros((), dtype=torch.int64), states).to(self.laws))
        factors = self.laws.shape[-2]
        if self.features is None:
            if factors != states * actions:
                wanted = f"{states * actions} laws, one a pair (s, a)"
                reject("FiniteMDP.laws", wanted, f"{factors}", "give features, or a law for each pair")
        else:
            if self.features.shape[-3:] != (states, actions, factors):
                wanted = f"shape ({states}, {actions}, {factors}), or that for each step"
                reject("FiniteMDP.features", wanted, f"shape {tuple(self.features.shape)}", "align them")
            put("features", _simplex("FiniteMDP.features", "points of the simplex (at least 0, sum 1)", self.features))
        put("laws", _simplex("FiniteMDP.laws", "distributions (at least 0, sum 1)", self.laws))
        if self.start.shape != (states,):
            reject("FiniteMDP.start", f"shape ({states},)", f"shape {tuple(self.start.shape)}", "a chance a state")
        put("start", _simplex("FiniteMDP.start", "a distribution (at least 0, sum 1)", self.start))
        for state in self.fail:
            if not isinstance(state, int) or not 0 <= state < states:
                reject("FiniteMDP.fail", f"states 0 to {states - 1}", state, "name states of the model")
            stays = bool((self.kernel[:, state, :, state] >= 1 - TOLERANCE).all())
            if not stays or bool((self.reward[..., state, :] != 0).any()):
                wanted = "states that pay nothing and only reach themselves"
                reject("FiniteMDP.fail", wanted, f"state {state}", "leave it out, or mend the model")

    @property
    def states(self) -> int:
        return int(self.reward.shape[-2])

    @property
    def actions(self) -> int:
        return int(self.reward.shape[-1])

    @property
    def factors(self) -> int:
        return int(self.laws.shape[-2])

    @property
    def device(self) -> torch.device:
        return self.laws.device

    def laws_at(self, step: int) -> Tensor:
        """(F, S) of a step."""
        return self.laws[step if len(self.laws) > 1 else 0]

    def reward_at(self, step: int) -> Tensor:
        """(..., S, A) of a step."""
        return self.reward[..., step if self.reward.shape[-3] > 1 else 0, :, :]

    def features_at(self, step: int) -> Tensor | None:
        """(S, A, F) of a step; None where there are none."""
        if self.features is None or self.features.ndim == 3:
            return self.features
        return self.features[step if len(self.features) > 1 else 0]

    def mix(self, step: int, each: Tensor) -> Tensor:
        """(..., S, A) from a number a law, (..., F): its mean under the features."""
        features = self.features_at(step)
        if features is None:
            return each.reshape(*each.shape[:-1], self.states, self.actions)
        return (each @ features.flatten(0, 1).mT).reshape(*each.shape[:-1], self.states, self.actions)

    @functools.cached_property
    def kernel(self) -> Tensor:
        """(H or 1, S, A, S) the chances of the next state."""
        if self.features is None:
            return self.laws.reshape(-1, self.states, self.actions, self.states)
        features = self.features if self.features.ndim == 4 else self.features.unsqueeze(0)
        return (features.flatten(1, 2) @ self.laws).reshape(-1, self.states, self.actions, self.states)

    def to(self, device: torch.device | str) -> FiniteMDP:
        """The same on another device."""
        moved = {name: getattr(self, name) for name in ("laws", "reward", "features", "start")}
        moved = {name: value if value is None else value.to(device) for name, value in moved.items()}
        return dataclasses.replace(self, **moved)

    def replace(self, **changes: Any) -> FiniteMDP:
        """A copy with fields changed, checked again."""
        return dataclasses.replace(self, **changes)


def _simplex(field: str, expected: str, rows: Tensor) -> Tensor:
    """The rows, up to rounding in the simplex, divided by their sums."""
    if float(rows.min()) < -TOLERANCE:
        reject(field, expected, f"an entry of {float(rows.min()):g}", "mend it")
    total = rows.sum(-1, keepdim=True)
    off = float((total - 1.0).abs().max())
    if off > TOLERANCE:
        given = f"a row whose sum misses 1 by {off:.3g}"
        reject(field, expected, given, "divide each row by its sum, if that is meant")
    kept = rows.clamp_min(0.0)
    return kept / kept.sum(-1, keepdim=True)


def linear_mdp(
    features: Any, laws: Any, weights: Any, steps: int, start: Any = None, fail: tuple[int, ...] = ()
) -> FiniteMDP:
    """A linear MDP: rewards <features(s, a), weights_h> too.

    Args:
        features: (S, A, d); laws: (H or 1, d, S); weights: (H or 1, d); steps: H; fail: as in `FiniteMDP`.
        start: a state's number, or (S,); the first state if None.
    """
    phi, theta = (torch.as_tensor(x, dtype=torch.float64) for x in (features, weights))
    if phi.ndim != 3 or theta.ndim != 2 or theta.shape[-1] != phi.shape[-1]:
        given = f"shapes {tuple(phi.shape)} and {tuple(theta.shape)}"
        reject("linear_mdp.features, weights", "shapes (S, A, d) and (H or 1, d)", given, "align them")
    reward = torch.einsum("sad,hd->hsa", phi, theta)
    return FiniteMDP(torch.as_tensor(laws), reward, steps, phi, _start(start, phi.shape[0]), fail)


def tabular_mdp(kernel: Any, reward: Any, steps: int, start: Any = None, fail: tuple[int, ...] = ()) -> FiniteMDP:
    """A tabular MDP from P (S, A, S) or (H, S, A, S) and rewards (S, A) or (H, S, A)."""
    chances, pays = (torch.as_tensor(x, dtype=torch.float64) for x in (kernel, reward))
    if chances.ndim not in (3, 4) or pays.ndim not in (2, 3):
        given = f"shapes {tuple(chances.shape)} and {tuple(pays.shape)}"
        reject("tabular_mdp.kernel, reward", "shapes ([H,] S, A, S) and ([H,] S, A)", given, "align them")
    chances = chances if chances.ndim == 4 else chances.unsqueeze(0)
    pays = pays if pays.ndim == 3 else pays.unsqueeze(0)
    return FiniteMDP(chances.flatten(1, 2), pays, steps, None, _start(start, chances.shape[-1]), fail)


def _start(given: Any, states: int) -> Tensor:
    if given is None or isinstance(given, (int, np.integer)):
        where = 0 if given is None else int(given)
        if not 0 <= where < states:
            reject("start", f"a state, 0 to {states - 1}", given, "give one, or a distribution")
        return torch.nn.functional.one_hot(torch.tensor(where), states).double()
    return torch.as_tensor(given, dtype=torch.float64)


NAMES = {"kernel": ("kernel", "tx_mat", "P"), "reward": ("reward", "r_mat", "R"), "start": ("start", "d_0")}


def load_mdp(path: str | Path, steps: int) -> FiniteMDP:
    """A tabular MDP, the same in all steps, from an .npz file.

    Arrays, by any of the names: kernel, tx_mat or P (S, A, S); reward, r_mat or R, (S, A) or, paid on the way to the
    next state, (S, A, S); start or d_0 (S,), the first state where there is none. Other arrays are left alone.

    Raises:
        ValueError: no such file, not an .npz, an array that is missing, misshapen or no distribution.
    """
    path = Path(path)
    if not path.is_file():
        reject("model", "an existing .npz file", path, "check the path")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {
                what: next((np.asarray(file[name], np.float64) for name in names if name in file.files), None)
                for what, names in NAMES.items()
            }
            there = ", ".join(file.files)
    except (ValueError, TypeError, OSError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"model: expected an .npz file of numbers, got {path} ({error}). Fix: write it with numpy.savez."
        ) from error
    kernel, reward, start = arrays["kernel"], arrays["reward"], arrays["start"]
    if kernel is None or reward is None:
        reject("model", f"arrays {NAMES['kernel']} and {NAMES['reward']}", f"{there} in {path}", "name them so")
    if kernel.ndim != 3 or kernel.shape[0] != kernel.shape[2]:
        reject("model.kernel", "shape (S, A, S)", f"shape {kernel.shape} in {path}", "one law a pair (s, a)")
    if reward.shape not in (kernel.shape, kernel.shape[:2]):
        wanted = f"shape {kernel.shape} or {kernel.shape[:2]}"
        reject("model.reward", wanted, f"shape {reward.shape} in {path}", "align it with the kernel")
    if reward.ndim == 3:
        reward = (kernel * reward).sum(-1)
    return tabular_mdp(kernel, reward, steps, start)
