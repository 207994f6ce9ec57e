"""The commands' options: dataclasses that the command line is made from. Imports no torch, so that help is quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["Bench", "Demo", "Evaluate", "List", "Published", "Report", "Train"]


@dataclass(frozen=True)
class Train:
    """Train algorithms on a dataset or in an environment, evaluate them on the way, print a table of scores.

    Each algorithm gets a folder OUT/DATASET/ALGORITHM with config.json, metrics.parquet and checkpoint.safetensors;
    agents that interact (see orbs list) take --env and no --dataset, and their folders are OUT/ENV/ALGORITHM.
    Stable-Baselines3's agents leave no checkpoint.
    Example: orbs train --algos bc td3bc prdc --dataset local/pendulum-medium-replay-v0 --runs 5 --steps 20000
    Example: orbs train --algos stac td3 --env Hopper-v4 --runs 5 --steps 100000
    """

    dataset: str | None = None
    """A name of `orbs data list`, minari:<id>, or the path of an HDF5 file in D4RL layout; none to interact."""
    algos: tuple[str, ...] = ("bc", "td3bc", "prdc")
    """Algorithms, by the names of `orbs list`."""
    env: str | None = None
    """Gymnasium id to interact with; for a dataset, to evaluate in (a built-in one knows its own; without one nothing
    is evaluated)."""
    runs: int = 5
    """Independent runs, trained at once."""
    first_run: int = 0
    """Number of the first run; run 7 is the same run whichever others ride along."""
    steps: int = 1_000_000
    """Updates per run; of agents that interact, environment steps."""
    seed: int = 0
    """Seed of the experiment, 0 to 2^32 - 1; runs differ within it."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    out: Path = Path("runs")
    """Folder to write under."""
    experiment: str = "train"
    """Name of the experiment in the table."""
    eval_every: int = 5000
    """Updates (environment steps) between evaluations."""
    eval_episodes: int = 10
    """Episodes per run and evaluation (100 is usual for AntMaze and Maze2d)."""
    eval_workers: int | Literal["auto"] = "auto"
    """Processes that play the evaluations of a training process while it goes on, with the same numbers; 0 plays them
    in between. auto: the cores that --jobs times --threads leave free, shared by the jobs, 8 each at most. Agents that
    interact use one, Stable-Baselines3's none."""
    log_every: int = 1000
    """Updates (environment steps) between rows of training metrics; also how often a diverged run is looked for."""
    checkpoint_seconds: float = 60.0
    """A checkpoint is written at each evaluation, and at a log point once this many seconds have passed; none of
    Stable-Baselines3's agents."""
    resume: bool = False
    """Go on from the checkpoint where there is one; --steps may be larger than before. Stable-Baselines3's agents
    leave no checkpoint: they start again."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ALGO.FIELD=VALUE ...")] = ()
    """Hyperparameters over the presets, e.g. --set prdc.beta=7.5 td3bc.alpha=1 (fields: orbs list --fields)."""
    critic: Literal["twin", "stac"] | None = None
    """Critic of every algorithm named that takes one: TD3's twin, or STAC's Gaussian; --set ALGO.critic goes before."""
    beer: float | None = None
    """Weight of BEER's penalty on the critic's features, likewise; the authors' is 1e-3."""
    clip_actions: bool = False
    """Clip the data's actions to the action space; real files have actions outside."""
    terminate_on_end: bool = False
    """Keep the rows of time-outs, as the d4rl package's option of that name does."""
    jobs: int = 1
    """Algorithms trained side by side, a process and a core each."""
    matmul: Literal["auto", "float32", "bf16", "bfloat16"] = "auto"
    """CPU kernels for float32 products: auto takes the chip's bfloat16 unit only where accuracy stays float32;
    bfloat16 really rounds the factors, in software (slower) where the chip cannot."""
    threads: int = 1
    """Threads a process; more than one rarely pays on a CPU."""
    tensorboard: bool = False
    """Also write TensorBoard files (extra: tensorboard)."""
    wandb: str | None = None
    """Also log to this Weights & Biases project (extra: wandb)."""


