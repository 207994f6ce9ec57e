"""The one long table (experiment, algorithm, problem, run, step, metric, value, env, simulator), record to summary.

A run folder holds `config.json`, `metrics.parquet` (this table) and `checkpoint.safetensors`; one folder is
one algorithm on one problem for a block of runs. Keys of `config.json` that are read here, all optional:
"experiment", "algorithm", "problem" (they name runs that have no row yet), "status" ("running", "complete" or
"stopped"), "steps" (planned), "diverged" ({run: step}, from that step on the run counts no more), "data"
({metric: mean over the dataset's episodes}, the reference line of plots), "env" and "env_note" (what scores the runs,
and why nothing does where "env" is null). Metrics: "eval/return", "eval/score", "eval/length", "train/...", and of
learners judged by regret, whose steps are rounds, "regret/static", "regret/sampled", "regret/dynamic", "bound/...".
`env` is the environment that scores the row's run when it was written, `simulator` what that runs on ("mujoco 3.10.0");
both are "" where nothing scores it, and in tables of older versions, which lack the two columns.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = {
    "experiment": "str", "algorithm": "str", "problem": "str",
    "run": "int64", "step": "int64", "metric": "str", "value": "float64", "env": "str", "simulator": "str",
}  # fmt: skip
OPTIONAL = ("env", "simulator")
IDENTITY = ["experiment", "algorithm", "problem", "run"]
KEY = [*IDENTITY, "step", "metric"]


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename: readers see the old file or the new one.

    The folder is made if missing. The data and the folder entry are synced to disk before this returns.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_atomically(path, lambda file: file.write(text.encode()))


def _typed(df: DataFrame, source: str) -> DataFrame:
    """The columns in order and in their types; ValueError names what is missing or does not convert."""
    df = df.assign(**{name: "" for name in OPTIONAL if name not in df.columns})
    missing = [name for name in COLUMNS if name not in df.columns]
    if missing:
        raise ValueError(
            f"{source}: expected the columns {', '.join(COLUMNS)}, but {', '.join(missing)} missing of "
            f"{', '.join(map(str, df.columns)) or 'none'}; is it a metrics table of orbs?"
        )
    try:
        return df[list(COLUMNS)].astype(COLUMNS)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: expected columns of types {COLUMNS}, got {dict(df.dtypes)}: {error}") from error


class Table:
    """Collects the rows of one run folder in memory; `frame()` is the long table.

    A resumed run starts from the rows that it kept: `Table(..., rows=drop_after(read_table(path), step))`; these keep
    their own `env` and `simulator`.
    """

    def __init__(
        self,
        experiment: str,
        algorithm: str,
        problem: str,
        rows: DataFrame | None = None,
        env: str = "",
        simulator: str = "",
    ) -> None:
        self._names = {"experiment": experiment, "algorithm": algorithm, "problem": problem}
        for name, value in self._names.items():
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name}: expected a non-empty name, got {value!r}")
        self._names |= {"env": env, "simulator": simulator}
        self._rows = None if rows is None else _typed(rows, "rows")
        self._run: list[NDArray[np.int64]] = []
        self._step: list[NDArray[np.int64]] = []
        self._metric: list[tuple[str, int]] = []
        self._value: list[NDArray[np.float64]] = []

    def __len__(self) -> int:
        return (0 if self._rows is None else len(self._rows)) + sum(count for _, count in self._metric)

    def record(self, run: int, step: int, metric: str, value: float) -> None:
        """Append one value; NaN and infinity are kept, they say that a run diverged."""
        self.record_runs(step, {metric: [value]}, [run])

    def record_runs(self, step: int, values: Mapping[str, ArrayLike], run_ids: ArrayLike) -> None:
        """Append {metric: array (runs,)} at `step`; `run_ids` (runs,) are the runs' global numbers."""
        runs = np.asarray(run_ids)
        if runs.ndim != 1 or not (np.issubdtype(runs.dtype, np.integer) or runs.size == 0):
            raise ValueError(f"run_ids: expected a vector of integers, got {runs.dtype} of shape {runs.shape}")
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
            raise ValueError(f"step: expected an integer of at least 0, got {step!r}")
        checked = {}
        for metric, given in values.items():
            # A copy: the trainer reuses its buffers.
            checked[metric] = np.array(given, dtype=np.float64)
            if checked[metric].shape != runs.shape:
                raise ValueError(
                    f"values[{metric!r}]: expected one value per run, shape {runs.shape}, got {checked[metric].shape}"
                )
        for metric, array in checked.items():
            self._run.append(np.array(runs, dtype=np.int64))
            self._step.append(np.full(runs.shape, step, dtype=np.int64))
            self._metric.append((metric, runs.size))
            self._value.append(array)

    def frame(self) -> DataFrame:
        """Everything recorded so far, in the order recorded, columns as in `COLUMNS`."""
        import pandas as pd

        if self._value:
            counts = [count for _, count in self._metric]
            fresh: dict[str, Any] = {
                "run": np.concatenate(self._run),
                "step": np.concatenate(self._step),
                "metric": np.repeat(np.array([name for name, _ in self._metric], dtype=object), counts),
                "value": np.concatenate(self._value),
            }
            rows = _typed(pd.DataFrame(fresh).assign(**self._names), "rows")
            # Fold what was collected into one frame: a long run is written often, and pays for each row once.
            self._rows = rows if self._rows is None else pd.concat([self._rows, rows], ignore_index=True)
            self._run, self._step, self._metric, self._value = [], [], [], []
        if self._rows is None:
            self._rows = _typed(pd.DataFrame({name: [] for name in COLUMNS}), "rows")
        return self._rows.copy()


