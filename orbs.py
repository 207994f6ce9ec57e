"""The lowest layer of the suite: what every package shares and nothing else.

Transitions (the data an offline learner sees), counter-based random numbers, files that are written whole or
not at all, and the check of hyperparameters. Needs torch, numpy and safetensors alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

__version__ = "0.1.0"

__all__ = [
    "ROW_BLOCK",
    "ROW_FIELDS",
    "Feedback",
    "Philox",
    "RegretLearner",
    "Rows",
    "Transitions",
    "World",
    "__version__",
    "atomic_path",
    "array",
    "checked_fields",
    "checksum_of",
    "load_tensors",
    "reject",
    "runs_last",
    "save_tensors",
    "tensor",
    "write_atomically",
]

ROW_BLOCK = 16_384  # rows that whole-dataset passes handle at a time: they stay in cache, their temporaries small


def reject(field: str, expected: str, given: object, fix: str) -> NoReturn:
    """Raise the suite's one form of a bad-input error: field, what was expected, what was given, the fix."""
    raise ValueError(f"{field}: expected {expected}, got {given}. Fix: {fix}.")


def _first_row(array: np.ndarray, bad: Callable[[np.ndarray], np.ndarray]) -> int | None:
    """The first row of `array` with an element that is `bad`, in blocks: a mask of all rows would cost memory."""
    for start in range(0, len(array), ROW_BLOCK):
        found = bad(array[start : start + ROW_BLOCK])
        if found.any():
            return start + int(np.argwhere(found)[0][0])
    return None


@dataclasses.dataclass(frozen=True)
class Transitions:
    """What an offline learner learns from: N rows of one-step experience.

    Arrays are float32 and C-contiguous; `terminal` alone stops bootstrapping (a time-out does not).

    Attributes:
        obs, next_obs: (N, obs_dim), raw, in the environment's units.
        action: (N, action_dim), within [action_low, action_high].
        reward: (N,).
        terminal: (N,), 1.0 where the environment's own end was reached, else 0.0.
        timeout: (N,), 1.0 on the last kept row of an episode that ended without a terminal, else 0.0.
        action_low, action_high: (action_dim,).
        name: what the rows are called in tables and checkpoints.
        next_action: (N, action_dim), the data's action in the next observation, for the algorithms that want it
            (ReBRAC), within the same bounds; NaN where it is unknown, None where none is known.

    Raises:
        ValueError: a field with the wrong shape, no rows, an action outside its box, or a value that is not finite.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminal: np.ndarray
    timeout: np.ndarray | None = None
    action_low: np.ndarray | float = -1.0
    action_high: np.ndarray | float = 1.0
    name: str = "transitions"
    next_action: np.ndarray | None = None

    def __post_init__(self) -> None:
        def put(field: str, value: Any) -> None:
            object.__setattr__(self, field, value)

        rows = len(np.atleast_1d(self.obs))
        if rows == 0:
            reject("transitions.obs", "at least one row", "0 rows", "give a dataset with transitions")
        for field in ("obs", "action", "reward", "next_obs", "terminal", "timeout"):
            value = getattr(self, field)
            if value is None:
                value = np.zeros(rows, np.float32)
            array = np.ascontiguousarray(value, dtype=np.float32)
            rank = 2 if field in ("obs", "action", "next_obs") else 1
            if array.ndim != rank or len(array) != rows:
                wanted = f"shape ({rows}, dim)" if rank == 2 else f"shape ({rows},)"
                reject(f"transitions.{field}", wanted, f"shape {array.shape}", "align all fields row by row")
            row = _first_row(array, lambda part: ~np.isfinite(part))
            if row is not None:
                reject(f"transitions.{field}", "finite numbers", f"a NaN or inf in row {row}", "drop or mend that row")
            if rank == 2 and array.shape[1] == 0:
                reject(f"transitions.{field}", "at least one column", f"shape {array.shape}", "give one")
            if field in ("terminal", "timeout") and not ((array == 0) | (array == 1)).all():
                row = int(np.argwhere((array != 0) & (array != 1))[0][0])
                reject(f"transitions.{field}", "0 or 1", f"{array[row]} in row {row}", "give flags")
            put(field, array)
        if self.next_obs.shape != self.obs.shape:
            reject("transitions.next_obs", f"shape {self.obs.shape}", f"shape {self.next_obs.shape}", "align it")
        if self.next_action is not None:
            following = np.ascontiguousarray(self.next_action, dtype=np.float32)
            if following.shape != self.action.shape:
                wanted, given = f"shape {self.action.shape}", f"shape {following.shape}"
                reject("transitions.next_action", wanted, given, "align it row by row with action")
            row = _first_row(following, np.isinf)
            if row is not None:
                reject("transitions.next_action", "numbers", f"an inf in row {row}", "give NaN where it is unknown")
            put("next_action", following)
        for field in ("action_low", "action_high"):
            bound = np.asarray(getattr(self, field), np.float32)
            if bound.shape not in ((), (1,), (self.action_dim,)):
                fix = "give one bound, or one an action coordinate"
                reject(f"transitions.{field}", f"a number or shape ({self.action_dim},)", f"shape {bound.shape}", fix)
            put(field, np.ascontiguousarray(np.broadcast_to(bound, (self.action_dim,))))
        if not (np.isfinite(self.action_low).all() and np.isfinite(self.action_high).all()):
            reject("transitions.action_low/high", "finite bounds", "inf", "give the box of the action space")
        if not np.all(self.action_low < self.action_high):
            reject("transitions.action_low", "below action_high", f"{self.action_low}", "swap or mend the bounds")
        low, high = self.action_low - np.float32(1e-5), self.action_high + np.float32(1e-5)
        for field in ("action", "next_action"):
            actions: np.ndarray | None = getattr(self, field)
            # No comparison holds for NaN, an unknown next action.
            row = None if actions is None else _first_row(actions, lambda part: (part < low) | (part > high))
            if actions is not None and row is not None:
                box = f"actions in {self.action_low} to {self.action_high}"
                fix = "clip them, or give the true bounds"
                reject(f"transitions.{field}", box, f"{actions[row]} in row {row}", fix)

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def obs_dim(self) -> int:
        return int(self.obs.shape[1])

    @property
    def action_dim(self) -> int:
        return int(self.action.shape[1])

    def part(self, field: str, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop - 1 of a field; next actions are NaN where none were given."""
        array: np.ndarray | None = getattr(self, field)
        if array is None:
            return np.full_like(self.action[start:stop], np.nan)
        return array[start:stop]

    def select(self, rows: np.ndarray) -> Transitions:
        """A copy of these rows, in this order."""
        fields = (*ROW_FIELDS, "next_action") if self.next_action is not None else ROW_FIELDS
        return dataclasses.replace(self, **{field: getattr(self, field)[rows] for field in fields})

    def checksum(self) -> str:
        """SHA-256 over all rows, known next actions included: two datasets with one checksum train to the same bits."""
        return checksum_of(self)


