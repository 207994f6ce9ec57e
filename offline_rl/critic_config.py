"""Which critic an actor has, and BEER's penalty on it: what configurations with a pluggable critic share.

Like every configuration's, this module never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from offline_rl.config_checks import Checker

__all__ = ["CriticConfig"]


@dataclass(frozen=True)
class CriticConfig:
    """The fields that `offline_rl.critics.make_critic` reads, besides three that every such configuration has.

    Joins a configuration as its first base, which lists these fields after the other bases', and is checked by
    `check_critic` in its `__post_init__`.
    """

    if TYPE_CHECKING:  # the three, which come from the other base

        @property
        def discount(self) -> float: ...
        @property
        def tau(self) -> float: ...
        @property
        def learning_rate(self) -> float: ...

    critic: str = "twin"
    """The critic, by its name in offline_rl.critics.CRITICS: TD3's "twin", or "stac", a Gaussian over the target."""
    critic_beta: float = 0.25
    """What a standard deviation costs in STAC's value, mu - beta sigma. With critic "stac" alone, as the next three."""
    critic_dropout: float = 0.01
    """Probability of dropping a hidden unit of STAC's critic in training, before its LayerNorm."""
    critic_target_dropout: bool = True
    """Drop units in STAC's slow critic, too (the author's code)."""
    critic_combine: Literal["single", "min_mean", "min_pess"] = "single"
    """One Gaussian critic, or two: the smaller mu without beta (the paper's ESTAC), or the smaller mu - beta sigma."""
    beer: float = 0.0
    """Weight of BEER's penalty on the critic's features; the authors' is 1e-3, 0 leaves it out."""
    beer_bound: Literal["consistent", "author"] = "consistent"
    """The next feature in BEER's bound: the slow networks' throughout, or the online ones' in its numerator (code)."""
    beer_mask_terminal: bool = True
    """No penalty at terminals, where the bound does not hold; the authors' tasks have none."""
    beer_bias_correct: bool = False
    """Make the bound with r - (1 - gamma) b, b the bias of the critic's last layer."""

    def check_critic(self, check: Checker) -> None:
        """Check these fields.

        Raises:
            ValueError: a number out of its range, an unknown rule. The critic's name is `make_critic`'s to check.
        """
        check.not_negative("critic_beta", "beer")
        check.between(0.0, 0.99, "critic_dropout")
        check.one_of("critic_combine", "single", "min_mean", "min_pess")
        check.one_of("beer_bound", "consistent", "author")
