"""A dataset: the rows of one file, checked, and the views of them that learners and reports use."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from envs.datasets.qlearning import closing_rows, qlearning_view
from orbs import ROW_FIELDS, Transitions, checksum_of, reject

__all__ = ["Dataset", "DatasetView"]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """N checked rows, in the file's order. Arrays are read-only.

    Attributes:
        name: the built-in name, or the file's stem.
        obs: (N, obs_dim) float32.
        action: (N, action_dim) float32, within the bounds.
        reward: (N,) float32.
        terminal, timeout: (N,) bool; time-outs come from the step limit if the file has none. Both in one row only
            where D4RL's own files have that.
        action_low, action_high: (action_dim,) float32.
        path, sha256: the file and the digest of its bytes.
        env_id: the Gymnasium id for evaluation, or None.
        min_score, max_score: returns that count as 0 and 100, or None if there are none.
        score_source: whose reference returns these are and how they were measured.
        env_note: half a sentence that goes on from "scored in", or from "cannot be scored:" where env_id is None.
        terminate_on_end: time-out rows stay in `transitions`, with the terminal flag that the file gives them: so
            does the d4rl package, though its documentation promises terminals.
        counted_limit: the step limit from which `timeout` was counted, for a file without time-outs.
        final_obs: (episodes, obs_dim) float32, the observation after each episode's last row, or None if the file
            does not hold them (D4RL's do not).
    """

    name: str
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray
    timeout: np.ndarray
    action_low: np.ndarray
    action_high: np.ndarray
    path: Path
    sha256: str
    env_id: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    score_source: str | None = None
    env_note: str | None = None
    terminate_on_end: bool = False
    counted_limit: int | None = None
    final_obs: np.ndarray | None = None

    def __post_init__(self) -> None:
        for field in ("obs", "action", "reward", "terminal", "timeout", "action_low", "action_high"):
            getattr(self, field).setflags(write=False)
        if self.final_obs is not None:
            self.final_obs.setflags(write=False)

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def obs_dim(self) -> int:
        return int(self.obs.shape[1])

    @property
    def action_dim(self) -> int:
        return int(self.action.shape[1])

    def transitions(self) -> Transitions:
        """The one-step view that D4RL's `qlearning_dataset` gives, or every row where `final_obs` is known.

        Row i of N becomes (obs[i], action[i], reward[i], obs[i+1], terminal[i]). Time-out rows are dropped, since
        the next row belongs to another episode. Terminal rows stay: their next observation is the next row's, which
        no bootstrap uses. The last row of the file is lost. `timeout` marks the last kept row of each episode that
        ended in the file without a terminal. The package's slips are kept where its code differs from its
        documentation (`terminate_on_end`, files without time-outs); see `envs.datasets.qlearning`.

        With `final_obs` nothing is dropped: each episode's last row has its own next observation, and `timeout` is
        the data's own flag (with `terminate_on_end` a terminal). Only the rows of an unfinished last episode end one
        row early.
        """
        view = self.view()
        return Transitions(
            **{field: view.part(field, 0, len(view)) for field in (*ROW_FIELDS, "next_action")},
            action_low=self.action_low,
            action_high=self.action_high,
            name=self.name,
        )

    def view(self) -> DatasetView:
        """The rows of `transitions()` without a copy of them; learners take them block by block."""
        rows, terminal, timeout = self._kept() if self.final_obs is None else self._all()
        return DatasetView(self, rows, terminal, timeout)

    def _kept(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        timeout = self.timeout if self.counted_limit is None else None
        found = qlearning_view(
            self.terminal, timeout, step_limit=self.counted_limit, terminate_on_end=self.terminate_on_end
        )
        return np.flatnonzero(found.keep), found.terminal, closing_rows(found.keep, self.terminal, self.timeout)

    def _all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        finished = (self.terminal | self.timeout)[-1]
        rows = np.arange(len(self) if finished else len(self) - 1)
        terminal, timeout = self.terminal[rows], self.timeout[rows]
        if self.terminate_on_end:
            return rows, terminal | timeout, np.zeros_like(timeout)
        return rows, terminal, timeout

    def episode_returns(self) -> np.ndarray:
        """(episodes,) float64: the undiscounted return of each complete episode; an unfinished last one is left out."""
        ends = self.episode_ends()
        starts = np.concatenate(([0], ends[:-1] + 1))
        return np.asarray(np.add.reduceat(self.reward[: ends[-1] + 1].astype(np.float64), starts))

    def episode_lengths(self) -> np.ndarray:
        """(episodes,) int64: the rows of each complete episode."""
        ends = self.episode_ends()
        return np.diff(ends, prepend=-1)

    def normalized_score(self, returns: np.ndarray | float) -> np.ndarray:
        """100 (return - min_score) / (max_score - min_score), of the shape of `returns`.

        Raises:
            ValueError: the dataset has no reference returns.
        """
        if self.min_score is None or self.max_score is None:
            given = f"'{self.name}' has none" + (f" for '{self.env_id}'" if self.env_id else "")
            reject("score", "a dataset with reference returns", given, "report raw returns, or pass another env")
        return 100.0 * (np.asarray(returns, np.float64) - self.min_score) / (self.max_score - self.min_score)

    def summary(self) -> str:
        """One paragraph: rows, episodes, returns, widths, environment."""
        returns, lengths = self.episode_returns(), self.episode_lengths()
        kinds = f"{int(self.terminal.sum())} ended by a terminal and {int(self.timeout.sum())} by a time-out"
        spread = f"mean {returns.mean():.1f}, sd {returns.std():.1f}, from {returns.min():.1f} to {returns.max():.1f}"
        text = (
            f"{self.name}: {len(self)} rows in {len(returns)} episodes of {lengths.min()} to {lengths.max()} steps, "
            f"{kinds}; returns {spread}; observations {self.obs_dim} wide, actions {self.action_dim} wide within "
            f"[{self.action_low.min():g}, {self.action_high.max():g}]; "
            + (f"evaluated on {self.env_id}" if self.env_id else "no environment for evaluation")
        )
        rest = len(self) - int(lengths.sum())
        if rest:
            text += f"; the last {rest} rows are an unfinished episode"
        if self.min_score is not None:
            score = float(self.normalized_score(returns.mean()))
            text += f"; normalised score of the mean {score:.1f} ({self.score_source})"
        return text + "."

    def episode_ends(self) -> np.ndarray:
        """(episodes,) int64: the last row of each complete episode."""
        return self._ends

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.flatnonzero(self.terminal | self.timeout)


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetView:
    """The transitions of a dataset by row number; see `orbs.Rows` and `Dataset.transitions`.

    Attributes:
        dataset: where the values lie.
        rows: (M,) int64, the dataset's row of each transition.
        terminal, timeout: (M,) bool.
    """

    dataset: Dataset
    rows: np.ndarray
    terminal: np.ndarray
    timeout: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def name(self) -> str:
        return self.dataset.name

    @property
    def obs_dim(self) -> int:
        return self.dataset.obs_dim

    @property
    def action_dim(self) -> int:
        return self.dataset.action_dim

    @property
    def action_low(self) -> np.ndarray:
        return self.dataset.action_low

    @property
    def action_high(self) -> np.ndarray:
        return self.dataset.action_high

    def part(self, field: str, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop - 1 of a field, float32; a copy."""
        if field in ("terminal", "timeout"):
            flags = self.terminal if field == "terminal" else self.timeout
            some: np.ndarray = flags[start:stop].astype(np.float32)
            return some
        rows = self.rows[start:stop]
        if field == "next_action":
            return self._next_action(rows)
        if field != "next_obs":
            values: np.ndarray = getattr(self.dataset, field)
            return np.asarray(values.take(rows, axis=0))  # ten times faster than a mask on narrow rows
        final = self.dataset.final_obs
        if final is None:
            return np.asarray(self.dataset.obs.take(rows + 1, axis=0))
        following = np.asarray(self.dataset.obs.take(np.minimum(rows + 1, len(self.dataset) - 1), axis=0))
        ended = self.dataset.terminal[rows] | self.dataset.timeout[rows]
        following[ended] = final[np.searchsorted(self.dataset.episode_ends(), rows[ended])]
        return following

    def _next_action(self, rows: np.ndarray) -> np.ndarray:
        """The next row's action, as `next_obs` is the next row's observation.

        Where final observations are known, nothing was done in them: NaN after a terminal and after a time-out.
        """
        data = self.dataset
        following = np.asarray(data.action.take(np.minimum(rows + 1, len(data) - 1), axis=0))
        if data.final_obs is not None:
            following[data.terminal[rows] | data.timeout[rows]] = np.nan
        return following

    def select(self, rows: np.ndarray) -> DatasetView:
        """These transitions alone, in this order."""
        return DatasetView(self.dataset, self.rows[rows], self.terminal[rows], self.timeout[rows])

    def checksum(self) -> str:
        """As `Transitions.checksum`; computed once, since the arrays are read-only and every learner asks for it."""
        return self._checksum

    @functools.cached_property
    def _checksum(self) -> str:
        return checksum_of(self)
