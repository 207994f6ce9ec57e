"""Training of agents that interact: every run plays an environment of its own, all runs in one program.

The folders, the table, the evaluation and the resume are those of training on a dataset; steps are environment steps
a run. A checkpoint holds the agent with its replay and, of each environment, the episode's number and the actions
since its start, which a resume plays again. Stable-Baselines3's agents join in `experiments.second_opinion`.
"""

from __future__ import annotations

import contextlib
import warnings
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.datasets.references import Reference, reference_scores
from experiments import pool, results
from experiments.agents import SECOND_OPINIONS, config_of
from experiments.options import Train, overrides
from experiments.presets import preset
from experiments.run_folder import alone, describe_online
from experiments.session import Session, inherit, kernels, left_there
from experiments.train import Unit, check, check_folder, unit_folder
from orbs import checked_fields, reject

if TYPE_CHECKING:
    from experiments.training_envs import TrainingEnvs

__all__ = ["OnlineSession", "plan", "scores_of", "train", "train_unit"]


def train(options: Train) -> list[Path]:
    """Train every agent of `options`; returns the run folders.

    Raises:
        ValueError: bad options or an unfit environment, before anything is written; a folder that is in use.
    """
    units = plan(options)
    for unit in units:
        print(f"{unit.algorithm}: {unit.note}")
        for line in config_of(unit.algorithm)(**unit.hyperparameters).notes(options.steps):
            print(line)
    if options.jobs == 1 or len(units) == 1:
        for unit in units:
            train_unit(unit)
    else:
        pool.each(train_unit, units, options.jobs)
    return [unit.folder for unit in units]


def plan(options: Train) -> list[Unit]:
    """The units of `options`; writes nothing.

    Raises:
        ValueError: bad options, hyperparameters or environment; a folder that is in use without --resume.
    """
    from envs.make import env_facts

    names = check(options)
    assert options.env is not None
    for field in ("critic", "beer", "clip_actions", "terminate_on_end"):
        if getattr(options, field) not in (None, False):
            given = f"it with {', '.join(names)}, which interact"
            reject(f"--{field.replace('_', '-')}", "algorithms that learn from a dataset", given, "leave it out")
    values = overrides(options.set, names)
    facts = env_facts(options.env)
    units = []
    for name in names:
        found = preset(SECOND_OPINIONS.get(name, name), options.env)
        hyperparameters = {**found.values, **values[name]}
        kind = config_of(name)
        config = kind(**checked_fields(kind, hyperparameters, name))
        if name in SECOND_OPINIONS:
            from experiments.second_opinion import arguments

            arguments(name, config, len(facts.action_low))
        note = f"preset '{found.pattern}' {found.values or '{}'} ({found.source}); set by you: {values[name]}"
        units.append(Unit(options, name, hyperparameters, unit_folder(options, options.env, name), note))
    for unit in units:
        check_folder(unit)
    return units


def scores_of(reference: Reference | None, returns: np.ndarray) -> np.ndarray | None:
    """Normalised scores, where the environment's reference returns are known."""
    if reference is None:
        return None
    return np.asarray(100 * (returns - reference.minimum) / (reference.maximum - reference.minimum))


