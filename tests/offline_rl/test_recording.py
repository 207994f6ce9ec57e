"""Recorded blocks: replays equal plain updates, draw new numbers each time, and are made anew when they must be.

On a CPU with a tape in the graph's place (`tests.offline_rl.tape`); the same with CUDA graphs in test_cuda.py.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from offline_rl import dropout_stack, prdc, recording
from offline_rl import learner as learner_module
from offline_rl.iql import cosine_rate
from offline_rl.recording import Recordings
from orbs import Philox
from tests.offline_rl.contract import CASES, DATA, Case
from tests.offline_rl.reference import make_data
from tests.offline_rl.tape import Tape

BLOCK = 4


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_module, "RECORDED", BLOCK)


def recorded(case: Case, tape: Any = None, **arguments: Any) -> Any:
    """A learner that records as it would on a GPU: no shapes that depend on numbers, the search by tensors."""
    learner = plain(case, **arguments)
    learner.record_with(tape or Tape())
    return learner


def plain(case: Case, **arguments: Any) -> Any:
    kind = case.kind
    if "PRDC" in case.cls:
        kind = type("DevicePRDC", (kind,), {"search_method": "device"})
    data = arguments.pop("data", None)
    small = {"hidden": (16, 16), "batch_size": 16, **case.hyperparameters, "dtype": torch.float64, "runs": 2}
    learner = kind.for_dataset(data or DATA, **{**small, **arguments})
    learner._skip_rows = False
    return learner


def assert_close(a: Any, b: Any, atol: float = 1e-8) -> None:
    """Adam enlarges the rounding of a gradient near 0; a wrong number shows at 1e-4."""
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(
            second[name], tensor, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_replays_equal_plain_updates(case: Case) -> None:
    one, other = plain(case), recorded(case)
    for learner in (one, other):
        learner.update(2 * BLOCK + 3)
    first = {name: value.copy() for name, value in other.metrics().items()}
    assert first.keys() == one.metrics().keys()
    for learner in (one, other):
        learner.update(5 * BLOCK)
    assert other.steps == one.steps == 7 * BLOCK + 3
    assert other._recordings.made >= 1
    assert_close(one, other)
    now, then = one.metrics(), other.metrics()
    assert now.keys() == then.keys()
    for name, value in now.items():
        np.testing.assert_allclose(then[name], value, rtol=1e-6, atol=1e-9)


def test_two_replays_draw_different_numbers() -> None:
    tape = Tape()
    philox, clock, kept = Philox(3, [0, 4]), torch.zeros((), dtype=torch.int64), torch.zeros(2, 2, 6)

    def work() -> None:
        kept.copy_(philox.normal("x", 11, 2, 6))

    with philox.following(clock, 10, 2):
        replay = tape.record(work)
    assert not kept.any()
    for step in (10, 12, 5000):
        clock.fill_(step)
        replay()
        assert torch.equal(kept, philox.normal("x", step + 1, 2, 6))


def test_a_recording_is_made_once_and_again_for_other_hyperparameters_data_or_shapes() -> None:
    case = next(case for case in CASES if case.name == "td3bc")
    learner = recorded(case)
    learner.update(10 * BLOCK)
    assert learner._recordings.made == 1
    learner.config = dataclasses.replace(learner.config, discount=0.5)
    learner.update(3 * BLOCK)
    assert learner._recordings.made == 2
    alone = plain(case)
    alone.update(10 * BLOCK)
    alone.config = dataclasses.replace(alone.config, discount=0.5)
    alone.update(3 * BLOCK)
    assert_close(alone, learner)
    fewer = make_data(rows=90, low=[-0.3, 1.0], high=[0.7, 4.0])
    more = make_data(seed=1, low=[-0.3, 1.0], high=[0.7, 4.0])
    for data in (fewer, more, DATA):
        for one in (learner, alone):
            with pytest.warns(UserWarning, match="other data"):
                one.attach(data)
            one.update(3 * BLOCK)
        assert learner._recordings.made == 1  # those that read the data of before are gone
        assert_close(alone, learner)


def test_few_recordings_are_kept_and_those_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "KEPT", 2)
    kept = Recordings(Tape(), torch.device("cpu"))
    for key in "aabbaaccaa":
        if kept.tried(key) and kept.get(key) is None:
            kept.make(key, lambda: None, dict)
    assert kept.made == 3
    assert list(kept._kept) == ["c", "a"]


def test_blocks_begin_with_a_period_of_the_actor() -> None:
    case = next(case for case in CASES if case.name == "td3bc")
    learner, other = recorded(case, policy_period=3), plain(case, policy_period=3)
    for one in (learner, other):
        for n in (1, 5, 2, 13, 7, 20):
            one.update(n)
    assert learner._recordings.made == 1
    assert_close(other, learner)


def test_a_checkpoint_loaded_into_a_recorded_learner_goes_on_from_its_numbers(tmp_path: Any) -> None:
    case = next(case for case in CASES if case.name == "td3bc-stac")
    learner, other = recorded(case), plain(case)
    for one in (learner, other):
        one.update(3 * BLOCK)
    state, steps = {name: tensor.clone() for name, tensor in learner.state_dict().items()}, learner.steps
    learner.update(4 * BLOCK)
    learner.load_state_dict(state, steps)
    learner.metrics()
    for one in (learner, other):
        one.update(3 * BLOCK)
    assert_close(other, learner)


def test_masks_drawn_for_a_recording_are_not_used_outside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back at the step that the recording was made at, and on without it: its masks lie about with later numbers."""
    monkeypatch.setattr(dropout_stack, "BLOCK", BLOCK)
    case = next(case for case in CASES if case.name == "td3bc-stac")
    learner, other = recorded(case), plain(case)
    for one in (learner, other):
        one.update(BLOCK)
    state = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    learner.update(4 * BLOCK)
    learner.load_state_dict(state, BLOCK)
    for one in (learner, other):
        one.update(BLOCK - 1)
    assert_close(other, learner)


