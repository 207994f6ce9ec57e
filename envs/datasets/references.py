"""Reference returns by environment id: which return counts as 0 and which as 100.

The D4RL pairs are those of `d4rl/infos.py` (https://github.com/Farama-Foundation/D4RL). They were measured on
mujoco-py's v2 tasks; on newer simulators a score by them is for orientation, and its label says so.
"""

from __future__ import annotations

import dataclasses
import re

__all__ = ["Reference", "reference_scores"]


@dataclasses.dataclass(frozen=True)
class Reference:
    """Returns that count as 0 (`minimum`) and 100 (`maximum`), and where they come from."""

    minimum: float
    maximum: float
    source: str


_LOCOMOTION = {
    "Hopper": (-20.272305, 3234.3),
    "HalfCheetah": (-280.178953, 12135.0),
    "Walker2d": (1.629008, 4592.3),
}
_ADROIT = {
    "AdroitHandPen": ("pen", 96.262799, 3076.8331017826877),
    "AdroitHandDoor": ("door", -56.512833, 2880.5693087298737),
    "AdroitHandHammer": ("hammer", -274.856578, 12794.134825156867),
    "AdroitHandRelocate": ("relocate", -6.425911, 4233.877797728884),
}
# Printed by: python -m envs.collect reference --env Pendulum-v1 --steps 20000 --seed 0 --episodes 1000
#   --learning-rate 1e-3 --batch-size 256 --train-freq 1
# Standard errors 9.07 and 2.61; the same 1000 seeded starts for both.
PENDULUM = Reference(
    -1230.65,
    -143.23,
    "measured here over 1000 episodes each: uniformly random actions 0, the mean actions of a SAC agent after "
    "20000 steps 100",
)


def reference_scores(env_id: str | None) -> Reference | None:
    """The reference returns for an environment, or None if there are none.

    Known: Hopper, HalfCheetah, Walker2d (v2 to v5), the dense Adroit hand tasks (v1), Pendulum-v1.
    """
    match = re.fullmatch(r"(\w+)-v(\d+)", env_id or "")
    if match is None:
        return None
    name, version = match[1], int(match[2])
    if name in _LOCOMOTION and 2 <= version <= 5:
        low, high = _LOCOMOTION[name]
        where = "D4RL's own task" if version == 2 else f"measured on v2, for orientation on v{version}"
        return Reference(low, high, f"D4RL reference returns of {name.lower()}, {where}")
    if name in _ADROIT and version == 1:
        task, low, high = _ADROIT[name]
        return Reference(low, high, f"D4RL reference returns of {task}, measured on mujoco-py")
    return PENDULUM if (name, version) == ("Pendulum", 1) else None