ROW_FIELDS = ("obs", "action", "reward", "next_obs", "terminal", "timeout")


class Rows(Protocol):
    """Transitions that may not lie in memory as such: a learner takes them block by block.

    `Transitions` is one; a dataset's view of its own rows another, which copies nothing.
    """

    @property
    def name(self) -> str: ...
    @property
    def obs_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    @property
    def action_low(self) -> Any: ...
    @property
    def action_high(self) -> Any: ...
    def __len__(self) -> int: ...
    def part(self, field: str, start: int, stop: int) -> np.ndarray:
        """Rows start .. stop - 1 of one of `ROW_FIELDS` or of next_action, as `Transitions` has them (float32)."""

    def select(self, rows: np.ndarray) -> Rows:
        """These rows alone, in this order."""

    def checksum(self) -> str:
        """As `Transitions.checksum`: the same rows give the same."""


def checksum_of(rows: Rows) -> str:
    """SHA-256 over all rows and the bounds, the same however the rows are stored.

    Next actions count only where there is a known one: none given and all unknown are the same.
    """
    digest, count = hashlib.sha256(), len(rows)
    widths = {"obs": (rows.obs_dim,), "action": (rows.action_dim,), "next_obs": (rows.obs_dim,)}
    for field in ROW_FIELDS:
        digest.update(f"{field}{(count, *widths.get(field, ()))}".encode())
        for start in range(0, count, ROW_BLOCK):
            digest.update(np.ascontiguousarray(rows.part(field, start, min(start + ROW_BLOCK, count))).data)
    for field in ("action_low", "action_high"):
        array = np.ascontiguousarray(getattr(rows, field))
        digest.update(f"{field}{array.shape}".encode())
        digest.update(array.data)
    following, known = hashlib.sha256(), False
    for start in range(0, count, ROW_BLOCK):
        part = np.ascontiguousarray(rows.part("next_action", start, min(start + ROW_BLOCK, count)))
        known = known or not np.isnan(part).all()
        following.update(part.data)
    if known:
        digest.update(b"next_action" + following.digest())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Feedback:
    """What a world reveals of a round, a row a run; None where it reveals nothing of the kind.

    Attributes:
        reward: (R,), of the action that was played.
        gradient: (R, d), of the round's loss at the point that was played; for experts the loss of each.
        terms: what the round's loss is made of, {"features": (R, d), "target": (R,)}, for whoever takes it as a whole;
            of rounds played at once {"total": (R,)}, the sum of their rewards; of an episode {"states": (R, H + 1),
            "actions": (R, H), "rewards": (R, H)}.
    """

    reward: Tensor | None = None
    gradient: Tensor | None = None
    terms: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


