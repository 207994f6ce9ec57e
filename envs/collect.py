"""Makes datasets: records what a behaviour agent of Stable-Baselines3 meets, and measures reference returns.

    python -m envs.collect replay --env Pendulum-v1 --out FILE.hdf5     everything a learning SAC agent met
    python -m envs.collect reference --env Pendulum-v1                  returns of a random and of a trained policy

Needs stable-baselines3, imported at use. Files are in D4RL layout, written whole or not at all, and say in their
attributes how they were made.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.datasets import hdf5
from envs.make import EnvFacts, env_facts, make_env
from orbs import reject

if TYPE_CHECKING:
    from stable_baselines3 import SAC

__all__ = ["Recording", "SACSettings", "collect_replay", "main", "measure_reference", "play", "train_sac", "versions"]


@dataclasses.dataclass(frozen=True)
class SACSettings:
    """The behaviour agent. Smaller and slower than Stable-Baselines3's default, so that a replay holds every stage.

    Attributes:
        width: units in each of the two hidden layers.
        learning_rate: of Adam.
        batch_size: rows an update.
        train_freq: environment steps for each update.
        learning_starts: first steps, played by uniformly random actions.
    """

    width: int = 64
    learning_rate: float = 3e-4
    batch_size: int = 64
    train_freq: int = 2
    learning_starts: int = 1000


class Recording:
    """Rows as they happen, in the file's order.

    An episode that ends by both a terminal and a time-out counts as a terminal.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[Any]] = {key: [] for key in hdf5.KEYS}

    def add(self, obs: Any, action: Any, reward: float, terminated: bool, truncated: bool) -> None:
        row = (obs, action, reward, terminated, truncated and not terminated)
        for key, value in zip(hdf5.KEYS, row, strict=True):
            self._rows[key].append(np.array(value, np.bool_ if key in ("terminals", "timeouts") else np.float32))

    def arrays(self) -> dict[str, np.ndarray]:
        """observations (N, d), actions (N, k), rewards (N,) float32; terminals, timeouts (N,) bool."""
        return {key: np.stack(values) for key, values in self._rows.items()}


def train_sac(
    env_id: str, steps: int, seed: int, settings: SACSettings | None = None, recording: Recording | None = None
) -> SAC:
    """A Soft Actor-Critic agent after `steps` environment steps on one CPU thread, from scratch.

    Args:
        recording: gets every step that the agent takes, exploration noise included.

    Raises:
        ValueError: fewer than one step; an environment that `envs.make.env_facts` refuses.
    """
    import gymnasium as gym
    import torch
    from stable_baselines3 import SAC

    if steps < 1:
        reject("steps", "at least 1", steps, "ask for more steps")
    settings = settings or SACSettings()
    env_facts(env_id)

    class Recorder(gym.Wrapper[Any, Any, Any, Any]):
        def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            self._obs, info = self.env.reset(**kwargs)
            return self._obs, info

        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            before = self._obs
            self._obs, reward, terminated, truncated, info = self.env.step(action)
            if recording is not None:
                recording.add(before, action, float(reward), terminated, truncated)
            return self._obs, reward, terminated, truncated, info

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        agent = SAC(
            "MlpPolicy",
            Recorder(make_env(env_id)),
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            train_freq=settings.train_freq,
            gradient_steps=1,
            learning_starts=settings.learning_starts,
            policy_kwargs={"net_arch": [settings.width, settings.width]},
            seed=seed,
            device="cpu",
        )
        agent.learn(steps)
    finally:
        torch.set_num_threads(threads)
    return agent