def train_unit(unit: Unit, place: int = 0) -> None:
    """Train one unit, or go on with it."""
    import torch

    from experiments.cpu import cpu_settings
    from experiments.evaluate import Evaluator
    from experiments.loggers import make_loggers
    from experiments.training_envs import TrainingEnvs
    from offline_rl import algorithm

    if unit.algorithm in SECOND_OPINIONS:
        from experiments.second_opinion import train_unit as train_second_opinion

        train_second_opinion(unit, place)
        return
    options = unit.options
    assert options.env is not None
    run_ids = list(range(options.first_run, options.first_run + options.runs))
    saved = results.read_config(unit.folder) if options.resume else {}
    matmul = kernels(options, saved, unit.folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(cpu_settings(matmul, options.threads))
        envs = TrainingEnvs(options.env, run_ids, options.seed)
        stack.callback(envs.close)
        agent = algorithm(unit.algorithm).for_env(
            envs.vector, runs=run_ids, seed=options.seed, device=options.device, **unit.hyperparameters
        )
        reference = reference_scores(options.env)
        config = describe_online(options, unit.algorithm, agent.config, run_ids, reference, matmul)
        kept = None
        diverged: dict[int, int] = {}
        if saved:
            inherit(saved, config, unit.folder)
        if saved and (unit.folder / "checkpoint.safetensors").exists():
            left = left_there(unit.folder, "interactions", options.steps)
            kept, diverged = left.rows, left.diverged
            done = left.meta["interactions"]
            if done == options.steps and saved.get("status") == "complete":
                print(f"{unit.folder} is complete at {options.steps} steps: nothing to do.")
                return
            if len(diverged) == agent.runs and saved.get("status") == "diverged":
                print(f"{unit.folder}: every run has diverged by step {done}: nothing to go on with.")
                return
            agent = type(agent).load(unit.folder / "checkpoint.safetensors", options.device)
            strange = envs.restore(left.meta["episodes"])
            if strange:
                warnings.warn(
                    f"{unit.folder}: the simulator differs from the one that this was trained in (playing the last "
                    f"episode's actions again led elsewhere in run {', '.join(map(str, strange))}): going on from "
                    "there, not to the bits of an uninterrupted training",
                    stacklevel=2,
                )
            print(f"{unit.folder}: resuming at step {done}.")
        evaluator = Evaluator(options.env, run_ids, options.eval_episodes, options.seed)
        stack.callback(evaluator.close)
        evaluator.check(agent)
        config["simulator"] = evaluator.simulator
        table = results.Table(
            options.experiment, unit.algorithm, options.env, kept, env=options.env, simulator=evaluator.simulator
        )
        loggers = make_loggers(unit.folder, config, options.tensorboard, options.wandb)
        for logger in loggers:
            stack.callback(logger.close)
        stack.enter_context(alone(unit.folder))
        if torch.cuda.is_available() and agent.device.type == "cuda":
            config["device_name"] = torch.cuda.get_device_name(agent.device)
        session = _AgentSession(unit, config, agent, table, diverged, evaluator, loggers)
        session.envs, session.reference = envs, reference
        session.train(place)


class OnlineSession(Session):
    """A unit that interacts; its steps are environment steps a run."""

    noun = "step"
    rate = "time/steps_per_second"
    reference: Reference | None

    @abstractmethod
    def ended(self) -> list[tuple[float, float] | None]:
        """Mean return and length of each run's training episodes that ended since the last call."""

    def score(self, returns: np.ndarray) -> np.ndarray | None:
        return scores_of(self.reference, returns)

    def some(self) -> list[tuple[dict[str, np.ndarray], list[int]]]:
        means = self.ended()
        there = [slot for slot, mean in enumerate(means) if mean is not None]
        if not there:
            return []
        found = np.array([means[slot] for slot in there], np.float64)
        names = ("train/episode_return", "train/episode_length")
        runs = [self.learner.run_ids[slot] for slot in there]
        return [({name: found[:, column] for column, name in enumerate(names)}, runs)]


class _AgentSession(OnlineSession):
    """One of our own agents, all runs at once."""

    envs: TrainingEnvs

    @property
    def position(self) -> int:
        return int(self.learner.interactions)

    def ended(self) -> list[tuple[float, float] | None]:
        return self.envs.ended()

    def advance(self, stop: int, bar: Any) -> None:
        agent, envs = self.learner, self.envs
        every = int(getattr(agent.config, "update_every", 1))
        updates = every * int(getattr(agent.config, "updates_per_step", 1))
        while agent.interactions < stop:
            obs = envs.obs
            action = self._finite(np.asarray(agent.explore(obs)))
            successor, reward, terminal = envs.step(action)
            agent.observe(obs, action, reward, successor, terminal)
            if agent.ready and agent.interactions % every == 0:
                agent.update(updates)
            bar.update(1)

    def _finite(self, action: np.ndarray) -> np.ndarray:
        """The actions; a diverged run's, which are none, become the middle of the box, so that the others go on."""
        lost = ~np.isfinite(action).all(1)
        if not lost.any():
            return action
        for slot in np.flatnonzero(lost):
            self.note_diverged(self.learner.run_ids[slot])
        middle = self.learner.action_centre.cpu().numpy()
        return np.where(lost[:, None], middle, action).astype(action.dtype)

    def watched(self, skip: list[int]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        assert self.evaluator is not None
        valued = callable(getattr(self.learner, "value", None))
        played = self.evaluator.evaluate(self.learner, self.position, skip=skip, keep_steps=valued)
        if played.steps is None or played.last_obs is None or not any(played.steps):
            return played.returns, played.lengths, {}
        from experiments.value_error import value_error

        errors = value_error(self.learner, played.steps, played.last_obs)
        return played.returns, played.lengths, {"eval/value_error": errors}

    def checkpoint(self, diverged: dict[str, int]) -> None:
        self.learner.save(
            self.unit.folder / "checkpoint.safetensors",
            diverged=diverged,
            env=self.unit.options.env,
            episodes=self.envs.state(),
        )
