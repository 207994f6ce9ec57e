"""Critics: values of their own, plugged into actors that call `actor_value` alone.

The interface is `Critic`. `TwinCritic` is TD3's pair, `GaussianCritic` STAC's, and `BEERRegularizer` adds BEER's
penalty to either. TD3BC, PRDC and what follows them take one by name (`critic="stac"`, `--set td3bc.critic=stac`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from offline_rl.critics.beer import BEERRegularizer, representation_rank
from offline_rl.critics.gaussian import COMBINE, GaussianCritic
from offline_rl.critics.interface import Batch, Critic, Evaluation, td_target
from offline_rl.critics.twin import TwinCritic
from orbs import Philox, reject

if TYPE_CHECKING:
    from offline_rl.critic_config import CriticConfig

__all__ = [
    "CRITICS",
    "BEERRegularizer",
    "Batch",
    "Critic",
    "Evaluation",
    "GaussianCritic",
    "TwinCritic",
    "make_critic",
    "representation_rank",
    "td_target",
]

CRITICS: dict[str, Callable[..., Critic]] = {"twin": TwinCritic, "stac": GaussianCritic}
"""Name -> constructor with (philox, obs_dim, action_dim, hidden, discount=, tau=, learning_rate=, dtype=)."""

# What a critic takes besides, by argument: the configuration's field.
_FIELDS: dict[str, dict[str, str]] = {
    "stac": {
        "beta": "critic_beta",
        "dropout": "critic_dropout",
        "target_dropout": "critic_target_dropout",
        "combine": "critic_combine",
    },
}


def make_critic(
    config: CriticConfig,
    philox: Philox,
    obs_dim: int,
    action_dim: int,
    hidden: Sequence[int],
    dtype: torch.dtype,
    policy: Callable[[Tensor], Tensor] | None = None,
) -> Critic:
    """The critic that the configuration names, with BEER's penalty where `config.beer` is above 0.

    Args:
        config: fields `critic`, `critic_*`, `beer*`, `discount`, `tau`, `learning_rate`.
        policy: the online actor without noise, (R, B, obs_dim) -> (R, B, action_dim); for beer_bound "author" alone.

    Raises:
        ValueError: an unknown name.
        TypeError: BEER on a critic without features.
    """
    name = config.critic
    if name not in CRITICS:
        reject("critic", f"one of {', '.join(CRITICS)}", f"'{name}'", "choose one of these")
    own = {argument: getattr(config, field) for argument, field in _FIELDS.get(name, {}).items()}
    if "combine" in own:
        own["members"] = COMBINE[config.critic_combine]
    critic = CRITICS[name](
        philox,
        obs_dim,
        action_dim,
        hidden,
        discount=config.discount,
        tau=config.tau,
        learning_rate=config.learning_rate,
        dtype=dtype,
        **own,
    )
    if config.beer == 0.0:
        return critic
    options = {"mask_terminal": config.beer_mask_terminal, "bias_correct": config.beer_bias_correct}
    return BEERRegularizer(critic, config.beer, config.beer_bound, policy=policy, **options)
