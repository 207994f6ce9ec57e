"""Deep actor-critics that learn from a fixed dataset, and (`offline_rl.online`) agents that interact.

    from offline_rl import PRDC, SAC
    learner = PRDC.for_dataset(dataset, runs=5, beta=2.0)
    agent = SAC.for_env(env, runs=5)

Classes are imported at first use, so that reading hyperparameters (`offline_rl.config`) needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from offline_rl.a2pr import A2PR as A2PR
    from offline_rl.base import Learner as Learner
    from offline_rl.bc import BC as BC
    from offline_rl.iql import IQL as IQL
    from offline_rl.learner import OfflineLearner as OfflineLearner
    from offline_rl.odice import ODICE as ODICE
    from offline_rl.online.agent import OnlineAgent as OnlineAgent
    from offline_rl.online.beer import BEER as BEER
    from offline_rl.online.sac import SAC as SAC
    from offline_rl.online.stac import STAC as STAC
    from offline_rl.online.td3 import TD3 as TD3
    from offline_rl.prdc import PRDC as PRDC
    from offline_rl.rebrac import ReBRAC as ReBRAC
    from offline_rl.td3_bc import TD3BC as TD3BC

_HOMES = {
    "A2PR": "offline_rl.a2pr",
    "BC": "offline_rl.bc",
    "TD3BC": "offline_rl.td3_bc",
    "IQL": "offline_rl.iql",
    "ODICE": "offline_rl.odice",
    "PRDC": "offline_rl.prdc",
    "ReBRAC": "offline_rl.rebrac",
    "TD3": "offline_rl.online.td3",
    "SAC": "offline_rl.online.sac",
    "STAC": "offline_rl.online.stac",
    "BEER": "offline_rl.online.beer",
    "Learner": "offline_rl.base",
    "OfflineLearner": "offline_rl.learner",
    "OnlineAgent": "offline_rl.online.agent",
}
_ALGORITHMS = {
    "bc": "BC",
    "td3bc": "TD3BC",
    "iql": "IQL",
    "odice": "ODICE",
    "prdc": "PRDC",
    "a2pr": "A2PR",
    "rebrac": "ReBRAC",
    "td3": "TD3",
    "sac": "SAC",
    "stac": "STAC",
    "beer": "BEER",
}

__all__ = ["A2PR", "BC", "BEER", "IQL", "ODICE", "PRDC", "SAC", "STAC", "TD3", "TD3BC", "Learner", "OfflineLearner",
           "OnlineAgent", "ReBRAC", "algorithm", "load"]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'offline_rl' has no attribute '{name}'; it offers {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def algorithm(name: str) -> type[Any]:
    """The class behind a command-line name: an `OfflineLearner` or an `OnlineAgent`.

    Raises:
        ValueError: an unknown name; the nearest one is suggested.
    """
    from difflib import get_close_matches

    key = name.lower().replace("+", "").replace("-", "").replace("_", "")
    if key not in _ALGORITHMS:
        near = get_close_matches(key, _ALGORITHMS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(
            f"algorithm: expected one of {', '.join(_ALGORITHMS)}, got '{name}'. Fix: {hint}see orbs list."
        )
    found: type[Learner] = __getattr__(_ALGORITHMS[key])
    return found


def load(folder: str | Path, device: str = "cpu") -> Any:
    """The learner of a run folder (or of a checkpoint file), ready to act: of the class that it was saved from.

    Raises:
        ValueError: no such folder, or a damaged checkpoint.
    """
    from pathlib import Path

    from orbs import load_tensors

    path = Path(folder)
    if path.is_dir():
        path = path / "checkpoint.safetensors"
    _, meta = load_tensors(path)
    return algorithm(str(meta.get("algorithm"))).load(path, device)
