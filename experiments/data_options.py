"""Options of `orbs data` and `orbs collect`. Imports no torch, so that help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = [
    "Collect",
    "CollectMake",
    "CollectPlay",
    "CollectState",
    "CollectTrain",
    "Data",
    "DataDownload",
    "DataExport",
    "DataInfo",
]
__all__ += ["DataList", "DataPicture", "DataVerify"]

_Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")]
_Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


@dataclass(frozen=True)
class DataList:
    """List the datasets that are known by name: where they lie, how large, their reference returns."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="WORD ...")] = ()
    """Show only names that hold all of these words, e.g. hopper medium."""
    here: bool = False
    """Show only those whose file is on this machine."""


@dataclass(frozen=True)
class DataInfo:
    """Describe datasets: rows, episodes, returns, bounds, environment, file. Makes and downloads nothing."""

    names: _Names
    """Names, or paths of HDF5 files in D4RL layout."""
    env: str | None = None
    """Gymnasium id for a file that does not name its own."""
    clip_actions: bool = False
    """Clip actions outside the action space instead of rejecting the file."""


@dataclass(frozen=True)
class DataDownload:
    """Fetch datasets now rather than on first use: download D4RL's and Minari's, make the local ones."""

    names: _Names
    """Names of `orbs data list`, or minari:<id>."""
    quiet: bool = False
    """Show no progress bar."""


@dataclass(frozen=True)
class DataVerify:
    """Compare files with their recorded checksums; exit status 1 if one differs."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")] = ()
    """Names of `orbs data list`; none for every file that is here."""


@dataclass(frozen=True)
class DataPicture:
    """Draw a dataset: histogram of its returns and lengths, coverage of the action space."""

    name: _Name
    """A name, or the path of an HDF5 file in D4RL layout."""
    out: Path | None = None
    """The picture to write (.png, .pdf or .svg); default: NAME.png here."""
    env: str | None = None
    """Gymnasium id for a file that does not name its own."""
    clip_actions: bool = False
    """Clip actions outside the action space instead of rejecting the file."""


@dataclass(frozen=True)
class DataExport:
    """Write a dataset as a Minari dataset on this machine, for Minari's users (extra: minari)."""

    name: _Name
    """A name, or the path of an HDF5 file in D4RL layout."""
    minari_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MINARI_ID")]
    """(namespace/)name-vN, e.g. local/hopper/medium-v0."""
    overwrite: bool = False
    """Replace a Minari dataset of this id."""
    author: str | None = None
    """Who made the data, for Minari's metadata."""
    description: str | None = None
    """A text for Minari's metadata, before what is said about the source."""
    env: str | None = None
    """Gymnasium id for a file that does not name its own."""
    clip_actions: bool = False
    """Clip actions outside the action space instead of rejecting the file."""


@dataclass(frozen=True)
class Data:
    """Datasets: list, describe, fetch, verify, draw, export."""

    command: (
        Annotated[DataList, tyro.conf.subcommand(name="list", prefix_name=False)]
        | Annotated[DataInfo, tyro.conf.subcommand(name="info", prefix_name=False)]
        | Annotated[DataDownload, tyro.conf.subcommand(name="download", prefix_name=False)]
        | Annotated[DataVerify, tyro.conf.subcommand(name="verify", prefix_name=False)]
        | Annotated[DataPicture, tyro.conf.subcommand(name="picture", prefix_name=False)]
        | Annotated[DataExport, tyro.conf.subcommand(name="export", prefix_name=False)]
    )


@dataclass(frozen=True)
class CollectTrain:
    """Train a behaviour policy with SAC: medium.safetensors, medium-replay.hdf5 and best.safetensors in OUT.

    Stopped at any time, the same command goes on from the last checkpoint.
    """

    env: str
    """Gymnasium id with reference returns: Hopper-v4, HalfCheetah-v4, Walker2d-v4, Pendulum-v1."""
    out: Path
    """Folder of the training."""
    steps: int = 1_000_000
    """Environment steps in all."""
    seed: int = 0
    """Of networks, batches and environments."""
    num_envs: int = 4
    """Environments played at once; as many updates follow."""
    width: int = 256
    """Units in each of the two hidden layers."""
    learning_rate: float = 1e-3
    """Of Adam."""
    batch_size: int = 128
    """Rows an update."""
    learning_starts: int = 5000
    """First steps, played by uniformly random actions."""
    eval_every: int = 5000
    """Environment steps between evaluations."""
    checkpoint_every: int = 50_000
    """Environment steps between checkpoints."""
    until_medium: bool = False
    """Stop when the medium policy is found."""
    keep_replay: bool = True
    """Save the replay buffer with each checkpoint; without it a resume first refills the buffer by acting."""


@dataclass(frozen=True)
class CollectMake:
    """Make a local dataset again from its seed, or a variant with other rows or another seed."""

    name: _Name
    """local/<env>-<quality>-v0, see `orbs data list local`."""
    out: Path | None = None
    """File to write; default: the dataset's own place (a variant needs one)."""
    rows: int | None = None
    """Rows of a variant."""
    seed: int | None = None
    """Seed of a variant."""
    num_envs: int = 16
    """Environments played at once; other numbers may change the last bits."""
    quiet: bool = False
    """Show no progress bar."""


@dataclass(frozen=True)
class CollectPlay:
    """Play a behaviour policy and print its mean return and score, by sampled and by mean actions."""

    policy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")]
    """A shipped policy (hopper-medium, ...) or the path of an exported one."""
    env: str | None = None
    """Gymnasium id; default: where it was trained."""
    episodes: int = 100
    """Episodes of each kind."""
    seed: int = 0
    """Of the start states and the noise."""


@dataclass(frozen=True)
class CollectState:
    """For maintainers: state in the package what the local sets on this machine look like, as what others must get."""

    names: _Names
    """Local datasets whose files are here."""


@dataclass(frozen=True)
class Collect:
    """Behaviour policies and the datasets that they make."""

    command: (
        Annotated[CollectTrain, tyro.conf.subcommand(name="train", prefix_name=False)]
        | Annotated[CollectMake, tyro.conf.subcommand(name="make", prefix_name=False)]
        | Annotated[CollectPlay, tyro.conf.subcommand(name="play", prefix_name=False)]
        | Annotated[CollectState, tyro.conf.subcommand(name="state", prefix_name=False)]
    )
