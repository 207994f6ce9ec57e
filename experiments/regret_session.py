"""Learners in lockstep against twins of one world.

All learners advance block by block of the world's noise, which is drawn once for all of them. What a learner does
depends on no other: alone or beside others, stopped and resumed or straight through, its numbers are the same bits.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from bandits.online_learning.named import domain_of
from experiments.comparators import best_fixed_point

if TYPE_CHECKING:
    from envs.regret_world import RegretWorld
    from experiments.regret_player import Player

__all__ = ["Comparator", "play", "record_rounds"]

FIRST = ("regret/static", "regret/pseudo", "regret/policy", "regret/sampled", "regret/dynamic")  # shown while playing


def record_rounds(horizon: int, per_decade: float) -> list[int]:
    """1, then `per_decade` rounds a decade, evenly on the log scale and rounded, up to the horizon, which is one."""
    grid = {round(10 ** (i / per_decade)) for i in range(1 + math.floor(per_decade * math.log10(horizon) + 1e-9))}
    return sorted({point for point in grid if point <= horizon} | {horizon})


class Comparator:
    """The sampled losses of the best fixed point in hindsight, where the world has no closed form of it.

    It is solved at `per_decade` rounds a decade and at the horizon, each time from the solution before, so it is the
    same wherever a resume begins. `start` is what a checkpoint holds of it.
    """

    def __init__(self, world: RegretWorld, horizon: int, per_decade: float) -> None:
        self.world, self.domain = world, domain_of(world.facts)
        rounds = record_rounds(horizon, per_decade)
        self.due = set(rounds)
        # The horizon is on no grid of a larger one, so a solution there must not become a start.
        self._kept = self.due - ({horizon} - set(record_rounds(10 * horizon, per_decade)))
        centre = self.domain.centre(world.device)
        self.start = centre.expand(world.num_envs, -1).clone()
        self._values: dict[int, Tensor] = {}

    def value(self, rounds: int) -> Tensor | None:
        """(R,) the least sum of losses over the first rounds; None where it is not due."""
        if rounds not in self.due:
            return None
        if rounds not in self._values:
            hindsight = self.world.hindsight(rounds)  # type: ignore[attr-defined]
            found = best_fixed_point(hindsight, self.domain, self.start)
            if rounds in self._kept:
                self.start = found.point
            self._values = {rounds: found.value}
        return self._values[rounds]


def play(
    players: Sequence[Player],
    rounds: Sequence[int],
    comparator: Comparator | None,
    checkpoint_seconds: float,
    title: str,
) -> None:
    """Play to the last of the record points `rounds`; a learner that fails is left behind, and the others go on.

    Raises:
        KeyboardInterrupt: after the folders have been told; the last checkpoints are kept.
        ValueError: some learner failed; names them all.
    """
    for player in players:
        player.write_config("running")
    try:
        _play(players, rounds, comparator, checkpoint_seconds, title)
    except BaseException as error:
        status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        for player in players:
            if player.ended == "running":
                player.write_config(status)
        if status == "stopped":
            there = all((player.folder / "checkpoint.safetensors").exists() for player in players)
            state = "the last checkpoints are kept" if there else "there is no checkpoint yet"
            print(f"\nStopped; {state}. Go on with --resume ({players[0].folder.parent}).", file=sys.stderr)
        raise
    failed = [player for player in players if player.error is not None]
    if failed:
        why = "; ".join(f"{player.name}: {player.error}" for player in failed)
        rest = "the others are complete" if len(failed) < len(players) else "no learner is left"
        raise ValueError(f"learners that play on to the end: {len(failed)} of {len(players)} failed ({rest}). {why}")


def _play(
    players: Sequence[Player],
    rounds: Sequence[int],
    comparator: Comparator | None,
    checkpoint_seconds: float,
    title: str,
) -> None:
    alive = list(players)
    tape = players[0].world.tape
    position = min(player.world.round for player in players)
    saved = time.monotonic()
    bar = tqdm(total=rounds[-1], initial=position, desc=title, unit="round", disable=not sys.stderr.isatty())
    with bar:
        for stop in rounds:
            for player in [one for one in alive if one.jumps and one.world.round < stop]:
                # No block cuts a jump, so what is drawn for it is the same however many runs ride along.
                _guarded(player, functools.partial(player.jump, stop), alive)
            steppers = [one for one in alive if not one.jumps]
            while alive and position < stop:
                end = min(stop, (position // tape.block + 1) * tape.block) if steppers else stop
                if steppers:
                    tape.round(position)  # the noise of the block is nobody's time
                for player in list(steppers):
                    _guarded(player, functools.partial(player.advance, end), alive)
                    if player not in alive:
                        steppers.remove(player)
                bar.update(end - position)
                position = end
                if time.monotonic() - saved > checkpoint_seconds:
                    for player in alive:
                        player.save(comparator)
                    saved = time.monotonic()
            shown: dict[str, dict[str, np.ndarray]] = {}
            for player in list(alive):
                if player.world.round == stop and player.recorded < stop:
                    found = _guarded(player, functools.partial(player.record, comparator), alive)
                    if found is not None:
                        shown[player.name] = found
            _say(shown, stop, rounds[-1], bar)
    for player in alive:
        player.save(comparator)
        player.write_config("diverged" if len(player.diverged) == len(player.runs) else "complete")


def _guarded(player: Player, act: Callable[[], Any], alive: list[Player]) -> Any:
    """What it returns; a learner's error is its own, and ends its part alone."""
    try:
        return act()
    except Exception as error:
        player.error = error
        alive.remove(player)
        player.write_config("failed")
        tqdm.write(f"{player.name}: failed at round {player.world.round + 1}: {error}", file=sys.stderr)
        return None


def _say(shown: dict[str, dict[str, np.ndarray]], stop: int, last: int, bar: Any) -> None:
    def mean(values: dict[str, np.ndarray]) -> str:
        name = next((n for n in FIRST if n in values), None)
        if name is None or not np.isfinite(values[name]).any():
            return "-"
        return f"{np.nanmean(values[name]):.4g}"

    if not shown:
        return
    text = ", ".join(f"{name} {mean(values)}" for name, values in shown.items())
    bar.set_postfix_str(text)
    if bar.disable and (stop == last or math.log10(stop).is_integer()):
        print(f"round {stop}: mean regret {text}", file=sys.stderr)