class RegretLearner(Protocol):
    """Learns while it plays: `act`, then `observe`, round by round, `runs` independent copies at once."""

    @property
    def runs(self) -> int: ...
    @property
    def holds(self) -> bool:
        """Whether actions stay for several rounds: `hold` says for how many, `skip` lets them pass."""

    def act(self, observation: Tensor | None = None) -> Tensor: ...
    def observe(self, action: Tensor, feedback: Feedback) -> None: ...
    def hold(self) -> int: ...
    def skip(self, rounds: int) -> None: ...
    def check(self) -> None:
        """Raise what `observe` could not on a device that must not wait."""

    def regret_bound(self) -> Tensor | None:
        """(R,) a bound on the regret so far, None where no theorem gives one."""

    def finite(self) -> Tensor:
        """(R,) whether everything that the run has learned is finite."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class World(Protocol):
    """`num_envs` independent copies of a problem of `horizon` rounds, played through gymnasium's vector interface.

    Arrays are float64 tensors on `device`; info["feedback"] of a step is a `Feedback`; nothing resets by itself.

    Attributes:
        facts: what a learner may know beforehand, by name: dimension, arms, diameter, gradient_bound, ...
    """

    num_envs: int
    horizon: int
    round: int
    facts: Mapping[str, Any]

    @property
    def loss(self) -> Tensor:
        """(R,) the sum of the losses so far."""

    def context(self) -> Tensor | None:
        """What a learner is shown before the coming round."""

    def twin(self) -> World:
        """A fresh one at the first round that meets the same numbers."""

    def reset(self, *, seed: int | None = None) -> tuple[Tensor, dict[str, Any]]: ...
    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]: ...
    def regret(self) -> dict[str, Tensor]:
        """{name: (R,)} after the rounds so far, against each comparator that the world has."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


_MASK = 0xFFFFFFFF

_PHILOX_PART = 1 << 15  # counters that the CPU works on at a time


def _philox(
    blocks: np.ndarray, steps: np.ndarray, purpose: int, seed: int, runs: np.ndarray, runs_last: bool
) -> tuple[np.ndarray, ...]:
    """Ten rounds in place: four arrays of words, (steps, blocks, runs) or (runs, steps, blocks), all uint64."""
    if runs_last:
        element, step, key = blocks[None, :, None], steps[:, None, None], runs[None, None, :]
    else:
        element, step, key = blocks[None, None, :], steps[None, :, None], runs[:, None, None]
    shape = np.broadcast_shapes(element.shape, step.shape, key.shape)
    mask, half = np.uint64(_MASK), np.uint64(32)
    c0, c1, c2, c3 = (np.empty(shape, np.uint64) for _ in range(4))
    c0[...], c1[...], c2[...], c3[...] = element, step & mask, step >> half, np.uint64(purpose)
    p0, p1 = np.empty_like(c0), np.empty_like(c0)
    for i in range(10):
        np.multiply(c0, np.uint64(0xD2511F53), out=p0)
        np.multiply(c2, np.uint64(0xCD9E8D57), out=p1)
        np.right_shift(p1, half, out=c0)
        np.bitwise_xor(c0, c1, out=c0)
        np.bitwise_xor(c0, np.uint64((seed + 0x9E3779B9 * i) & _MASK), out=c0)
        np.right_shift(p0, half, out=c2)
        np.bitwise_xor(c2, c3, out=c2)
        np.bitwise_xor(c2, (key + np.uint64(0xBB67AE85 * i)) & mask, out=c2)
        np.bitwise_and(p1, mask, out=p1)
        np.bitwise_and(p0, mask, out=p0)
        c1, p1, c3, p0 = p1, c1, p0, c3
    return c0, c1, c2, c3


