"""Deep actor-critics that interact with an environment and learn from a replay of their own.

    from offline_rl.online import SAC
    agent = SAC.for_env(env, runs=5)

Classes are imported at first use, so that reading hyperparameters (`offline_rl.online.config`) needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offline_rl.online.agent import OnlineAgent as OnlineAgent
    from offline_rl.online.beer import BEER as BEER
    from offline_rl.online.sac import SAC as SAC
    from offline_rl.online.stac import STAC as STAC
    from offline_rl.online.td3 import TD3 as TD3

_HOMES = {
    "BEER": "offline_rl.online.beer",
    "SAC": "offline_rl.online.sac",
    "STAC": "offline_rl.online.stac",
    "TD3": "offline_rl.online.td3",
    "OnlineAgent": "offline_rl.online.agent",
}

__all__ = ["BEER", "SAC", "STAC", "TD3", "OnlineAgent"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'offline_rl.online' has no attribute '{name}'; it offers {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
