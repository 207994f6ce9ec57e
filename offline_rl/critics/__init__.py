"""Critics: values of their own, plugged into actors that call `actor_value` alone.

The interface is `Critic`; `TwinCritic` is TD3's pair. Another critic joins by implementing the protocol and by a line
in `CRITICS`; TD3BC, PRDC and what follows them take it by that name (`critic="twin"`, `--set td3bc.critic=twin`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from offline_rl.critics.interface import Batch, Critic, td_target
from offline_rl.critics.twin import TwinCritic
from orbs import Philox, reject

__all__ = ["CRITICS", "Batch", "Critic", "TwinCritic", "make_critic", "td_target"]

CRITICS: dict[str, Callable[..., Critic]] = {"twin": TwinCritic}
"""Name -> constructor with TwinCritic's arguments."""


def make_critic(
    name: str,
    philox: Philox,
    obs_dim: int,
    action_dim: int,
    hidden: Sequence[int],
    *,
    discount: float,
    tau: float,
    learning_rate: float,
    dtype: torch.dtype,
) -> Critic:
    """The critic of that name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in CRITICS:
        reject("critic", f"one of {', '.join(CRITICS)}", f"'{name}'", "choose one of these")
    make = CRITICS[name]
    return make(
        philox, obs_dim, action_dim, hidden, discount=discount, tau=tau, learning_rate=learning_rate, dtype=dtype
    )