def runs_last(x: Tensor) -> Tensor:
    """The same numbers with the leading run axis last in memory, where sums over the other axes are fastest."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def array(given: Tensor) -> Any:
    """On a CPU a NumPy view of the tensor's own memory, elsewhere the tensor.

    For code in operators that both have: with few numbers a round costs what its calls cost, and NumPy's cost a third.
    """
    return given.numpy() if given.device.type == "cpu" else given


def tensor(given: Any) -> Tensor:
    """An `array` as a tensor, without a copy."""
    return torch.from_numpy(given) if isinstance(given, np.ndarray) else given


class Philox:
    """Philox 4x32-10 (Salmon et al., SC 2011) as a function of (seed, run, purpose, step, element).

    The key is (seed, run), the counter (element, step, purpose), so run `i` draws the same numbers whichever
    runs ride along and however many steps are drawn at once; there is no state to save. On other devices than the CPU
    written in int64 operations, because torch has no unsigned 32-bit multiply; the results are the published ones.

    Args:
        seed: 0 .. 2^32 - 1.
        runs: the ids of the runs, one stream each, 0 .. 2^32 - 1.
        device: where the numbers are made and stay.
        runs_last: keep the run axis last in memory; shapes and numbers are the same.

    Attributes:
        epoch: changes where `following` begins or ends: numbers kept from before are not to be used after.
    """

    def __init__(
        self, seed: int, runs: Sequence[int], device: torch.device | str = "cpu", runs_last: bool = False
    ) -> None:
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed <= _MASK:
            reject("seed", "an integer from 0 to 2^32 - 1", repr(seed), "choose another seed")
        ids = list(runs)
        if not all(0 <= run <= _MASK for run in ids):
            reject("runs", "ids from 0 to 2^32 - 1", ids, "choose smaller ids")
        self.seed = int(seed)
        self.runs = torch.tensor(ids, dtype=torch.int64, device=device)
        self._ids = np.array(ids, np.uint64)  # beside the tensor: no update reads one back
        self.runs_last = runs_last
        self._clock: Tensor | None = None
        self._anchor = self._span = 0
        self.epoch = 0

    @staticmethod
    def purpose(name: str) -> int:
        """A 32-bit number for a name (CRC-32), so that streams never depend on the order of calls."""
        return zlib.crc32(name.encode())

    @contextlib.contextmanager
    def following(self, clock: Tensor, anchor: int, span: int) -> Iterator[None]:
        """Within it step s means `clock` + (s - `anchor`), read on the device: for work recorded once, replayed often.

        Args:
            clock: () int64 on the device.
            anchor: the step that the clock shows while the work is recorded.
            span: how many steps the work makes from there on.
        """
        self._clock, self._anchor, self._span = clock, anchor, span
        self.epoch += 1
        try:
            yield
        finally:
            self._clock = None
            self.epoch += 1

    @property
    def recorded(self) -> bool:
        """Whether this is within `following`."""
        return self._clock is not None

    def step(self, number: int) -> int | Tensor:
        """What numbers a step: itself, or within `following` a () int64 tensor."""
        return number if self._clock is None else self._clock + (number - self._anchor)

    def block(self, number: int, size: int) -> tuple[int, int]:
        """First step and length of the block, from 1, in which step `number` is drawn: `size`, or a whole span."""
        if self._clock is not None:
            return self._anchor + 1, self._span
        return number - (number - 1) % size, size

    def words(self, purpose: str, first_step: int, steps: int, count: int) -> Tensor:
        """(runs, steps, count) int64, each a uniform 32-bit word, for steps first_step .. first_step+steps-1."""
        runs, blocks, number = len(self.runs), -(-count // 4), self.purpose(purpose)
        if self.runs.device.type == "cpu" and self._clock is None:
            # NumPy has unsigned shifts; parts that fit a core's cache take half the time of the whole.
            part = max(1, _PHILOX_PART // max(1, blocks * runs))
            found = np.empty((steps, blocks, 4, runs) if self.runs_last else (runs, steps, blocks, 4), np.int64)
            for at in range(0, steps, part):
                some = np.arange(first_step + at, first_step + min(at + part, steps)).astype(np.uint64)
                four = _philox(np.arange(blocks, dtype=np.uint64), some, number, self.seed, self._ids, self.runs_last)
                for i, word in enumerate(four):
                    if self.runs_last:
                        found[at : at + part, :, i] = word
                    else:
                        found[:, at : at + part, :, i] = word
            words = torch.from_numpy(found)
        else:
            words = self._words_by_torch(number, self.step(first_step), steps, blocks)
        if self.runs_last:
            return words.view(steps, 4 * blocks, runs)[:, :count].permute(2, 0, 1)
        return words.view(runs, steps, 4 * blocks)[..., :count]

    def _words_by_torch(self, purpose: int, first_step: int | Tensor, steps: int, blocks: int) -> Tensor:
        """The same for any device: (steps, blocks, 4, runs), or (runs, steps, blocks, 4)."""
        device, runs = self.runs.device, len(self.runs)
        shape = (steps, blocks, runs) if self.runs_last else (runs, steps, blocks)
        by_step, by_run = ((steps, 1, 1), (1, 1, runs)) if self.runs_last else ((1, steps, 1), (runs, 1, 1))
        by_block = (1, blocks, 1) if self.runs_last else (1, 1, blocks)
        step = (torch.arange(0, steps, device=device) + first_step).view(by_step)
        c0 = torch.arange(blocks, device=device).view(by_block).expand(shape)
        c1, c2 = (step & _MASK).expand(shape), ((step >> 32) & _MASK).expand(shape)
        c3 = torch.full((1,), purpose, device=device).expand(shape)
        k0 = torch.full((1, 1, 1), self.seed, device=device)
        k1 = self.runs.view(by_run)
        for _ in range(10):
            # The product wraps modulo 2^64 in int64, which keeps both 32-bit halves right.
            p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
            c0, c2 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, ((p0 >> 32) & _MASK) ^ c3 ^ k1
            c1, c3 = p1 & _MASK, p0 & _MASK
            k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
        return torch.stack((c0, c1, c2, c3), dim=2 if self.runs_last else -1)

    def integers(self, purpose: str, high: int, first_step: int, steps: int, count: int) -> Tensor:
        """(runs, steps, count) int64 in 0 .. high-1; the probabilities differ by at most high / 2^32 relatively."""
        return (self.words(purpose, first_step, steps, count) * high) >> 32

    def uniform(
        self, purpose: str, first_step: int, steps: int, count: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """(runs, steps, count) in the open interval (0, 1): midpoints of 2^23 (float32) or 2^32 (float64) cells."""
        words = self.words(purpose, first_step, steps, count)
        if dtype == torch.float64:
            return (words.to(dtype) + 0.5) * 2.0**-32
        return ((words >> 9).to(dtype) + 0.5) * 2.0**-23

    def normal(
        self, purpose: str, first_step: int, steps: int, count: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """(runs, steps, count) standard normal numbers (Box-Muller; tails end at 5.8 in float32, 6.8 in float64)."""
        half = -(-count // 2)
        u = self.uniform(purpose, first_step, steps, 2 * half, dtype)
        radius = torch.sqrt(-2.0 * torch.log(u[..., :half]))
        angle = (2.0 * np.pi) * u[..., half:]
        pair = (radius * torch.cos(angle), radius * torch.sin(angle))
        if self.runs_last:  # torch.cat would answer run first in memory
            return torch.cat([part.permute(1, 2, 0) for part in pair], dim=1)[:, :count].permute(2, 0, 1)
        return torch.cat(pair, dim=-1)[..., :count]


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is fsynced and renamed over `path`, else removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes it private; the final file is an ordinary one
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Write a whole file or nothing: temporary name, fsync, rename."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """One safetensors file with `meta` as JSON in its header, written atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, metadata={"orbs": json.dumps(meta)}))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the meta of a file that `save_tensors` wrote.

    Raises:
        ValueError: the file is missing, truncated, or not one of ours. Nothing is half-loaded, no code is run.
    """
    path = Path(path)
    if not path.is_file():
        reject("checkpoint", "an existing file", path, "check the folder's name")
    try:
        with safe_open(path, framework="pt") as file:
            meta = (file.metadata() or {}).get("orbs")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"checkpoint: expected a safetensors file, got {path} ({error}). Fix: it is damaged or of another "
            "kind; use an earlier copy or train again."
        ) from error
    try:
        header = json.loads(meta or "null")
    except json.JSONDecodeError:
        header = None
    if not isinstance(header, dict):
        reject("checkpoint", "a file written by orbs", path, "pass checkpoint.safetensors of a run folder")
    return tensors, header


def checked_fields(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`values`, after a check that each key is a field of the dataclass `kind`; the error suggests the nearest name."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            reject(f"{where}.{key}", "a field of " + kind.__name__, f"'{key}'", f"{hint}fields are {', '.join(known)}")
    return dict(values)