def test_what_cannot_be_recorded_is_said_once_and_done_plainly() -> None:
    case = next(case for case in CASES if case.name == "td3bc")
    learner, other = recorded(case), plain(case)
    for one in (learner, other):
        one.update(BLOCK)
    step = learner._step
    learner._step = lambda batch, noise: (step(batch, noise), batch.reward.sum().item())
    with pytest.warns(UserWarning, match="one by one from here on.*would wait for the host"):
        learner.update(2 * BLOCK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.update(2 * BLOCK)
    other.update(4 * BLOCK)
    assert learner.steps == other.steps == 5 * BLOCK
    assert_close(other, learner)


@pytest.mark.parametrize("name", ["prdc", "prdc-paper", "prdc-stac"])
def test_a_block_with_too_little_room_is_done_again_exactly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.name == name)
    # Lists of four neighbours leave much unproved; the other one's search is the CPU's.
    learner, other = recorded(case, neighbours=4), plain(case, neighbours=4)
    other._search = learner._search.__class__(other._obs, other._action, case.hyperparameters["beta"], other.config.k)
    monkeypatch.setattr(type(learner), "_make_room", lambda self, search, needed: setattr(search, "capacity", 1))
    again = []
    block = learner._block

    def counted(count: int) -> int:
        again.append(learner._search.device_search.waits)
        return int(block(count))

    learner._block = counted
    for one in (learner, other):
        one.update(6 * BLOCK)
    assert again.count(True) >= 3  # done again, with the host looking
    assert_close(other, learner)
    metrics = other.metrics()
    for key, value in learner.metrics().items():
        if key != "certified_rate":  # the other has no table
            np.testing.assert_allclose(value, metrics[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["prdc", "prdc-paper"])
def test_one_block_too_many_is_done_again_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.name == name)
    learner, again = recorded(case, neighbours=4), []
    monkeypatch.setattr(prdc, "LEAST_ROOM", 1)
    learner.update(BLOCK)
    learner._search.device_search.capacity = 1
    block = learner._block
    learner._block = lambda count: (again.append(learner._search.device_search.waits), block(count))[1]
    for _ in range(5):
        learner.update(BLOCK)
    assert again[:2] == [False, True]
    assert not any(again[2:])
    assert learner._search.device_search.capacity > 1


def test_blocks_done_again_and_again_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prdc, "PATIENCE", 2)
    case = next(case for case in CASES if case.name == "prdc")
    learner = recorded(case, neighbours=4)
    monkeypatch.setattr(type(learner), "_make_room", lambda self, search, needed: setattr(search, "capacity", 1))
    learner.update(2 * BLOCK)
    with pytest.warns(UserWarning, match="searched twice") as said:
        learner.update(4 * BLOCK)
    assert len(said) == 1


def test_a_cosine_step_size_stays_at_its_end() -> None:
    for done in (0, 7, 50, 51, 80, 400):
        rate = cosine_rate(3e-4, torch.tensor(done), 50)
        assert float(rate) == pytest.approx(cosine_rate(3e-4, done, 50), rel=1e-6, abs=1e-12)


def test_room_follows_the_need() -> None:
    case = next(case for case in CASES if case.name == "prdc")
    learner = recorded(case, batch_size=256)
    search = learner._search.device_search
    assert search.capacity is None
    learner._make_room(search, 100)
    assert search.capacity == 256
    learner._make_room(search, 300)
    assert search.capacity == 512  # never more than there are queries: two runs of 256
    for _ in range(15):
        learner._make_room(search, 3)
    assert search.capacity == 512
    learner._make_room(search, 3)
    assert search.capacity == 64
