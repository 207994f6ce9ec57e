"""Training with evaluation, checkpoints and resume: one run folder an algorithm, all its runs at once.

Algorithms that learn from a dataset; `experiments.train_online` has those that interact.

The unit of work is (algorithm, dataset, block of runs), restartable from its folder (see `experiments.session`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import eval_workers, pool, results
from experiments.agents import interact, resolve
from experiments.options import Train, overrides
from experiments.presets import preset
from experiments.run_folder import alone, describe
from experiments.session import Session, inherit, kernels, left_there
from offline_rl.config import CONFIGS
from orbs import Rows, checked_fields, reject

if TYPE_CHECKING:
    from envs.datasets import Dataset

__all__ = ["Unit", "check", "check_folder", "load_and_train", "load_dataset", "plan", "train", "train_unit"]


def train(options: Train) -> list[Path]:
    """Train every algorithm of `options`; returns the run folders.

    Raises:
        ValueError: bad options, before anything is written; a folder that is in use without --resume.
    """
    if interact(options):
        from experiments import train_online

        return train_online.train(options)
    check(options)
    dataset = load_dataset(options)
    print(dataset.summary())
    if dataset.env_id is None:
        print(f"Trains, but cannot be scored: {dataset.env_note}.")
    elif dataset.env_note is not None:
        print(f"Scored in {dataset.env_note}.")
    units = plan(options, dataset.name)
    for unit in units:
        print(f"{unit.label}: {unit.note}")
        for line in CONFIGS[unit.algorithm](**unit.hyperparameters).notes(options.steps):
            print(line)
    if options.jobs == 1 or len(units) == 1:
        transitions = dataset.view()
        for unit in units:
            train_unit(unit, dataset, transitions)
    else:
        pool.each(load_and_train, units, options.jobs)
    return [unit.folder for unit in units]


@dataclasses.dataclass(frozen=True)
class Unit:
    """(algorithm, dataset, block of runs), restartable from its folder.

    Attributes:
        label: the name in folder and table: the algorithm's, or a variant's.
        note: where the hyperparameters come from.
    """

    options: Train
    label: str
    algorithm: str
    hyperparameters: dict[str, Any]
    folder: Path
    note: str

    @property
    def run_ids(self) -> list[int]:
        return list(range(self.options.first_run, self.options.first_run + self.options.runs))


def plan(options: Train, dataset: str, variants: Mapping[str, str] = {}) -> list[Unit]:
    """The units of `options` on the dataset of that name; writes nothing.

    Args:
        variants: {name: algorithm} of those of `options.algos` that are an algorithm with other hyperparameters, which
            `options.set` has under the variant's name.

    Raises:
        ValueError: bad options or hyperparameters; a folder that is in use without --resume.
    """
    names = check(options, variants)
    values, shared = overrides(options.set, names), _critic_options(options, names)
    units = []
    for name in names:
        base = variants.get(name, name)
        found = preset(base, dataset)
        given = {**shared[name], **values[name]}
        hyperparameters = {**found.values, **given}
        CONFIGS[base](**checked_fields(CONFIGS[base], hyperparameters, name))
        note = f"preset '{found.pattern}' {found.values or '{}'} ({found.source}); set by you: {given}"
        units.append(Unit(options, name, base, hyperparameters, unit_folder(options, dataset, name), note))
    for unit in units:
        check_folder(unit)
    return units


def check(options: Train, variants: Mapping[str, str] = {}) -> list[str]:
    """The names of algorithms and variants; ValueError for options that make no sense."""
    interact(options, variants)
    for field in ("runs", "steps", "eval_every", "eval_episodes", "log_every", "jobs", "threads"):
        if getattr(options, field) < 1:
            reject(f"--{field.replace('_', '-')}", "at least 1", getattr(options, field), "give a positive number")
    eval_workers.check(options.eval_workers)
    if options.first_run < 0:
        reject("--first-run", "at least 0", options.first_run, "give the number of the first run")
    return resolve(options.algos, variants)


def _critic_options(options: Train, names: list[str]) -> dict[str, dict[str, Any]]:
    """What --critic and --beer set, {algorithm: {field: value}}: every algorithm that has the field takes it.

    Raises:
        ValueError: no algorithm has it.
    """
    shared: dict[str, dict[str, Any]] = {name: {} for name in names}
    able = {name for name, config in CONFIGS.items() if {"critic", "beer"} <= config.__dataclass_fields__.keys()}
    for field, value in (("critic", options.critic), ("beer", options.beer)):
        if value is None:
            continue
        if not able & set(names):
            fix = f"train one of {', '.join(sorted(able))} with it"
            reject(f"--{field}", "an algorithm whose critic can be exchanged", " ".join(names), fix)
        for name in able & set(names):
            shared[name][field] = value
    return shared


def load_dataset(options: Train) -> Dataset:
    """The dataset, without its environment where that needs an extra that is missing, unless it was asked for."""
    from envs.datasets import load
    from envs.make import missing_extra

    assert options.dataset is not None
    dataset = load(
        options.dataset,
        env=options.env,
        clip_actions=options.clip_actions,
        terminate_on_end=options.terminate_on_end,
    )
    if dataset.env_id is None and dataset.env_note is None:
        return dataclasses.replace(dataset, env_note="no environment is known for it (name one with --env)")
    extra = None if options.env or dataset.env_id is None else missing_extra(dataset.env_id)
    if extra is None:
        return dataset
    note = f'{dataset.env_id}, which scores it, needs an extra: pip install "orbs[{extra}]"'
    return dataclasses.replace(dataset, env_id=None, env_note=note)


def unit_folder(options: Train, problem: str, label: str) -> Path:
    """OUT/PROBLEM/LABEL, where no part of the problem's name can lead elsewhere."""
    block = "" if options.first_run == 0 else f"-from-run-{options.first_run}"
    name = problem.removeprefix("local/")
    for strange in '/\\:*?"<>|':
        name = name.replace(strange, "-")
    return options.out / name / f"{label}{block}"