@dataclass(frozen=True)
class Evaluate:
    """Play episodes with the policies of a run folder and print their returns."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """A run folder, e.g. runs/pendulum-medium-replay-v0/prdc."""
    episodes: int = 100
    """Episodes per run."""
    env: str | None = None
    """Another gymnasium id than the one trained for."""
    seed: int = 1
    """Seed of the start states; training's evaluations used the run's own."""
    video: bool = False
    """Also write one episode of each run as an animated GIF (classic control needs the extra: video)."""
    device: str = "cpu"
    """Where the policy is computed."""


@dataclass(frozen=True)
class Report:
    """Tables (console, CSV, Markdown) and figures (PNG) from any number of run folders; with --html a page of them.

    Example: orbs report runs --html
    """

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDERS ...")]
    """Run folders, or folders above them."""
    out: Path | None = None
    """Where to write; by default a folder `report` in the first folder."""
    metric: str | None = None
    """eval/score or eval/return; by default the score where all have one. Of regrets one, or all of them."""
    checkpoint: Literal["final", "last10", "best"] = "final"
    """Which number of a run counts: its last evaluation, the mean of its last ten, or its best."""
    until: int | None = None
    """Leave out whatever came after this step, to compare at equal steps what was trained for longer."""
    html: Annotated[tuple[Path, ...] | None, tyro.conf.arg(metavar="[PATH]")] = None
    """Also write one self-contained page: tables, curves, the exact commands. By default OUT/index.html; a PATH ends in
    .html. FOLDERS go before it."""


@dataclass(frozen=True)
class List:
    """List algorithms, their hyperparameters and presets, problems of regret and the built-in datasets."""

    fields: bool = False
    """Show every hyperparameter with its default and meaning."""
    presets: bool = False
    """Show every preset with its source."""
    problems: bool = False
    """Show the problems of regret with their settings, and nothing else."""


@dataclass(frozen=True)
class Published:
    """Print published scores with their sources, e.g. orbs published PRDC hopper-medium-v2."""

    algorithm: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[ALGORITHM]")] = None
    """An algorithm, in any spelling; none for all."""
    dataset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATASET]")] = None
    """A D4RL name or its beginning; none for all."""


@dataclass(frozen=True)
class Bench:
    """Run a benchmark (algorithms x datasets or environments x runs) from one file; write its table and plots.

    Stopped at any time, the same command goes on where it was; more --steps add updates to what is there (but
    Stable-Baselines3's agents start again). Writes OUT/NAME/DATASET/ALGORITHM as `orbs train`, and tables and figures
    into OUT/NAME/report.
    Example: orbs bench local-mujoco --steps 20000 --every 5000 --jobs 2
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """A benchmark of `orbs bench --list`, or the path of a .toml file like those."""
    out: Path = Path("runs/bench")
    """Folder to write under."""
    list: bool = False
    """List the shipped benchmarks and their files."""
    algos: tuple[str, ...] = ()
    """Only these of its algorithms."""
    datasets: tuple[str, ...] = ()
    """Only these of its datasets."""
    envs: tuple[str, ...] = ()
    """Only these of its environments, in a benchmark of agents that interact."""
    problems: tuple[str, ...] = ()
    """Only these of its problems, in a benchmark of regret."""
    runs: int | None = None
    """Runs of each algorithm; default: the file's."""
    steps: int | None = None
    """Updates (of agents that interact: environment steps; of regret: rounds) per run; default: the file's."""
    eval_every: int | None = None
    """Updates (environment steps) between evaluations; default: the file's."""
    eval_episodes: int | None = None
    """Episodes per run and evaluation; default: the file's."""
    eval_workers: int | Literal["auto"] = "auto"
    """Processes that play the evaluations of a unit while it trains, as in `orbs train`; with Ray, which does not count
    them, auto is 0."""
    seed: int | None = None
    """Seed; default: the file's."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ALGO.FIELD=VALUE ...")] = ()
    """Hyperparameters over the file's and the presets'."""
    every: int | None = None
    """Advance all units by this many updates (environment steps) in turn: cut short, the benchmark is balanced;
    default: unit by unit."""
    block: int | None = None
    """Runs trained together in one folder; default: all of them."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    jobs: int = 1
    """Units trained side by side, a process and a core each."""
    threads: int = 1
    """Threads a process; more than one rarely pays on a CPU."""
    matmul: Literal["auto", "float32", "bf16", "bfloat16"] = "auto"
    """CPU kernels for float32 products, as in `orbs train`."""
    checkpoint_seconds: float = 60.0
    """A checkpoint is written this often at least, where the unit can be: what a killed unit loses at most."""
    launcher: Literal["local", "ray"] = "local"
    """local: --jobs processes on this machine. ray: a task of Ray's a unit (extra: ray), with --threads CPUs, and a GPU
    where --device is cuda; a unit whose worker or node is lost goes on elsewhere from its checkpoint."""
    address: str | None = None
    """Ray: the cluster, "auto", HOST:PORT or ray://HOST:PORT, whose nodes have the suite installed and see --out; none:
    this machine, --jobs units at a time, or as many as it has cores where --jobs is 1."""
    retries: int = 3
    """Ray: how often a unit is started again after its worker or node was lost; its own errors are not retried."""
    sync: str | None = None
    """Ray: where the nodes share no --out: a target of fsspec's (s3://..., file:///...) that units are fetched from and
    copied to; what lies there goes before what lies in --out, and is copied into it at the end."""
    sync_seconds: float = 60.0
    """Ray: seconds between copies to --sync while a unit runs; one more follows when it ends."""
    report_only: bool = False
    """Train nothing: write table and plots of what is there, up to --steps."""


@dataclass(frozen=True)
class Demo:
    """The whole suite in a few minutes: BC, TD3+BC and PRDC on a built-in dataset, a table and curves."""

    out: Path = Path("runs/demo")
    """Folder to write under; an earlier demo there is resumed."""
    runs: int = 3
    """Runs of each algorithm."""
    steps: int = 10_000
    """Updates per run."""
    jobs: int = 2
    """Algorithms trained side by side."""


Command = Train | Evaluate | Report | List | Published | Bench | Demo


def overrides(settings: Sequence[str], algorithms: Sequence[str]) -> dict[str, dict[str, object]]:
    """{"prdc": {"beta": 7.5}} from ["prdc.beta=7.5"]; values are Python literals, or words.

    Raises:
        ValueError: another form, or an algorithm that is not trained.
    """
    import ast

    values: dict[str, dict[str, object]] = {name: {} for name in algorithms}
    for setting in settings:
        name, dot, rest = setting.partition(".")
        field, equals, text = rest.partition("=")
        if not (dot and equals and field and text):
            raise ValueError(f"--set: expected ALGO.FIELD=VALUE, got '{setting}'. Fix: e.g. --set prdc.beta=7.5.")
        if name not in values:
            raise ValueError(
                f"--set: expected one of the algorithms {', '.join(values)}, got '{name}' in '{setting}'. "
                "Fix: name one that is trained."
            )
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
        values[name][field] = tuple(value) if isinstance(value, list) else value
    return values
