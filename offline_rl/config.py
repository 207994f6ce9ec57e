"""Hyperparameters of every learner: one frozen dataclass each, in a module that never imports torch.

Change a default here and it changes for the class, for the command line and for its help text at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

__all__ = ["CONFIGS", "BCConfig", "Config", "PRDCConfig", "TD3BCConfig"]


@dataclass(frozen=True)
class Config:
    """What every offline learner has."""

    batch_size: int = 256
    """Rows per update and run."""
    learning_rate: float = 3e-4
    """Adam's step size for the actor (and, where there is one, the critic)."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    normalise_obs: bool = True
    """Scale observations to (s - mean) / (std + 1e-3), statistics over the data's current observations."""
    stats_dtype: Literal["float64", "float32"] = "float64"
    """Precision of those statistics; float32 reproduces the authors' NumPy call bit for bit."""
    reward_scale: float = 1.0
    """Rewards are used as scale * r + shift."""
    reward_shift: float = 0.0
    """See reward_scale."""

    def __post_init__(self) -> None:
        check = _Checker(self)
        check.positive("batch_size", "learning_rate", "reward_scale")
        widths = self.hidden if isinstance(self.hidden, (tuple, list)) else ()
        if not widths or any(not isinstance(width, int) or width < 1 for width in widths):
            check.reject("hidden", "one or more positive widths", "e.g. hidden=(256, 256)")
        object.__setattr__(self, "hidden", tuple(widths))  # JSON gives a list
        check.one_of("stats_dtype", "float64", "float32")


@dataclass(frozen=True)
class BCConfig(Config):
    """Behaviour cloning; with top_fraction the percentile variant ("10 % BC")."""

    top_fraction: float | None = None
    """Keep this share of the data's blocks, best return first; None keeps every row, in order. CORL's BC is 1.0
    (which drops an incomplete last block), its 10 % BC is 0.1."""
    filter_discount: float = 1.0
    """Discount of the block returns by which blocks are ranked."""
    filter_horizon: int = 1000
    """A block ends at a terminal row or after this many rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = _Checker(self)
        if self.top_fraction is not None and not 0 < self.top_fraction <= 1:
            check.reject("top_fraction", "None or a number in (0, 1]", "e.g. top_fraction=0.1")
        check.positive("filter_horizon")
        check.share("filter_discount")


@dataclass(frozen=True)
class TD3BCConfig(Config):
    """TD3 with a behaviour-cloning term."""

    alpha: float = 2.5
    """Weight of the value against the penalty; 0 is behaviour cloning."""
    discount: float = 0.99
    """gamma."""
    tau: float = 0.005
    """Polyak step of the target networks."""
    policy_noise: float = 0.2
    """Standard deviation of the target policy's noise, in units of half the action range."""
    noise_clip: float = 0.5
    """Bound of that noise, in the same units."""
    policy_period: int = 2
    """The actor and all target networks move every this many updates."""
    critic: str = "twin"
    """The critic, by its name in offline_rl.critics.CRITICS."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = _Checker(self)
        check.not_negative("alpha", "policy_noise", "noise_clip")
        check.positive("policy_period")
        check.share("discount", "tau")


@dataclass(frozen=True)
class PRDCConfig(TD3BCConfig):
    """Policy regularisation with dataset constraint."""

    beta: float | None = None
    """Scale of the (normalised) observation in the search key; must be given. Authors: 2 for locomotion, 7.5 for
    AntMaze."""
    k: int = 1
    """Which nearest row is the target."""
    k_rule: Literal["kth", "mean_of_k"] = "kth"
    """The k-th row alone (the authors' code), or the mean action of the k nearest."""
    penalty: Literal["action_mse", "joint_norm"] = "action_mse"
    """Mean squared error of the action (code), or the distance in the joint space (paper)."""
    q_normaliser: Literal["policy", "data"] = "policy"
    """lambda = alpha / mean |Q| over the policy's actions (code) or the data's (paper)."""
    neighbours: int = 64
    """Length of each row's candidate list; changes the speed, never the result."""
    legacy_scale_next_state: bool = False
    """Apply reward_scale and reward_shift to the next observation instead of the reward, as the authors' code did
    before 5 July 2023. For forensic comparison only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = _Checker(self)
        if self.beta is None:
            check.reject("beta", "a number", "pass beta=2.0 (locomotion) or beta=7.5 (AntMaze)")
        check.not_negative("beta")
        check.positive("k", "neighbours")
        check.one_of("k_rule", "kth", "mean_of_k")
        check.one_of("penalty", "action_mse", "joint_norm")
        check.one_of("q_normaliser", "policy", "data")


class _Checker:
    """Errors for one configuration's fields, in the suite's form."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.name = type(config).__name__.removesuffix("Config").lower()
        for field in fields(config):
            kind, value = str(field.type).removesuffix(" | None"), getattr(config, field.name)
            if value is None and str(field.type).endswith("| None"):
                continue
            if kind == "bool" and not isinstance(value, bool):
                self.reject(field.name, "True or False", f"e.g. {field.name}={field.default}")
            if kind in ("int", "float") and (isinstance(value, bool) or not isinstance(value, (int, float))):
                self.reject(field.name, f"a number ({kind})", f"e.g. {field.name}={field.default}")
            if kind == "int" and not isinstance(value, int):
                self.reject(field.name, "an integer", f"e.g. {field.name}={field.default}")
            if kind == "float" and not math.isfinite(value):
                self.reject(field.name, "a finite number", f"e.g. {field.name}={field.default}")

    def reject(self, field: str, expected: str, fix: str) -> None:
        given = getattr(self.config, field)
        raise ValueError(f"{self.name}.{field}: expected {expected}, got {given!r}. Fix: {fix}.")

    def positive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self.config, name) < float("inf"):
                self.reject(name, "a positive finite number", "give one above 0")

    def not_negative(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self.config, name) < float("inf"):
                self.reject(name, "a finite number of at least 0", "give one of at least 0")

    def share(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self.config, name) <= 1:
                self.reject(name, "a number from 0 to 1", "e.g. 0.99")

    def one_of(self, name: str, *allowed: Any) -> None:
        if getattr(self.config, name) not in allowed:
            self.reject(name, " or ".join(repr(item) for item in allowed), "choose one of these")


CONFIGS: dict[str, type[Config]] = {"bc": BCConfig, "td3bc": TD3BCConfig, "prdc": PRDCConfig}
"""Command-line name of each algorithm -> its hyperparameters."""
