"""The `orbs` command. Imports nothing heavy before a command runs: help must appear at once."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import data_options, options, regret_options

__all__ = ["main"]

DESCRIPTION = """orbs: offline RL and bandits, many runs at once, one table.

Start with `orbs demo`; then `orbs list`, `orbs train --help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on stderr and exit status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["--version"], ["-V"]):
        print(f"orbs {_version()}")
        return 0
    command = tyro.cli(
        _commands(),
        args=given or ["--help"],
        prog="orbs",
        description=DESCRIPTION,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        return _run(command)
    except BrokenPipeError:  # whoever read the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("experiments", "offline_rl", "envs", "orbs"):
            raise
        print(f"orbs: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _version() -> str:
    """Read from the source or the installed metadata, because importing `orbs` imports torch."""
    from importlib import metadata

    source = Path(__file__).parent.parent / "orbs.py"
    if source.is_file():
        for line in source.read_text(encoding="utf-8").splitlines():
            if line.startswith("__version__"):
                return line.split('"')[1]
    return metadata.version("orbs")


def _commands() -> Any:
    def named(kind: type, name: str) -> Any:
        return Annotated[kind, tyro.conf.subcommand(name=name, prefix_name=False)]

    found = [
        named(options.Demo, "demo"),
        named(options.Train, "train"),
        named(regret_options.Regret, "regret"),
        named(options.Evaluate, "evaluate"),
        named(options.Report, "report"),
        named(options.Bench, "bench"),
        named(options.List, "list"),
        named(options.Published, "published"),
        named(data_options.Data, "data"),
        named(data_options.Collect, "collect"),
    ]
    union: Any = found[0]
    for kind in found[1:]:
        union = union | kind
    return union


def _run(command: options.Command | regret_options.Regret | data_options.Data | data_options.Collect) -> int:
    """The exit status."""
    if isinstance(command, options.Train):
        from experiments.train import train

        folders = train(command)
        _print_table(folders, folders[0].parent / "report", quiet=True)  # `orbs report OUT` has a place of its own
    elif isinstance(command, regret_options.Regret):
        from experiments.regret import regret

        folder = regret(command)[0].parent
        _print_table([folder], folder / "report")  # of all that was played on the problem, blocks of runs included
    elif isinstance(command, options.Demo):
        from experiments.demo import demo

        demo(command)
    elif isinstance(command, options.Evaluate):
        _evaluate(command)
    elif isinstance(command, options.Report):
        _report(command)
    elif isinstance(command, options.Bench):
        from experiments.bench import bench

        return bench(command)
    elif isinstance(command, options.Published):
        from experiments import published

        print(published.table(published.find(command.algorithm, command.dataset)))
    elif isinstance(command, data_options.Data):
        from experiments.data_command import data

        return data(command)
    elif isinstance(command, data_options.Collect):
        from experiments.collect_command import collect

        collect(command)
    else:
        _list(command)
    return 0


def _report(command: options.Report) -> None:
    if not command.folders:
        swallowed = "orbs report runs --html, the folders before it" if command.html else "e.g. orbs report runs"
        raise ValueError(f"folders: expected at least one, got none. Fix: {swallowed}.")
    out = command.out or command.folders[0] / "report"
    path = None
    if command.html is not None:
        from experiments import html_report

        path = html_report.place(command.html, out)
    _print_table(command.folders, out, command.metric, command.checkpoint, until=command.until, html=path)


def _print_table(
    folders: Sequence[Path],
    out: Path,
    metric: str | None = None,
    checkpoint: Any = "final",
    quiet: bool = False,
    until: int | None = None,
    html: Path | None = None,
) -> None:
    """Report on the folders; `quiet` forgives runs that had no environment, `html` is where a page goes."""
    from experiments import regret_report, report, results

    if regret_report.is_regret(results.read_results(folders).table):
        if checkpoint != "final":
            raise ValueError(f"--checkpoint: expected final for regrets, got {checkpoint}. Fix: leave it out.")
        _print_made(regret_report.report(folders, out, metric, until), folders, html)
        return
    if quiet:
        found = results.read_results(folders)
        if not found.table["metric"].str.startswith("eval/").any():
            why = "Every run diverged before an evaluation" if found.status["diverged_step"].notna().all() else ""
            print(
                f"{why or 'Nothing was evaluated'}, so there is no table of scores; training metrics are in "
                "metrics.parquet."
            )
            return
    _print_made(report.report(folders, out, metric=metric, checkpoint=checkpoint, until=until), folders, html)


def _print_made(made: Any, folders: Sequence[Path], html: Path | None) -> None:
    if html is not None:
        from experiments import html_report

        made.paths["html"] = html_report.write(made, folders, html)
    print(f"\n{made.text}\n")
    for name, path in made.paths.items():
        print(f"  {name:12s} {path}")


def _evaluate(command: options.Evaluate) -> None:
    import numpy as np

    from envs.datasets.references import Reference, reference_scores
    from experiments import results
    from experiments.agents import SECOND_OPINIONS
    from experiments.cpu import cpu_settings
    from experiments.evaluate import Evaluator, record_video
    from offline_rl import load

    if not command.folder.is_dir():
        raise ValueError(f"FOLDER: expected a run folder, got {command.folder}. Fix: name the folder that --out made.")
    config = results.read_config(command.folder)
    if config.get("base", config.get("algorithm")) in SECOND_OPINIONS:
        raise ValueError(
            f"FOLDER: expected a run folder with a checkpoint, got {command.folder}: Stable-Baselines3's agents leave "
            "none. Fix: see its evaluations with orbs report."
        )
    learner = load(command.folder, command.device)
    step: int = getattr(learner, "interactions", learner.steps)
    done = f"{step} steps" if hasattr(learner, "interactions") else f"{step} updates on {learner.data_name}"
    env = command.env or config.get("env")
    if env is None:
        why = f" ({config['env_note']})" if config.get("env_note") else ""
        raise ValueError(f"--env: expected a gymnasium id, got none in the run's configuration{why}. Fix: pass --env.")
    lost = [run for run, fine in zip(learner.run_ids, learner.finite(), strict=True) if not fine]
    lost += [run for run in map(int, config.get("diverged", {})) if run not in lost]
    with cpu_settings():
        evaluator = Evaluator(env, learner.run_ids, command.episodes, command.seed)
        try:
            played = evaluator.evaluate(learner, step, skip=lost)
        finally:
            evaluator.close()
        print(f"{config.get('algorithm', learner.name)} after {done}, {command.episodes} episodes in {env}")
        print(f"{'run':>5} {'mean return':>12} {'sd':>9} {'min':>9} {'max':>9} {'length':>8}")
        for slot, run in enumerate(learner.run_ids):
            if run in lost:
                print(f"{run:5d} {'diverged':>12}")
                continue
            returns = played.returns[slot]
            length = played.lengths[slot].mean()
            spread = f"{returns.std(ddof=1):9.1f}" if len(returns) > 1 else f"{'-':>9}"
            print(f"{run:5d} {returns.mean():12.1f} {spread} {returns.min():9.1f} {returns.max():9.1f} {length:8.1f}")
        left = [run for run in learner.run_ids if run not in lost]
        if left:
            mean = float(np.nanmean(played.returns))
            reference = reference_scores(env)
            low, high = config.get("score_range") or (None, None)
            if (
                env == config.get("env") and isinstance(low, float) and isinstance(high, float)
            ):  # the dataset's own, D4RL's for one
                reference = Reference(low, high, str(config.get("score_source")))
            score = ""
            if reference is not None:
                scaled = 100 * (mean - reference.minimum) / (reference.maximum - reference.minimum)
                score = f"; normalised score {scaled:.1f} ({reference.source})"
            print(f"mean over runs: {mean:.1f}{score}")
        if command.video:
            for run in left:
                path = record_video(learner, env, command.folder / f"video-run{run}.gif", run, command.seed)
                print(f"video: {path}")


def _list_problems(settings: bool) -> None:
    from experiments.problems import PROBLEMS

    print("Problems of regret (orbs regret --problem NAME; settings: orbs list --problems):")
    for name, problem in PROBLEMS.items():
        print(f"  {name:24s} {problem.about}")
        if settings:
            for setting, meaning in problem.known.items():
                print(f"      {setting}: {meaning}")


def _list(command: options.List) -> None:
    if command.problems:
        _list_problems(True)
        return
    from bandits.config import CONFIGS as LEARNERS
    from experiments.agents import SECOND_OPINIONS
    from experiments.presets import rules
    from offline_rl.config import CONFIGS
    from offline_rl.online.config import ONLINE_CONFIGS

    for heading, kinds in (
        ("Algorithms (orbs train --algos NAME ... --dataset NAME):", CONFIGS),
        ("Agents that interact (orbs train --algos NAME ... --env ID):", ONLINE_CONFIGS),
    ):
        print(heading)
        for name, kind in kinds.items():
            print(f"  {name:8s} {(kind.__doc__ or '').strip().splitlines()[0]}")
            if command.fields:
                docs = _field_docs(kind)
                for field in dataclasses.fields(kind):
                    print(f"      {field.name} = {field.default!r}: {docs.get(field.name, '')}")
            if command.presets:
                for rule in rules(name):
                    print(f"      preset {rule.pattern}: {rule.values or '{}'} ({rule.source})")
    for name, ours in SECOND_OPINIONS.items():
        print(f"  {name:8s} Stable-Baselines3's, a second opinion on {ours}, whose fields and presets it takes.")
    print("Learners judged by regret (orbs regret --learners NAME ... --problem NAME):")
    for name, learner in LEARNERS.items():
        print(f"  {name:24s} {learner.about}")
        if command.fields:
            docs = _field_docs(learner)
            for field in dataclasses.fields(learner):
                print(f"      {field.name} = {field.default!r}: {docs.get(field.name, '')}")
    _list_problems(False)
    from envs.datasets import names

    print("Datasets (orbs train --dataset NAME, or the path of an HDF5 file in D4RL layout; more: orbs data list):")
    for dataset in names():
        print(f"  {dataset}")
    if not (command.fields or command.presets):
        print("More: orbs list --fields, orbs list --presets, orbs list --problems")


def _field_docs(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and its bases, which the help and this list are made from."""
    import ast
    import inspect
    import textwrap

    found: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body[:-1], body.body[1:], strict=True):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


if __name__ == "__main__":
    sys.exit(main())
