"""Offline datasets: built-in ones by name, any HDF5 file in D4RL layout by path.

>>> from envs.datasets import load
>>> data = load("local/pendulum-medium-replay-v0")
>>> transitions = data.transitions()
"""

from envs.datasets.dataset import Dataset
from envs.datasets.registry import load, names

__all__ = ["Dataset", "load", "names"]