def check_folder(unit: Unit) -> None:
    """ValueError for a folder that is in use without --resume, or that has lost its configuration."""
    config, checkpoint = unit.folder / "config.json", unit.folder / "checkpoint.safetensors"
    if not unit.options.resume and (config.exists() or checkpoint.exists()):
        reject("--out", "a folder without this run", unit.folder, "go on with --resume, or name another --out")
    if checkpoint.exists() and not config.exists():
        given = f"none in {unit.folder}"
        reject("--resume", "config.json beside the checkpoint", given, "restore it, or name another --out")


def load_and_train(unit: Unit, place: int = 0) -> None:
    dataset = load_dataset(unit.options)
    train_unit(unit, dataset, dataset.view(), place)


def train_unit(unit: Unit, dataset: Dataset, transitions: Rows, place: int = 0) -> None:
    import torch

    from experiments.cpu import cpu_settings
    from experiments.evaluate import Evaluator
    from experiments.evaluations import Evaluations
    from experiments.loggers import make_loggers
    from offline_rl import algorithm

    options, run_ids = unit.options, unit.run_ids
    saved = results.read_config(unit.folder) if options.resume else {}
    matmul = kernels(options, saved, unit.folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(cpu_settings(matmul, options.threads))
        learner = algorithm(unit.algorithm)(
            transitions.obs_dim,
            transitions.action_dim,
            transitions.action_low,
            transitions.action_high,
            runs=run_ids,
            seed=options.seed,
            device=options.device,
            **unit.hyperparameters,
        )
        config = describe(unit, dataset, transitions, learner, matmul)
        left = None
        if saved:
            inherit(saved, config, unit.folder)
        if saved and (unit.folder / "checkpoint.safetensors").exists():
            left = left_there(unit.folder, "steps", options)
            learner.load_state_dict(left.tensors, left.meta["steps"])
            if learner.steps == options.steps and saved.get("status") == "complete":
                print(f"{unit.folder} is complete at {options.steps} updates: nothing to do.")
                return
            if len(left.diverged) == learner.runs and saved.get("status") == "diverged":
                print(f"{unit.folder}: every run has diverged by update {learner.steps}: nothing to go on with.")
                return
            print(f"{unit.folder}: resuming at update {learner.steps}.")
        evaluations, config["simulator"] = None, None
        if dataset.env_id is not None:
            evaluator = Evaluator(dataset.env_id, run_ids, options.eval_episodes, options.seed)
            stack.callback(evaluator.close)
            evaluator.check(learner)
            evaluations = Evaluations(evaluator, matmul, workers=eval_workers.wanted(options))
            stack.callback(evaluations.close)
            config |= {"simulator": evaluator.simulator, "eval_workers": evaluations.count}
        scored_by = {"env": dataset.env_id or "", "simulator": config["simulator"] or ""}
        table = results.Table(options.experiment, unit.label, dataset.name, left.rows if left else None, **scored_by)
        loggers = make_loggers(unit.folder, config, options.tensorboard, options.wandb)
        for logger in loggers:
            stack.callback(logger.close)
        stack.enter_context(alone(unit.folder))
        # Last, because it may take minutes: no mistake of the user's is found after it.
        learner.attach(transitions)
        if torch.cuda.is_available() and learner.device.type == "cuda":
            config["device_name"] = torch.cuda.get_device_name(learner.device)
        diverged, pending = (left.diverged, left.pending) if left else ({}, None)
        session = _OfflineSession(unit, config, learner, table, diverged, evaluations, loggers, pending)
        session.dataset = dataset
        session.train(place)


class _OfflineSession(Session):
    """A unit that learns from a dataset; its steps are updates."""

    dataset: Dataset

    @property
    def position(self) -> int:
        return int(self.learner.steps)

    def advance(self, stop: int, bar: Any) -> None:
        while self.learner.steps < stop:
            block = min(256, stop - self.learner.steps)
            self.learner.update(block)
            bar.update(block)

    def score(self, returns: np.ndarray) -> np.ndarray | None:
        if self.dataset.min_score is None:
            return None
        return np.asarray(self.dataset.normalized_score(returns))

    def checkpoint(self, **header: Any) -> None:
        self.learner.save(self.unit.folder / "checkpoint.safetensors", env=self.dataset.env_id, **header)