def collect_replay(
    env_id: str, steps: int, seed: int, settings: SACSettings | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The replay of a SAC agent that learns from scratch: (arrays in D4RL layout, attributes).

    Raises:
        ValueError: as `train_sac`.
    """
    settings = settings or SACSettings()
    recording = Recording()
    train_sac(env_id, steps, seed, settings, recording)
    facts = env_facts(env_id)
    arrays = {key: array[:steps] for key, array in recording.arrays().items()}  # the agent rounds up to train_freq
    return arrays, attributes(env_id, facts, seed, {"sac": dataclasses.asdict(settings), "steps": steps})


def attributes(env_id: str, facts: EnvFacts, seed: int, how: dict[str, Any]) -> dict[str, Any]:
    """What a file says about itself: environment, bounds, step limit, seed, settings and versions (as JSON)."""
    stated: dict[str, Any] = {
        "env_id": env_id,
        "action_low": facts.action_low,
        "action_high": facts.action_high,
        "seed": seed,
        "made_by": json.dumps(how),
        "versions": json.dumps(versions()),
    }
    if facts.max_episode_steps is not None:
        stated["max_episode_steps"] = facts.max_episode_steps
    return stated


def versions() -> dict[str, str]:
    """Of Python and the packages that a recording depends on."""
    import gymnasium
    import stable_baselines3
    import torch

    return {
        "python": platform.python_version(),
        "gymnasium": gymnasium.__version__,
        "stable-baselines3": stable_baselines3.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def play(env_id: str, policy: Callable[[Any], Any], episodes: int, seed: int) -> np.ndarray:
    """(episodes,) float64 undiscounted returns of `policy(obs) -> action`; episode i starts from seed + i."""
    if episodes < 1:
        reject("episodes", "at least 1", episodes, "ask for more episodes")
    env = make_env(env_id)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed + episode)
        done = False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            returns[episode] += float(reward)
            done = terminated or truncated
    env.close()
    return returns


def measure_reference(
    env_id: str, steps: int, episodes: int, seed: int, settings: SACSettings | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (episodes,) of uniformly random actions, and of a SAC agent's mean actions after `steps` steps."""
    facts = env_facts(env_id)
    rng = np.random.default_rng(seed)
    random = play(env_id, lambda obs: rng.uniform(facts.action_low, facts.action_high), episodes, seed)
    agent = train_sac(env_id, steps, seed, settings)
    good = play(env_id, lambda obs: agent.predict(obs, deterministic=True)[0], episodes, seed)
    return random, good


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m envs.collect", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    replay = commands.add_parser("replay", help="record everything that a learning SAC agent meets")
    reference = commands.add_parser("reference", help="returns of a random and of a trained policy")
    for command, steps in ((replay, 24_000), (reference, 30_000)):
        command.add_argument("--env", required=True, help="Gymnasium id")
        command.add_argument("--steps", type=int, default=steps, help="environment steps of the agent")
        command.add_argument("--seed", type=int, default=0)
        for field in dataclasses.fields(SACSettings):
            kind = type(field.default)
            command.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    replay.add_argument("--out", required=True, help="the file to write")
    reference.add_argument("--episodes", type=int, default=1000)
    args = parser.parse_args(arguments)
    settings = SACSettings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(SACSettings)})
    if args.command == "replay":
        arrays, stated = collect_replay(args.env, args.steps, args.seed, settings)
        options = {"env": args.env, "steps": args.steps, "seed": args.seed, **dataclasses.asdict(settings)}
        given = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
        stated["command"] = " ".join(["python -m envs.collect replay", *given])
        hdf5.write(args.out, arrays, stated)
        ends = arrays["terminals"] | arrays["timeouts"]
        print(f"{args.out}: {len(ends)} rows, {int(ends.sum())} episodes")
        return
    random, good = measure_reference(args.env, args.steps, args.episodes, args.seed, settings)
    for name, returns in (("random", random), ("trained", good)):
        error = returns.std(ddof=1) / len(returns) ** 0.5 if len(returns) > 1 else float("nan")
        spread = f"standard error {error:.2f}, sd {returns.std():.2f}"
        print(f"{name}: mean {returns.mean():.2f}, {spread}, {len(returns)} episodes")


if __name__ == "__main__":
    main()