def write_table(df: DataFrame, path: str | Path) -> Path:
    """Write the long table as parquet, atomically and durably."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(_typed(df, "df"), preserve_index=False).replace_schema_metadata(None)
    return write_atomically(path, lambda file: pq.write_table(arrow, file, compression="zstd"))


def read_table(path: str | Path) -> DataFrame:
    """Read a long table; ValueError for a truncated or foreign file, FileNotFoundError for none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a metrics table, found no file; was the run started?")
    try:
        with open(path, "rb") as file:
            df: DataFrame = pq.read_table(file).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: expected a whole parquet file, got {path.stat().st_size} bytes that are truncated "
            f"or of another kind ({str(error).splitlines()[0]}); delete it and resume the run, "
            "or leave this folder out"
        ) from error
    return _typed(df, str(path))


def drop_after(df: DataFrame, step: int) -> DataFrame:
    """Rows up to and including `step`: what a resume from the checkpoint at `step` keeps."""
    return df[df["step"] <= step].reset_index(drop=True)


def drop_off_grid(df: DataFrame, steps: int, eval_every: int, log_every: int) -> DataFrame:
    """What a training straight to `steps` has of the rows: an earlier end off its grid left others.

    Off `eval_every` it does not evaluate, and off `log_every` as well it records nothing, but at `steps`.
    """
    evaluated = (df["step"] % eval_every == 0) | (df["step"] == steps)
    logged = (df["step"] % log_every == 0) & ~df["metric"].str.startswith("eval/")
    return df[evaluated | logged].reset_index(drop=True)


def read_config(folder: str | Path) -> dict[str, Any]:
    """`config.json` of a run folder, {} if there is none; ValueError if it is not a JSON object."""
    path = Path(folder) / "config.json"
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got {error}; the file is damaged, restore or delete it") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(config).__name__}; is it a run's configuration?")
    return config


