"""Hyperparameters of the agents that interact: one frozen dataclass each, in a module that never imports torch.

Change a default here and it changes for the class, for the command line and for its help text at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from offline_rl.config_checks import Checker
from offline_rl.critic_config import CriticConfig

__all__ = ["ONLINE_CONFIGS", "BEERConfig", "OnlineConfig", "SACConfig", "STACConfig", "TD3Config"]


@dataclass(frozen=True)
class OnlineConfig:
    """What every agent that interacts has."""

    batch_size: int = 256
    """Transitions per update and run."""
    learning_rate: float = 3e-4
    """Adam's step size for actor and critic."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    discount: float = 0.99
    """gamma."""
    tau: float = 0.005
    """Polyak step of the target networks."""
    capacity: int = 1_000_000
    """Transitions that the replay holds; the oldest make room."""
    random_steps: int = 25_000
    """Environment steps that are played at random; updates begin after them."""
    updates_per_step: int = 1
    """Updates per environment step."""
    update_every: int = 1
    """Environment steps between two blocks of updates; their number per step stays the same."""

    def __post_init__(self) -> None:
        check = Checker(self)
        check.positive("batch_size", "learning_rate", "capacity", "updates_per_step", "update_every")
        check.widths("hidden")
        check.share("discount", "tau")
        check.not_negative("random_steps")
        if self.capacity < self.batch_size:
            check.reject("capacity", f"at least batch_size ({self.batch_size})", "e.g. capacity=1_000_000")

    def notes(self, steps: int, name: str | None = None) -> list[str]:
        """Lines that somebody who plays `steps` environment steps with this configuration should read first.

        Args:
            name: the agent's on the command line; None: ours with this configuration. Stable-Baselines3's ("sb3-...")
                learn when there are more than `random_steps` steps, ours when there are as many and a batch of them.
        """
        name = name or type(self).__name__.removesuffix("Config").lower()
        if name.startswith("sb3-"):
            first, why = self.random_steps + 1, f"random_steps is {self.random_steps}"
        else:
            first = -(-max(self.random_steps, self.batch_size) // self.update_every) * self.update_every
            fields = ("random_steps", "batch_size", "update_every")
            why = ", ".join(f"{field} is {getattr(self, field)}" for field in fields)
        if steps >= first:
            return []
        return [f"{name}: nothing is learned in {steps} steps: updates begin at step {first} ({why})"]


@dataclass(frozen=True)
class _TD3(OnlineConfig):
    """TD3's own fields: a class of their own, so that they are listed before the critic's."""

    exploration_noise: float = 0.1
    """Standard deviation of the acting policy's Gaussian noise, in units of half the action range."""
    policy_noise: float = 0.2
    """Standard deviation of the target policy's noise, in the same units."""
    noise_clip: float = 0.5
    """Bound of the target policy's noise."""
    policy_period: int = 2
    """The actor and all target networks move every this many updates."""


@dataclass(frozen=True)
class TD3Config(CriticConfig, _TD3):
    """Twin delayed deep deterministic policy gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        check.not_negative("exploration_noise", "policy_noise", "noise_clip")
        check.positive("policy_period")
        self.check_critic(check)


@dataclass(frozen=True)
class SACConfig(OnlineConfig):
    """Soft actor-critic with a learned temperature."""

    random_steps: int = 10_000
    """Environment steps that are played at random; updates begin after them. Stable-Baselines3: 100."""
    initial_alpha: float = 1.0
    """The temperature alpha at the start."""
    alpha_learning_rate: float = 3e-4
    """Adam's step size for log alpha; 0 keeps the temperature where it starts."""
    target_entropy: float | None = None
    """Entropy that the temperature steers to, of the action scaled to [-1, 1]; None: minus the action's size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        check.positive("initial_alpha")
        check.not_negative("alpha_learning_rate")


@dataclass(frozen=True)
class STACConfig(OnlineConfig):
    """Stochastic actor-critic: a Gaussian critic of the one-step target, its deviation as pessimism.

    ESTAC, the paper's ablation, is critics=2.
    """

    random_steps: int = 10_000
    """Environment steps that are played at random (tanh of normal numbers); updates begin after them."""
    beta: float = 0.25
    """Pessimism: mean - beta * std is backed up and maximised. Of no effect with two critics."""
    critics: int = 1
    """1, or 2 for ESTAC: the smaller of two means, no pessimism term."""
    critic_dropout: float = 0.01
    """Probability of dropping a hidden unit of the critic, before its LayerNorm."""
    actor_dropout: float = 0.01
    """The same in the actor, in training and while exploring."""
    target_dropout: bool = True
    """Dropout in the target critic too, as the author's code has it."""
    initial_alpha: float = 0.2
    """The temperature alpha at the start. Point mass: 0.01."""
    alpha_rule: Literal["stac", "exp", "adam"] = "stac"
    """One step of the temperature, with gap = target_entropy - entropy: alpha *= exp(rate alpha gap) (the author's),
    alpha *= exp(rate gap), or Adam on log alpha."""
    alpha_learning_rate: float = 3e-4
    """Its rate; 0 keeps the temperature where it starts."""
    alpha_cap: float = 100.0
    """Largest temperature: the author's rule diverges in finite time where the entropy stays too low."""
    target_entropy: float | None = None
    """Entropy that the temperature steers to, of the action scaled to [-1, 1]; None: minus the action's size."""
    distinct: bool = True
    """No transition twice in a batch; otherwise drawn with replacement."""
    evaluation_action: Literal["mean", "samples"] = "mean"
    """Deterministic action: tanh of the policy's mean, or the average of 10 samples (the author's code)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        check.not_negative("beta", "alpha_learning_rate")
        check.positive("initial_alpha", "alpha_cap")
        check.one_of("critics", 1, 2)
        for name in ("critic_dropout", "actor_dropout"):
            if not 0 <= getattr(self, name) < 1:
                check.reject(name, "a number from 0 to below 1", f"e.g. {name}=0.01")
        check.one_of("alpha_rule", "stac", "exp", "adam")
        check.one_of("evaluation_action", "mean", "samples")
        if self.initial_alpha > self.alpha_cap:
            check.reject("initial_alpha", f"at most alpha_cap ({self.alpha_cap})", "e.g. initial_alpha=0.2")


@dataclass(frozen=True)
class BEERConfig(OnlineConfig):
    """Deterministic policy gradient whose critic's features obey a bound from the Bellman equation."""

    exploration_noise: float = 0.1
    """Standard deviation of the acting policy's Gaussian noise, in units of half the action range."""
    beta: float = 1e-3
    """Weight of the penalty; 0 is the plain learner."""
    bound: Literal["author", "consistent"] = "author"
    """Next features in the bound: online in the numerator and target below (the authors' code), or target in both."""
    mask_terminal: bool = False
    """No penalty on terminal transitions: turn it on wherever the environment terminates, which the DeepMind control
    suite never does."""
    bias_correct: bool = False
    """r - (1 - gamma) b in place of r in the bound: exact where the critic's last layer has a bias b."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        check.not_negative("exploration_noise", "beta")
        check.one_of("bound", "author", "consistent")


ONLINE_CONFIGS: dict[str, type[OnlineConfig]] = {
    "td3": TD3Config,
    "sac": SACConfig,
    "stac": STACConfig,
    "beer": BEERConfig,
}
"""Command-line name of each agent that interacts -> its hyperparameters."""
