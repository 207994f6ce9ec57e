"""Behaviour policies: small networks that made the local datasets, as safetensors with JSON, evaluated in numpy.

>>> from envs.behaviours import load
>>> policy = load("hopper-medium")
>>> action = policy.act(obs)             # mean actions
>>> action = policy.act(obs, noise)      # sampled ones, noise standard normal

Trained by `orbs collect train` (envs/train_behaviour.py). Loading one runs no code that came with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbs import load_tensors, reject, save_tensors

__all__ = ["BehaviourPolicy", "digest", "load", "names"]

_FOLDER = Path(__file__).parent
_LAYERS = ("hidden1", "hidden2", "mean", "log_std")
_LOG_STD_MIN, _LOG_STD_MAX = -20.0, 2.0


@dataclasses.dataclass(frozen=True)
class BehaviourPolicy:
    """A tanh-Gaussian policy with two rectified hidden layers.

    Attributes:
        weights: layer -> (out, in) float32, for hidden1, hidden2, mean, log_std.
        biases: layer -> (out,) float32.
        action_low, action_high: (action_dim,) float32; the squashed action is scaled to these.
        meta: how it was trained and what it scored, as plain JSON values.
    """

    weights: Mapping[str, np.ndarray]
    biases: Mapping[str, np.ndarray]
    action_low: np.ndarray
    action_high: np.ndarray
    meta: Mapping[str, Any]

    def act(self, obs: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """(n, action_dim) float32 actions at obs (n, obs_dim), in the environment's units.

        Args:
            noise: (n, action_dim) standard normal; None for the mean action.
        """
        hidden = np.asarray(obs, np.float32)
        for layer in ("hidden1", "hidden2"):
            hidden = np.maximum(hidden @ self.weights[layer].T + self.biases[layer], np.float32(0))
        action = hidden @ self.weights["mean"].T + self.biases["mean"]
        if noise is not None:
            log_std = np.clip(hidden @ self.weights["log_std"].T + self.biases["log_std"], _LOG_STD_MIN, _LOG_STD_MAX)
            action = action + np.exp(log_std) * np.asarray(noise, np.float32)
        squashed = np.tanh(action)
        scaled = self.action_low + np.float32(0.5) * (squashed + np.float32(1)) * (self.action_high - self.action_low)
        return np.asarray(np.clip(scaled, self.action_low, self.action_high), np.float32)

    def save(self, path: str | Path) -> None:
        """One safetensors file with the meta as JSON in its header, written whole or not at all."""
        tensors = {f"{layer}.weight": torch.from_numpy(np.array(self.weights[layer])) for layer in _LAYERS}
        tensors |= {f"{layer}.bias": torch.from_numpy(np.array(self.biases[layer])) for layer in _LAYERS}
        tensors |= {name: torch.from_numpy(np.array(getattr(self, name))) for name in ("action_low", "action_high")}
        save_tensors(path, tensors, {"kind": "behaviour policy", **self.meta})

    @classmethod
    def read(cls, path: str | Path) -> BehaviourPolicy:
        """The policy in a file that `save` wrote.

        Raises:
            ValueError: the file is missing, damaged, or holds something else.
        """
        if not Path(path).is_file():
            reject("behaviour", "an existing file", f"'{path}'", f"name one of {', '.join(names())}, or a file")
        tensors, meta = load_tensors(path)
        wanted = {f"{layer}.{part}" for layer in _LAYERS for part in ("weight", "bias")} | {"action_low", "action_high"}
        if meta.get("kind") != "behaviour policy" or set(tensors) != wanted:
            reject("behaviour", "a file that orbs collect exported", path, "name a *.safetensors file of a policy")
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        _check(path, arrays, meta)
        return cls(
            weights={layer: arrays[f"{layer}.weight"] for layer in _LAYERS},
            biases={layer: arrays[f"{layer}.bias"] for layer in _LAYERS},
            action_low=arrays["action_low"],
            action_high=arrays["action_high"],
            meta=meta,
        )


def _check(path: str | Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Shapes that fit each other, finite numbers, and an environment's id that imports no module."""
    fix = "export the policy again"
    width, wide = arrays["hidden1.weight"].shape[0], arrays["hidden2.weight"].shape[0]
    actions = len(arrays["action_low"])
    shapes = {"hidden1": (width, None), "hidden2": (wide, width), "mean": (actions, wide), "log_std": (actions, wide)}
    for layer, (out, given) in shapes.items():
        weight, bias = arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]
        if weight.ndim != 2 or weight.shape[0] != out or given not in (None, weight.shape[1]) or bias.shape != (out,):
            what = f"{layer} of shapes {weight.shape} and {bias.shape} in {path}"
            reject("behaviour", "layers that fit each other", what, fix)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            reject("behaviour", "finite numbers", f"a NaN or inf in {name} of {path}", fix)
    env = meta.get("env")
    if env is not None and (
        not isinstance(env, str) or not re.fullmatch(r"[\w./-]+", env)
    ):  # Gymnasium imports modules
        reject("behaviour", "the id of an environment without a module", f"{env!r} in {path}", "pass --env")


def names() -> list[str]:
    """The shipped policies, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def digest(name: str) -> str:
    """SHA-256 of a shipped policy's file, by which a dataset that it made can be told from an older version's."""
    return hashlib.sha256((_FOLDER / f"{name}.safetensors").read_bytes()).hexdigest()


def load(name: str) -> BehaviourPolicy:
    """A shipped policy by name.

    Raises:
        ValueError: no such policy; names the nearest.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        reject("behaviour", "the name of a shipped policy", f"'{name}'", f"{hint}names are {', '.join(names())}")
    return BehaviourPolicy.read(_FOLDER / f"{name}.safetensors")