def find_folders(folders: str | Path | Iterable[str | Path]) -> list[Path]:
    """Every folder at or below those given that holds `metrics.parquet`, each once, sorted.

    Errors: ValueError for no folder given or nothing found, FileNotFoundError for a folder that is not there.
    """
    given = [Path(folders)] if isinstance(folders, (str, Path)) else [Path(folder) for folder in folders]
    if not given:
        raise ValueError("folders: expected at least one run folder, got none; name the folder that training wrote to")
    found: set[Path] = set()
    for folder in given:
        if not folder.is_dir():
            raise FileNotFoundError(f"folders: expected a folder, got {folder}, which is not there; check the path")
        found.update(file.parent.resolve() for file in folder.rglob("metrics.parquet"))
    if not found:
        raise ValueError(
            f"folders: expected metrics.parquet at or below {', '.join(map(str, given))}, found none; "
            "no run has started there, or it is not the folder that training wrote to"
        )
    return sorted(found)


class Results(NamedTuple):
    """The long table, one row a run of `status` (see `read_results`), and {(problem, metric): reference}."""

    table: DataFrame
    status: DataFrame
    data: dict[tuple[str, str], float]


def read_folders(folders: str | Path | Iterable[str | Path]) -> DataFrame:
    """The long tables of all run folders at or below `folders`, joined; errors as `read_results`."""
    return read_results(folders).table


def read_results(folders: str | Path | Iterable[str | Path]) -> Results:
    """Read all run folders at or below `folders`.

    `status` has the columns experiment, algorithm, problem, run, status ("unknown" if not told), steps
    (planned, nullable), diverged_step (nullable), folder, unscored (why nothing scores the run, else "").
    ValueError for a value recorded twice, naming the two folders.
    """
    import pandas as pd

    found = find_folders(folders)
    tables, rows = [], []
    data: dict[tuple[str, str], float] = {}
    for folder in found:
        table, config = read_table(folder / "metrics.parquet"), read_config(folder)
        tables.append(table)
        runs = table[IDENTITY].drop_duplicates()
        names = runs[IDENTITY[:3]].drop_duplicates()
        groups = {(str(row[0]), str(row[1]), str(row[2])) for row in names.itertuples(index=False, name=None)}
        if not groups:
            told = [str(config.get(name, "unknown")) for name in IDENTITY[:3]]
            groups = {(told[0], told[1], told[2])}
        diverged = _diverged(config, folder)
        known: set[tuple[str, str, str, int]] = {
            (str(row[0]), str(row[1]), str(row[2]), int(row[3])) for row in runs.itertuples(index=False, name=None)
        }
        # A run that diverged before its first row is a run all the same.
        missing = set(diverged) - {run[3] for run in known}
        known |= {(*group, run) for group in groups for run in missing}
        rows += [
            (
                *run,
                str(config.get("status", "unknown")),
                config.get("steps"),
                diverged.get(run[3]),
                str(folder),
                "" if config.get("env", "") is not None else str(config.get("env_note") or "no environment is known"),
            )
            for run in sorted(known)
        ]
        if isinstance(config.get("data"), dict):
            data |= {
                (group[2], str(metric)): float(value)
                for group in groups
                for metric, value in config["data"].items()
                if isinstance(value, (int, float))
            }
    joined = pd.concat(tables, ignore_index=True)
    twice = joined.duplicated(KEY, keep=False)
    if twice.any():
        origin = np.repeat(np.arange(len(found)), [len(table) for table in tables])
        row = joined[twice].iloc[0]
        same = (joined[KEY] == row[KEY]).all(axis=1).to_numpy()
        places = [str(found[index]) for index in origin[same][:2]]
        raise ValueError(
            f"{' / '.join(str(row[name]) for name in KEY)}: expected one value, got {int(same.sum())}, "
            f"in {places[0]} and {places[1]}; leave one folder out, or give the runs other numbers"
        )
    status = pd.DataFrame(rows, columns=[*IDENTITY, "status", "steps", "diverged_step", "folder", "unscored"])
    return Results(joined, status.astype({"run": "int64", "steps": "Int64", "diverged_step": "Int64"}), data)


