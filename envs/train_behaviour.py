"""Trains the behaviour policies of the local datasets: one SAC agent a task, kept at "medium" and at its best.

    agent = train(recipe, folder)

The agent learns from scratch. Every `eval_every` steps its sampled actions are played for ten episodes; the first
time their mean score lies between a third and a half of an expert's (33.3 and 50 by the task's reference returns) the
policy is exported as "medium", and everything it has seen until then is written as the medium-replay set. The best
evaluated policy of the whole training is exported too. Checkpoints are safetensors that this module writes, so a
stopped training goes on; without the replay's file it first refills the replay by acting. A resumed training is a
valid one, but not bit for bit the uninterrupted one: the environments' inner states are not saved.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from envs.behaviours import BehaviourPolicy
from envs.datasets import hdf5
from envs.datasets.references import reference_scores
from envs.make import env_facts, make_env
from envs.platform_facts import platform_facts
from envs.rollouts import returns
from orbs import checked_fields, load_tensors, reject, save_tensors, write_atomically

if TYPE_CHECKING:
    from envs.sac import BehaviourSAC

__all__ = ["MEDIUM_SCORES", "Recipe", "train"]

MEDIUM_SCORES = (100.0 / 3.0, 50.0)  # D4RL's is about a third of an expert's; a policy that jumps past is none
EVAL_EPISODES = 10
_REPLAY_KEYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a behaviour agent is trained.

    Attributes:
        env: Gymnasium id.
        steps: environment steps in all, over `num_envs` environments.
        seed: of the networks, the batches and the environments.
        num_envs: environments that the agent plays, one after the other; as many updates follow.
        width: units in each of the two hidden layers.
        learning_rate: of Adam.
        batch_size: rows an update.
        discount, tau: of the returns; of the Polyak averaging.
        learning_starts: first steps, played by uniformly random actions.
        eval_every: environment steps between evaluations.
        checkpoint_every: environment steps between checkpoints.
    """

    env: str
    steps: int
    seed: int = 0
    num_envs: int = 4
    width: int = 256
    learning_rate: float = 1e-3
    batch_size: int = 128
    discount: float = 0.99
    tau: float = 0.005
    learning_starts: int = 5000
    eval_every: int = 5000
    checkpoint_every: int = 50_000

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "width", "batch_size", "eval_every", "checkpoint_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                reject(name, "an integer of at least 1", value, "choose a larger number")
        for name in ("seed", "learning_starts"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                reject(name, "an integer of at least 0", getattr(self, name), "choose a larger number")
        if not 0.0 < self.learning_rate < 1.0:
            reject("learning_rate", "a number between 0 and 1", self.learning_rate, "e.g. 3e-4")
        if not (0.0 <= self.discount <= 1.0 and 0.0 < self.tau <= 1.0):
            reject("discount, tau", "numbers in [0, 1] and (0, 1]", (self.discount, self.tau), "e.g. 0.99 and 0.005")


class _Progress:
    """What a training remembers besides the agent: evaluations, and the policies to export."""

    def __init__(self) -> None:
        self.evaluations: list[dict[str, float]] = []
        self.medium: BehaviourPolicy | None = None
        self.best: BehaviourPolicy | None = None

    @property
    def best_score(self) -> float:
        return float(self.best.meta["score"]) if self.best else -math.inf


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    until_medium: bool = False,
    keep_replay: bool = True,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train, or go on with, the agent in `folder`; write medium.safetensors, medium-replay.hdf5 and best.safetensors.

    Args:
        until_medium: stop as soon as the medium policy is found.
        keep_replay: save the replay buffer with each checkpoint (up to 300 MB), so that a resume needs no refill.
        report: called with the step and the figures of each evaluation.

    Returns:
        steps, seconds of this call, best_score, medium_step (None if it was not reached), evaluations.

    Raises:
        ValueError: a folder that another recipe trained in; an environment without reference returns or that
            `envs.make.env_facts` refuses; fewer than one step.
    """
    folder = Path(folder)
    if reference_scores(recipe.env) is None:
        reject(
            "env",
            "a task with reference returns",
            f"'{recipe.env}'",
            "choose Hopper, HalfCheetah, Walker2d or Pendulum",
        )
    folder.mkdir(parents=True, exist_ok=True)
    threads, generators = torch.get_num_threads(), (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        checkpoint = folder / "checkpoint.safetensors"
        before = int(load_tensors(checkpoint)[1]["step"]) if checkpoint.exists() else 0
        agent, progress = _agent(recipe, before), _Progress()
        resumed = _resume(agent, progress, recipe, folder)
        return _run(agent, progress, recipe, folder, resumed, until_medium, keep_replay, report)
    finally:  # the library seeds the global generators: the caller's go on as if nothing had been drawn
        torch.set_num_threads(threads)
        torch.set_rng_state(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002
        random.setstate(generators[2])


def _run(
    agent: BehaviourSAC, progress: _Progress, recipe: Recipe, folder: Path, resumed: bool, until_medium: bool,
    keep_replay: bool, report: Callable[[int, dict[str, float]], None] | None,
) -> dict[str, Any]:  # fmt: skip
    began = time.monotonic()
    while agent.num_timesteps < recipe.steps and not (until_medium and progress.medium):
        chunk = min(recipe.eval_every, recipe.steps - agent.num_timesteps)
        agent.learn(chunk, reset_num_timesteps=False, log_interval=None)  # type: ignore[arg-type]
        figures = _evaluate(agent, progress, recipe, resumed)
        if report is not None:
            report(agent.num_timesteps, figures)
        if progress.medium is None and MEDIUM_SCORES[0] <= figures["score"] <= MEDIUM_SCORES[1]:
            progress.medium = _export(agent, recipe, figures, resumed)
            if not resumed:  # the rows first: a policy in the folder then says that they are there
                _write_replay(agent, recipe, folder / "medium-replay.hdf5")
            progress.medium.save(folder / "medium.safetensors")
            _save(agent, progress, recipe, folder, resumed, keep_replay)
        if figures["score"] >= progress.best_score:
            progress.best = _export(agent, recipe, figures, resumed)
            progress.best.save(folder / "best.safetensors")
        if agent.num_timesteps % recipe.checkpoint_every < recipe.eval_every or agent.num_timesteps >= recipe.steps:
            _save(agent, progress, recipe, folder, resumed, keep_replay)
    medium_step = progress.medium.meta["step"] if progress.medium else None
    return {
        "steps": agent.num_timesteps,
        "seconds": time.monotonic() - began,
        "best_score": progress.best_score,
        "medium_step": medium_step,
        "evaluations": progress.evaluations,
    }


def _agent(recipe: Recipe, steps_before: int = 0) -> BehaviourSAC:
    from stable_baselines3.common.vec_env import DummyVecEnv

    from envs.sac import BehaviourSAC

    env_facts(recipe.env)
    envs = DummyVecEnv([lambda: make_env(recipe.env, disable_env_checker=True) for _ in range(recipe.num_envs)])
    return BehaviourSAC(
        "MlpPolicy",
        envs,
        learning_rate=recipe.learning_rate,
        batch_size=recipe.batch_size,
        gamma=recipe.discount,
        tau=recipe.tau,
        train_freq=1,
        gradient_steps=recipe.num_envs,
        learning_starts=recipe.learning_starts,
        buffer_size=max(recipe.steps, steps_before) + 8 * recipe.num_envs,  # never full: it is the recording
        policy_kwargs={"net_arch": [recipe.width, recipe.width]},
        seed=recipe.seed,
        device="cpu",
    )


def _policy(agent: BehaviourSAC, meta: dict[str, Any]) -> BehaviourPolicy:
    arrays = [value.detach().numpy().copy() for value in agent.flat_actor.values]
    layers = ("hidden1", "hidden2", "mean", "log_std")
    low, high = agent.action_space.low, agent.action_space.high  # type: ignore[attr-defined]
    weights, biases = dict(zip(layers, arrays[::2], strict=True)), dict(zip(layers, arrays[1::2], strict=True))
    return BehaviourPolicy(weights, biases, low.astype(np.float32), high.astype(np.float32), meta)


def _evaluate(agent: BehaviourSAC, progress: _Progress, recipe: Recipe, resumed: bool) -> dict[str, float]:
    """Mean return and score of the policy's sampled actions. Global generators are not touched."""
    found = returns(recipe.env, _policy(agent, {}).act, EVAL_EPISODES, seed=recipe.seed + 1)
    reference = reference_scores(recipe.env)
    assert reference is not None
    mean = float(found.mean())
    score = 100.0 * (mean - reference.minimum) / (reference.maximum - reference.minimum)
    figures = {"step": float(agent.num_timesteps), "return": mean, "score": score, "spread": float(found.std())}
    progress.evaluations.append(figures)
    return figures


def _export(agent: BehaviourSAC, recipe: Recipe, figures: dict[str, float], resumed: bool) -> BehaviourPolicy:
    meta = {
        "env": recipe.env,
        "step": agent.num_timesteps,
        "return": figures["return"],
        "score": figures["score"],
        "resumed": resumed,
        "recipe": dataclasses.asdict(recipe),
        "platform": platform_facts(),
    }
    return _policy(agent, meta)


def _write_replay(agent: BehaviourSAC, recipe: Recipe, path: Path) -> None:
    """Everything that the agent has met, one environment's rows after the other's, in D4RL layout.

    An environment's unfinished last episode ends in a time-out: the recording stopped there. Where that episode had
    only begun, its one row would be no transition, and is left out.
    """
    buffer = agent.replay_buffer
    assert buffer is not None
    assert not buffer.full
    size = buffer.pos
    facts = env_facts(recipe.env)
    timeouts = buffer.timeouts[:size] > 0
    terminals = (buffer.dones[:size] > 0) & ~timeouts
    begun = (terminals[-2] | timeouts[-2]) & ~(terminals[-1] | timeouts[-1])
    timeouts[-1] |= ~terminals[-1]
    low, high = facts.action_low, facts.action_high
    action = low + np.float32(0.5) * (buffer.actions[:size].astype(np.float32) + np.float32(1)) * (high - low)
    rows = {
        "observations": buffer.observations[:size].astype(np.float32),
        "actions": np.clip(action, low, high),
        "rewards": buffer.rewards[:size].astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }
    last = [size - int(one) for one in begun]
    arrays = {key: np.concatenate([array[:end, env] for env, end in enumerate(last)]) for key, array in rows.items()}
    hdf5.write(
        path,
        arrays,
        {
            "env_id": recipe.env,
            "action_low": low,
            "action_high": high,
            "max_episode_steps": facts.max_episode_steps,
            "seed": recipe.seed,
            "made_by": json.dumps(dataclasses.asdict(recipe)),
            "versions": json.dumps(platform_facts()),
        },
    )


def _save(
    agent: BehaviourSAC, progress: _Progress, recipe: Recipe, folder: Path, resumed: bool, keep_replay: bool
) -> None:
    buffer = agent.replay_buffer
    assert buffer is not None
    if keep_replay:
        arrays = {key: torch.from_numpy(getattr(buffer, key)[: buffer.pos]) for key in _REPLAY_KEYS}
        save_tensors(folder / "replay.safetensors", arrays, {"step": agent.num_timesteps})
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (the library draws its batches from the global generator)
    tensors = dict(agent.tensors())
    tensors["torch_generator"] = torch.get_rng_state()
    tensors["numpy_generator"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    meta = {
        "recipe": dataclasses.asdict(recipe),
        "step": agent.num_timesteps,
        "updates": agent._n_updates,
        "rows": buffer.pos,
        "evaluations": progress.evaluations,
        "numpy_generator": [name, *rest],
        "resumed": resumed,
    }
    save_tensors(folder / "checkpoint.safetensors", tensors, meta)
    write_atomically(folder / "evaluations.json", json.dumps(progress.evaluations, indent=1))


def _resume(agent: BehaviourSAC, progress: _Progress, recipe: Recipe, folder: Path) -> bool:
    """Restore the agent from the folder's checkpoint, if there is one; whether this training was ever resumed."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return False
    tensors, meta = load_tensors(path)
    before = Recipe(**checked_fields(Recipe, meta["recipe"], "recipe"))
    changeable = ("steps", "checkpoint_every")
    if dataclasses.replace(before, steps=recipe.steps, checkpoint_every=recipe.checkpoint_every) != recipe:
        names = [field.name for field in dataclasses.fields(Recipe) if field.name not in changeable]
        differs = [name for name in names if getattr(before, name) != getattr(recipe, name)]
        given = f"a training with another {', '.join(differs)} in {folder}"
        reject("folder", "an empty folder, or one of this recipe", given, "name another folder or the same recipe")
    for name, tensor in agent.tensors().items():
        tensor.copy_(tensors[name])
    torch.set_rng_state(tensors["torch_generator"])
    name, *rest = meta["numpy_generator"]
    np.random.set_state((name, tensors["numpy_generator"].numpy().astype(np.uint32), *rest))  # noqa: NPY002
    agent.num_timesteps, agent._n_updates = meta["step"], meta["updates"]
    progress.evaluations = meta["evaluations"]
    for kind in ("medium", "best"):
        if (folder / f"{kind}.safetensors").exists():
            # Kept even where the checkpoint is older: it came from this recipe and its score was measured.
            setattr(progress, kind, BehaviourPolicy.read(folder / f"{kind}.safetensors"))
    assert agent.env is not None
    agent.env.seed(recipe.seed + meta["step"])
    _restore_replay(agent, recipe, folder, meta["step"], meta["rows"])
    return True


def _restore_replay(agent: BehaviourSAC, recipe: Recipe, folder: Path, step: int, rows: int) -> None:
    buffer = agent.replay_buffer
    assert buffer is not None
    path = folder / "replay.safetensors"
    if path.exists():
        tensors, _ = load_tensors(path)
        if len(tensors["rewards"]) >= rows:  # it may be newer than the checkpoint, whose rows are then its first
            for key in _REPLAY_KEYS:
                getattr(buffer, key)[:rows] = tensors[key][:rows].numpy()
            buffer.pos = rows
            return
    # Without its replay the agent acts for a while before it learns on: otherwise its critics would forget.
    agent.random_until = recipe.learning_starts
    agent.learning_starts = step + max(recipe.learning_starts, 10 * recipe.batch_size)
