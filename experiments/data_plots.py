"""The picture of a dataset: what its episodes return, how long they last, which actions it covers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from envs.datasets import Dataset
from orbs import atomic_path, reject

__all__ = ["action_coverage", "draw"]

BINS = 41  # odd, so that the middle of the action space is the middle of a bin


def action_coverage(dataset: Dataset) -> np.ndarray:
    """(action_dim, BINS) float64: the share of each column's actions in equal bins from action_low to action_high."""
    span = dataset.action_high - dataset.action_low
    coverage = np.zeros((dataset.action_dim, BINS))
    for column in range(dataset.action_dim):
        place = (dataset.action[:, column] - dataset.action_low[column]) / span[column]
        index = np.minimum((place * BINS).astype(np.int64), BINS - 1)
        coverage[column] = np.bincount(index, minlength=BINS) / len(dataset)
    return coverage


def draw(dataset: Dataset, out: Path) -> Path:
    """Write the picture; the file's ending chooses the format.

    Raises:
        ValueError: an ending that is not .png, .pdf or .svg.
    """
    if out.suffix.lower() not in (".png", ".pdf", ".svg"):
        reject("--out", "a file that ends in .png, .pdf or .svg", f"'{out}'", "change the ending")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    returns, lengths, coverage = dataset.episode_returns(), dataset.episode_lengths(), action_coverage(dataset)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    left.hist(returns, bins=50, color="tab:blue")
    left.axvline(float(returns.mean()), color="black", linewidth=1, label=f"mean {returns.mean():.4g}")
    left.set(xlabel="return of an episode", ylabel="episodes", title=f"{len(returns)} episodes")
    if dataset.min_score is not None:
        scores = left.secondary_xaxis(
            "top",
            functions=(lambda x: dataset.normalized_score(x), lambda x: _unscaled(dataset, x)),
        )
        scores.set_xlabel("normalised score")
        left.set_title("")
    left.legend(frameon=False)
    middle.hist(lengths, bins=50, color="tab:gray")
    middle.set(xlabel="steps of an episode", ylabel="episodes", title=f"{len(dataset)} rows")
    image = right.imshow(coverage, aspect="auto", cmap="viridis", vmin=0.0, interpolation="nearest")
    right.set(xlabel="action, from its lower to its upper bound", ylabel="column", title="coverage of the action space")
    right.set_xticks([0, BINS // 2, BINS - 1], ["low", "middle", "high"])
    right.set_yticks(range(dataset.action_dim))
    figure.colorbar(image, ax=right, label="share of the rows")
    figure.suptitle(dataset.name)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=120)
    return out


def _unscaled(dataset: Dataset, score: np.ndarray) -> np.ndarray:
    assert dataset.min_score is not None
    assert dataset.max_score is not None
    return np.asarray(score, np.float64) / 100.0 * (dataset.max_score - dataset.min_score) + dataset.min_score