def cut(found: Results, until: int) -> Results:
    """As if training had gone on to step `until` at most: to compare at equal steps what was trained for longer.

    Raises:
        ValueError: nothing was recorded by then.
    """
    table, status = found.table, found.status.copy()
    if until < 1 or not (table["step"] <= until).any():
        first = "nothing at all" if table.empty else f"{until}, before the first row at step {table['step'].min()}"
        raise ValueError(
            f"until: expected a step with something recorded before it, got {first}. Fix: name a later one."
        )
    reached = table.groupby(IDENTITY)["step"].max()
    done = status[IDENTITY].apply(tuple, axis=1).map(reached).fillna(-1) >= until
    status.loc[done, "status"] = "complete"
    status["steps"] = status["steps"].clip(upper=until)
    status.loc[status["diverged_step"] > until, "diverged_step"] = None
    return Results(table[table["step"] <= until].reset_index(drop=True), status, found.data)


def _diverged(config: Mapping[str, Any], folder: Path) -> dict[int, int]:
    given = config.get("diverged") or {}
    try:
        return {int(run): int(step) for run, step in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'config.json'}: diverged: expected an object of run number to step, got {given!r}"
        ) from error


def summarise(df: DataFrame, metric: str, status: DataFrame | None = None) -> DataFrame:
    """One row a run: what its evaluations of `metric` come to, three ways that are never mixed.

    Columns: experiment, algorithm, problem, run; `final` (value at `final_step`, the last evaluation),
    `last10` (mean of the last `last10_count` <= 10 evaluations), `best` (largest finite value, NaN if none;
    picked by looking at the evaluations, so biased upwards), `evaluations` (how many), `diverged`,
    `diverged_step` (nullable), `env` and `simulator` (of its rows; several are joined by " + "). A run
    diverged if `status` (see `read_results`) says so, or where its first NaN or infinite value stands. Runs
    that only `status` knows as diverged get a row of NaN. ValueError if nobody recorded `metric`.
    """
    import pandas as pd

    chosen = df[df["metric"] == metric]
    if chosen.empty:
        have = sorted(set(df["metric"]))
        raise ValueError(
            f"metric: expected a recorded one, got {metric!r}; "
            f"recorded are {', '.join(have) or 'none: no evaluation yet'}"
        )
    chosen = chosen.sort_values([*IDENTITY, "step"], kind="stable")
    grouped = chosen.groupby(IDENTITY, sort=True)
    tail = grouped.tail(10).groupby(IDENTITY, sort=True)["value"]
    finite = np.isfinite(chosen["value"].to_numpy())
    # skipna=False throughout: a NaN among the last ten must show, not shrink the sample.
    result = pd.DataFrame(
        {
            "final": grouped["value"].nth(-1).set_axis(pd.MultiIndex.from_frame(grouped.tail(1)[IDENTITY])),
            "final_step": grouped["step"].max(),
            "last10": tail.agg(lambda values: float(np.mean(values.to_numpy()))),
            "last10_count": tail.size(),
            "best": chosen.assign(value=chosen["value"].where(finite)).groupby(IDENTITY, sort=True)["value"].max(),
            "evaluations": grouped.size(),
            "diverged_step": chosen[~finite].groupby(IDENTITY)["step"].min(),
            **{name: grouped[name].agg(lambda values: " + ".join(values.unique())) for name in OPTIONAL},
        }
    )
    if status is not None:
        told = status.dropna(subset=["diverged_step"]).groupby(IDENTITY)["diverged_step"].min().astype("float64")
        result = result.reindex(result.index.union(told.index))
        result["diverged_step"] = np.fmin(result["diverged_step"], told.reindex(result.index))
    result["diverged_step"] = result["diverged_step"].astype("Int64")
    result["diverged"] = result["diverged_step"].notna()
    counts = ["evaluations", "last10_count"]
    result[counts] = result[counts].fillna(0).astype("int64")
    result[list(OPTIONAL)] = result[list(OPTIONAL)].fillna("")
    result["final_step"] = result["final_step"].astype("Int64")
    return result.reset_index().astype({"run": "int64"})
