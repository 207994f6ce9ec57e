"""Offline datasets: local ones and D4RL's by name, Minari's by id, any HDF5 file in D4RL layout by path.

>>> from envs.datasets import load
>>> data = load("local/pendulum-medium-replay-v0")
>>> transitions = data.transitions()
"""

from envs.datasets.dataset import Dataset
from envs.datasets.registry import from_arrays, load, names

__all__ = ["Dataset", "from_arrays", "load", "names"]
