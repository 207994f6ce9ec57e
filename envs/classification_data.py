"""Classification data for bandits: by name from scikit-learn, from .npz or .csv files; standardised contexts."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from orbs import reject

__all__ = ["SETS", "contexts_of", "load", "one_hot_columns"]

SETS = {"iris": "load_iris", "wine": "load_wine", "breast-cancer": "load_breast_cancer", "digits": "load_digits"}
FIELD = "ClassificationBandit.data"


def load(data: str) -> tuple[np.ndarray, np.ndarray]:
    """X (N, m) float64 and y (N,) int64, classes numbered from 0 in sorted order.

    Args:
        data: "blobs" (three overlapping normal clouds in the plane, 300 rows, made here), a set of scikit-learn's
            (iris, wine, breast-cancer, digits), a path to an .npz with X and y, or to a .csv or .csv.gz with a line of
            names whose first column is the class; its columns of words become a column a word.

    Raises:
        ValueError: an unknown name, scikit-learn is missing, a file that is missing or of another form, not finite.
    """
    if data == "blobs":
        x, y = _blobs()
    elif data in SETS:
        x, y = _bundled(data)
    elif not isinstance(data, str) or not data.endswith((".npz", ".csv", ".csv.gz")):
        names = ", ".join(("blobs", *SETS))
        reject(FIELD, f"one of {names}, or a path to an .npz, .csv or .csv.gz", repr(data), "choose one of these")
    elif not Path(data).is_file():
        reject(FIELD, "a file that is there", repr(data), "check the path")
    else:
        x, y = _npz(data) if data.endswith(".npz") else _csv(data)
    if x.ndim != 2 or y.shape != (len(x),) or len(x) == 0:
        given = f"X of shape {x.shape} and y of shape {y.shape} in {data}"
        reject(FIELD, "X of shape (N, m) and y of shape (N,)", given, "align them row by row")
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0][0])
        reject(FIELD, "finite numbers", f"a NaN or inf in row {row} of {data}", "drop or mend that row")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        reject(FIELD, "a class in every row", f"a NaN or inf among the classes of {data}", "drop those rows")
    classes, numbers = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        reject(FIELD, "at least two classes", f"{len(classes)} in {data}", "choose other data")
    return x, numbers.astype(np.int64)


def contexts_of(x: np.ndarray, unit: bool) -> np.ndarray:
    """(N, d): columns of mean 0 and deviation 1, no constant ones, then a column of ones; rows of norm 1 if unit."""
    spread = x.max(0) - x.min(0)
    kept = x[:, spread > 0]
    kept = (kept - kept.mean(0)) / kept.std(0)
    found = np.column_stack([kept, np.ones(len(x))])
    return found / np.linalg.norm(found, axis=1, keepdims=True) if unit else found


def one_hot_columns(frame: pd.DataFrame) -> np.ndarray:
    """(N, m) float64: columns of numbers as they are, columns of words as a column of 0 and 1 a word (sorted)."""
    parts = []
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            parts.append(column.to_numpy(np.float64)[:, None])
        else:
            words, place = np.unique(column.astype(str).to_numpy(str), return_inverse=True)
            parts.append(np.eye(len(words))[place])
    return np.concatenate(parts, axis=1) if parts else np.empty((len(frame), 0))


def _blobs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(0))
    y = np.repeat(np.arange(3), 100)
    centres = np.array([[0.0, 2.0], [-1.7, -1.0], [1.7, -1.0]])
    return centres[y] + rng.normal(size=(300, 2)), y


def _bundled(name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        sets = importlib.import_module("sklearn.datasets")
    except ImportError:
        reject(FIELD, f"scikit-learn, which holds {name}", "no such package", "pip install scikit-learn")
    x, y = getattr(sets, SETS[name])(return_X_y=True)
    return np.asarray(x, np.float64), np.asarray(y)


def _npz(path: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["X"], file["y"]
            if x.dtype.kind not in "biuf":
                raise ValueError(f"X of type {x.dtype}")
            return np.asarray(x, np.float64), np.asarray(y)
    except Exception as error:  # a damaged file can raise anything
        reject(FIELD, "an .npz with arrays X and y of numbers", f"{path} ({error})", "np.savez(path, X=X, y=y)")


def _csv(path: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        # Without index_col a line with a field too many would make the class an index.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, keep_default_na=False, index_col=False)
    except Exception as error:  # a damaged file can raise anything
        reject(FIELD, "a table of comma-separated values", f"{path} ({error})", "check the file")
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            continue
        words = column.astype(str)
        numbers = pd.to_numeric(words, errors="coerce").notna()
        # A cell that is empty, or a word among numbers, would turn a column of numbers into one of words.
        bad = (words == "") | (~numbers if numbers.mean() > 0.5 else False)
        if bad.any():
            row = int(np.argmax(bad.to_numpy()))
            wanted = "a value in every cell, and columns of numbers or of words"
            reject(FIELD, wanted, f"'{words.iloc[row]}' in column {name}, row {row} of {path}", "mend or drop that row")
    return one_hot_columns(frame.iloc[:, 1:]), frame.iloc[:, 0].astype(str).to_numpy(str)
