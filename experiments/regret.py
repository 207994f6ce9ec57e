"""`orbs regret`: learners against a problem, hundreds of runs at once; one run folder a learner.

The unit of work is (learner, problem, block of runs), restartable from its folder; the learners of a command share one
process and the noise (see `experiments.regret_session`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandits.config import CONFIGS
from experiments import problems, results
from experiments.options import overrides
from experiments.regret_options import Regret
from experiments.run_folder import alone, session_facts
from orbs import checked_fields, reject

if TYPE_CHECKING:
    from envs.regret_world import RegretWorld
    from experiments.regret_player import Player

__all__ = ["Watched", "regret", "unit_folder"]

# What a resumed run must share with the checkpoint that it goes on from.
FIXED = (
    "experiment", "algorithm", "problem", "facts", "runs", "seed", "points_per_decade", "hindsight_per_decade", "jump",
)  # fmt: skip
# What may differ between the sessions that a run is resumed in.
SESSION = ("command", "versions", "machine", "git_commit", "started", "steps", "device", "threads")


class Watched(dict[str, Any]):
    """Facts that remember which of them were asked for."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)


def regret(options: Regret, variants: Mapping[str, str] = {}) -> list[Path]:
    """Play; returns the run folders.

    `variants`: {name: learner} of names that are no learner's own: that learner, with what `--set` says of the name.

    Raises:
        ValueError: bad options, a learner that does not fit the problem, a folder that is in use: before anything is
            written. A learner that failed on the way, after the others have ended.
    """
    from experiments.cpu import cpu_settings
    from experiments.loggers import make_loggers
    from experiments.regret_session import Comparator, play, record_rounds

    _check(options)
    problem, given = problems.find(options.problem), problems.settings(options.problem_set)
    names = _resolve(options.learners, variants)
    values = overrides(options.set, names)
    run_ids = range(options.first_run, options.first_run + options.runs)
    _check_device(options.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(cpu_settings("float32", options.threads))
        world = problem.make(given, options.horizon, run_ids, options.seed, options.device)
        label = problems.label(problem, given)
        players = [
            _player(options, problem, label, world, name, variants.get(name, name), values[name]) for name in names
        ]
        for player in players:
            _check_folder(options, player, problem)
        rounds = record_rounds(options.horizon, options.points_per_decade)
        comparator = None
        if hasattr(world, "hindsight") and "regret/sampled" not in world.regret():
            every = max(1, options.points_per_decade // options.hindsight_per_decade)
            comparator = Comparator(world, options.horizon, options.points_per_decade / every)
        todo = _resume(options, players, rounds, comparator) if options.resume else players
        for player in todo:
            player.loggers = make_loggers(player.folder, player.config, options.tensorboard, options.wandb)
            for logger in player.loggers:
                stack.callback(logger.close)
            stack.enter_context(alone(player.folder))
        if todo:
            count = f"{len(todo)} learners" if len(todo) > 1 else todo[0].name
            play(todo, rounds, comparator, options.checkpoint_seconds, f"{label} x{options.runs}, {count}")
    return [player.folder for player in players]


def _check(options: Regret) -> None:
    for field in ("runs", "horizon", "points_per_decade", "hindsight_per_decade", "threads"):
        if getattr(options, field) < 1:
            reject(f"--{field.replace('_', '-')}", "at least 1", getattr(options, field), "give a positive number")
    if options.first_run < 0:
        reject("--first-run", "at least 0", options.first_run, "give the number of the first run")
    if not options.checkpoint_seconds >= 0:
        reject("--checkpoint-seconds", "at least 0", options.checkpoint_seconds, "e.g. 60")
    if options.wandb is not None and len(options.learners) > 1:
        reject("--wandb", "one learner a command", f"{len(options.learners)}", "log each by a command of its own")


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        reject("--device", "cpu, cuda, cuda:1, ...", f"'{name}'", "name a device of torch")
    if device.type == "cuda" and not torch.cuda.is_available():
        reject("--device", "a device that is here", f"'{name}', and torch sees no GPU", "leave it out for the CPU")


def _resolve(names: tuple[str, ...], variants: Mapping[str, str]) -> list[str]:
    """The learners' names; ValueError for an unknown one (the nearest is suggested), one named twice, none."""
    for name in names:
        if variants.get(name, name) not in CONFIGS:
            near = difflib.get_close_matches(name, CONFIGS, n=1)
            fix = f"did you mean '{near[0]}'? see orbs list" if near else "see orbs list"
            reject("--learners", f"some of {', '.join(CONFIGS)}", f"'{name}'", fix)
    if not names or len(set(names)) < len(names):
        reject("--learners", "one or more different learners", " ".join(names) or "none", "name each once")
    return list(names)


def _player(
    options: Regret,
    problem: problems.Problem,
    label: str,
    world: RegretWorld,
    name: str,
    base: str,
    hyperparameters: dict[str, Any],
) -> Player:
    """A learner in a twin of the world, with its configuration; writes nothing.

    Raises:
        ValueError: hyperparameters that it does not have, a problem that it does not fit.
    """
    from bandits import make
    from experiments.regret_player import Player, theorem

    facts = Watched(world.facts)
    checked_fields(CONFIGS[base], hyperparameters, name)
    try:
        learner = make(base, facts, world.run_ids, options.seed, options.device, **hyperparameters)
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name} on {label}: {error}") from error
    config = CONFIGS[base](**hyperparameters)
    described = {
        "experiment": options.experiment,
        "algorithm": name,
        "problem": label,
        "hyperparameters": _plain(dataclasses.asdict(config)),
        "facts": _plain({key: value for key, value in world.facts.items() if key != "horizon"}),
        "horizon_matters": problem.horizon or (f"{name} is tuned to it" if "horizon" in facts.asked else ""),
        "runs": list(world.run_ids),
        "seed": options.seed,
        "steps": options.horizon,
        "points_per_decade": options.points_per_decade,
        "hindsight_per_decade": options.hindsight_per_decade,
        "device": options.device,
        "threads": options.threads,
        **session_facts(),
    }
    folder = unit_folder(options, label, name)
    table = results.Table(options.experiment, name, label)
    jumps = options.jump and learner.holds and hasattr(world, "advance")
    described["jump"] = jumps
    twin = world.twin()
    temperature = getattr(learner, "temperature", 0.0)
    if temperature > 0 and hasattr(twin, "regularise"):
        twin.regularise(temperature, getattr(learner, "reference", None))
    return Player(name, base, folder, learner, twin, described, table, [], theorem(base, config, world), jumps)


def _plain(values: Any) -> Any:
    """As JSON has them: tuples are lists, a tensor is its shape and a digest of its numbers."""

    def said(value: Any) -> str:
        digest = hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        return f"{tuple(value.shape)}, sha256 {digest[:16]}"

    return json.loads(json.dumps(values, default=said))


def unit_folder(options: Regret, label: str, name: str) -> Path:
    """OUT/PROBLEM/LEARNER of the problem that is called `label`."""
    block = "" if options.first_run == 0 else f"-from-run-{options.first_run}"
    return options.out / _file_name(label) / f"{name}{block}"


def _file_name(label: str) -> str:
    for strange in '/\\:*?"<>| ':
        label = label.replace(strange, "-")
    return label


def _check_folder(options: Regret, player: Player, problem: problems.Problem) -> None:
    """ValueError for a folder that is in use without --resume, or was started with other settings."""
    folder = player.folder
    config, checkpoint = folder / "config.json", folder / "checkpoint.safetensors"
    if not options.resume:
        if config.exists() or checkpoint.exists():
            reject("--out", "a folder without this run", folder, "go on with --resume, or name another --out")
        return
    if not config.exists():
        if checkpoint.exists():
            given = f"none in {folder}"
            reject("--resume", "config.json beside the checkpoint", given, "restore it, or name another --out")
        return
    saved, here = results.read_config(folder), player.config

    def flat(found: dict[str, Any]) -> dict[str, Any]:
        # A hyperparameter that the folder does not know, because it is younger, counts as at its default there.
        given = _plain(dataclasses.asdict(CONFIGS[player.base]())) | found.get("hyperparameters", {})
        # A folder that is older than jumps has none.
        kept = {"jump": False, **{key: found[key] for key in FIXED if key in found}}
        return kept | {f"hyperparameters.{key}": v for key, v in given.items()}

    one, other = flat(saved), flat(here)
    differ = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    if differ:
        detail = "; ".join(f"{key}: {one.get(key)} there, {other.get(key)} here" for key in differ)
        reject("--resume", f"the settings that {folder} was started with", detail, "use those, or another --out")
    why = here["horizon_matters"] or saved.get("horizon_matters", "")
    if saved["steps"] != here["steps"] and why:
        expected = f"{saved['steps']}, with which {folder} was started, because another is another problem ({why})"
        reject("--horizon", expected, here["steps"], "use that, or another --out")


def _resume(options: Regret, players: list[Player], rounds: list[int], comparator: Any) -> list[Player]:
    """Load what there is; returns those that have something left to play."""
    todo = []
    behind = None
    for player in players:
        saved = results.read_config(player.folder)
        if saved:
            earlier = {key: saved.get(key) for key in SESSION}
            player.config["earlier"] = [*saved.get("earlier", []), earlier]
        if not (player.folder / "checkpoint.safetensors").exists():
            todo.append(player)
            behind = player if behind is None or player.world.round < behind.world.round else behind
            continue
        player.load(rounds, None)
        done = player.world.round
        if done == options.horizon == player.recorded and saved.get("status") in ("complete", "diverged"):
            print(f"{player.folder} is complete at {done} rounds: nothing to do.")
            continue
        print(f"{player.folder}: resuming at round {done}.")
        todo.append(player)
        behind = player if behind is None or player.world.round < behind.world.round else behind
    # The comparator goes on from whoever is furthest behind: it is the same in all their checkpoints by then.
    if behind is not None and comparator is not None and behind.world.round:
        behind.load(rounds, comparator)
    return todo
