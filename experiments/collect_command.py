"""What `orbs collect` does; the options are in `experiments.data_options`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments.data_options import Collect, CollectMake, CollectPlay, CollectState, CollectTrain

__all__ = ["collect"]


def collect(options: Collect) -> None:
    """Run one of its commands.

    Raises:
        ValueError: bad options; each names the field, what was expected, what was given and the fix.
    """
    command = options.command
    if isinstance(command, CollectTrain):
        _train(command)
    elif isinstance(command, CollectMake):
        _make(command)
    elif isinstance(command, CollectState):
        from envs.datasets import generate

        generate.state(command.names)
    else:
        _play(command)


def _train(command: CollectTrain) -> None:
    from tqdm import tqdm

    from envs.train_behaviour import Recipe, train
    from experiments.cpu import cpu_settings

    fields = [field.name for field in dataclasses.fields(Recipe) if hasattr(command, field.name)]
    recipe = Recipe(**{name: getattr(command, name) for name in fields})
    with cpu_settings(), tqdm(total=recipe.steps, desc=recipe.env, unit="step", unit_scale=True, disable=None) as bar:

        def report(step: int, figures: dict[str, float]) -> None:
            bar.set_postfix({"return": f"{figures['return']:.0f}", "score": f"{figures['score']:.1f}"})
            if not bar.n:
                bar.initial = max(0, step - recipe.eval_every)  # a resumed training's rate counts from here
            bar.update(step - bar.n)

        found = train(
            recipe, command.out, until_medium=command.until_medium, keep_replay=command.keep_replay, report=report
        )
    if not found["evaluations"]:
        return
    medium = found["medium_step"]
    print(
        f"{recipe.env}: {found['steps']} steps, best score {found['best_score']:.1f}; "
        + (f"medium after {medium} steps" if medium is not None else "medium was not reached")
        + f". Policies are in {command.out}."
    )


def _make(command: CollectMake) -> None:
    from envs.datasets import generate, hdf5, local
    from orbs import reject

    if command.name not in local.ENTRIES:
        reject("NAME", "the name of a local dataset", f"'{command.name}'", "see orbs data list local")
    entry = local.ENTRIES[command.name]
    if command.rows is None and command.seed is None:
        if command.out is None and command.num_envs != generate.NUM_ENVS:
            given = f"--num-envs {command.num_envs} and no --out"
            reject(
                "--out", f"a file, for other than {generate.NUM_ENVS} environments", given, "name one: --out FILE.hdf5"
            )
        out = command.out or local.place(command.name)
        if out == entry.shipped:
            fix = "name another file with --out"
            reject("--out", "a file that does not come with the suite", f"'{out}'", fix)
        verdict = generate.make(command.name, out, command.num_envs, progress=not command.quiet)
        print(f"{out}: {verdict}")
        return
    if command.out is None:
        reject("--out", "a file for a variant of the dataset", "none", "name one: --out FILE.hdf5")
    if command.out.is_dir():
        reject("--out", "a file", f"the folder '{command.out}'", "name a file in it")
    arrays = generate.collect(entry, command.num_envs, not command.quiet, command.rows, command.seed)
    hdf5.write(command.out, arrays, generate.attributes(entry, command.num_envs, command.seed), compress=False)
    print(f"{command.out}: {len(arrays['rewards'])} rows")


def _play(command: CollectPlay) -> None:
    from envs import behaviours
    from envs.datasets.references import reference_scores
    from envs.make import env_facts
    from envs.rollouts import returns
    from orbs import reject

    path = Path(command.policy)
    policy = behaviours.BehaviourPolicy.read(path) if path.suffix == ".safetensors" else behaviours.load(command.policy)
    env = command.env or policy.meta.get("env")
    if not isinstance(env, str):
        reject("--env", "a gymnasium id", "none in the policy's file", "pass --env")
    facts = env_facts(env)
    shape = (policy.weights["hidden1"].shape[1], len(policy.action_low))
    if shape != (facts.obs_dim, len(facts.action_low)):
        wanted = f"an environment of {shape[0]} observations and {shape[1]} actions, as the policy has"
        reject("--env", wanted, f"'{env}' with {facts.obs_dim} and {len(facts.action_low)}", "name the policy's own")
    reference = reference_scores(env)
    for kind, act in (("sampled", policy.act), ("mean", lambda obs, noise: policy.act(obs))):
        found = returns(env, act, command.episodes, command.seed)
        error = found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else float("nan")
        score = ""
        if reference is not None:
            scaled = 100 * (found.mean() - reference.minimum) / (reference.maximum - reference.minimum)
            score = f", score {scaled:.1f} ({reference.source})"
        print(f"{kind:8s} actions: mean return {found.mean():.1f}, standard error {error:.1f}{score}")
