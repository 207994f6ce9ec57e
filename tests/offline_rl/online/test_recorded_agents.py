"""Recorded updates of the agents: replays equal plain updates while the replay grows (see tests.offline_rl.tape)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from tests.offline_rl.online.contract import CASES, Case, play
from tests.offline_rl.tape import Tape

TINY: dict[str, Any] = {"hidden": (16, 16), "batch_size": 16, "capacity": 200, "dtype": torch.float64, "runs": 2}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_replays_equal_plain_updates(case: Case) -> None:
    # 130 rows: from 8 batches on a batch without repeats is cut from its own draw, which a recording can do.
    plain, recorded = (case.filled(130, **TINY) for _ in range(2))
    recorded.record_with(Tape())
    for agent in (plain, recorded):
        play(agent, 14)
    assert recorded._recordings.made == getattr(plain.config, "policy_period", 1)
    assert recorded.steps == plain.steps > 10
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(recorded.state_dict()[name], tensor, rtol=0, atol=1e-8)
    metrics = plain.metrics()
    for name, value in recorded.metrics().items():
        np.testing.assert_allclose(value, metrics[name], rtol=1e-6, atol=1e-9)


def test_another_configuration_is_recorded_anew() -> None:
    case = next(case for case in CASES if case.name == "td3")
    plain, recorded = (case.filled(130, **TINY) for _ in range(2))
    recorded.record_with(Tape())
    for change in ({}, {"discount": 0.3}, {"batch_size": 24}):
        for agent in (plain, recorded):
            agent.config = dataclasses.replace(agent.config, **change)
            play(agent, 40)  # longer than a block of drawn numbers
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(recorded.state_dict()[name], tensor, rtol=0, atol=1e-8)
    assert recorded._recordings.made == 2  # the inputs of another batch size are others, and so is everything


def test_long_periods_are_recorded_too() -> None:
    case = next(case for case in CASES if case.name == "td3")
    agent = case.filled(130, **TINY, policy_period=12)
    agent.record_with(Tape())
    play(agent, 36)
    assert agent._recordings.made == 12


def test_a_small_replay_is_cut_from_a_permutation_without_a_recording() -> None:
    case = next(case for case in CASES if case.name == "stac")
    plain, recorded = (case.filled(60, **TINY) for _ in range(2))
    recorded.record_with(Tape())
    for agent in (plain, recorded):
        play(agent, 5)
    assert recorded._recordings.made == 0
    for name, tensor in plain.state_dict().items():
        assert torch.equal(recorded.state_dict()[name], tensor)
