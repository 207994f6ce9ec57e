"""Which algorithms interact with an environment, by their names on the command line; imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from offline_rl.config import CONFIGS
from offline_rl.online.config import ONLINE_CONFIGS

if TYPE_CHECKING:
    from experiments.options import Train

__all__ = ["SECOND_OPINIONS", "agent_names", "config_of", "interact", "key_of", "known_names", "resolve"]

# Stable-Baselines3's, and which of ours has the same hyperparameters.
SECOND_OPINIONS = {"sb3-td3": "td3", "sb3-sac": "sac"}


def agent_names() -> list[str]:
    """All that interact: ours, then the second opinions."""
    return [*ONLINE_CONFIGS, *SECOND_OPINIONS]


def config_of(name: str) -> type[Any]:
    """The hyperparameters of an agent; a second opinion has those of ours."""
    return ONLINE_CONFIGS[SECOND_OPINIONS.get(name, name)]


def known_names(variants: Iterable[str] = ()) -> dict[str, str]:
    """{key: name} of every algorithm and the variants named; `key_of` makes one key of all spellings of a name."""
    return {key_of(name): name for name in (*CONFIGS, *agent_names(), *variants)}


def resolve(names: Sequence[str], variants: Iterable[str] = ()) -> list[str]:
    """The names as `orbs list` has them, and as the variants do.

    Raises:
        ValueError: an unknown name (the nearest is suggested), one named twice, none.
    """
    known = known_names(variants)
    found = []
    for name in names:
        if key_of(name) not in known:
            near = difflib.get_close_matches(key_of(name), known, n=1)
            hint = f"did you mean '{known[near[0]]}'? " if near else ""
            _fail("algorithm", f"one of {', '.join(known.values())}", f"'{name}'", f"{hint}see orbs list")
        found.append(known[key_of(name)])
    if not found or len(set(found)) < len(found):
        _fail("--algos", "one or more different algorithms", " ".join(names) or "none", "name each once")
    return found


def interact(options: Train, variants: Mapping[str, str] = {}) -> bool:
    """Whether the algorithms of `options` interact with an environment, rather than learn from a dataset.

    Args:
        variants: {name: algorithm} of those among them that are an algorithm with other hyperparameters.

    Raises:
        ValueError: some of each; what they need is missing, or something that they do not use is given.
    """
    names = resolve(options.algos, variants)
    online = [name for name in names if variants.get(name, name) in agent_names()]
    offline = [name for name in names if name not in online]

    if online and offline:
        _fail(
            "--algos",
            "algorithms of one kind",
            f"{', '.join(offline)}, which learn from a dataset, and {', '.join(online)}, which interact",
            "train them by two commands; one report reads both",
        )
    if online and options.dataset is not None:
        _fail(
            "--dataset",
            f"none, because {', '.join(online)} interact with --env",
            f"'{options.dataset}'",
            "leave it out, or name algorithms that learn from a dataset (orbs list)",
        )
    if online and options.env is None:
        _fail(
            "--env",
            f"the environment that {', '.join(online)} interact with",
            "none",
            "name a Gymnasium id, e.g. --env Hopper-v4",
        )
    if offline and options.dataset is None:
        _fail(
            "--dataset",
            f"the data that {', '.join(offline)} learn from",
            "none",
            "name one of orbs data list, or agents that interact (orbs list) with --algos",
        )
    return bool(online)


def key_of(name: str) -> str:
    return name.lower().replace("+", "").replace("-", "").replace("_", "")


def _fail(field: str, expected: str, given: str, fix: str) -> NoReturn:
    """`orbs.reject`, without importing torch."""
    raise ValueError(f"{field}: expected {expected}, got {given}. Fix: {fix}.")
