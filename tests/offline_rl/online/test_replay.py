"""The ring, and which rows make a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from offline_rl.online.replay import FEW_BATCHES, Replay, distinct_rows, words_wanted
from orbs import Philox
from tests.offline_rl.online.contract import CASES, play


def ring(rows, capacity=5, runs=2):
    replay = Replay(runs, capacity, 3, torch.float32, torch.device("cpu"))
    for number in range(rows):
        replay.add(np.array([[number, run, 7] for run in range(runs)], np.float32))
    return replay


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(0, []), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (6, [5, 1, 2, 3, 4]), (12, [10, 11, 7, 8, 9])],
)
def test_the_ring_forgets_the_oldest_row(rows, expected):
    replay = ring(rows)
    assert (replay.size, replay.added) == (len(expected), rows)
    for run in (0, 1):
        assert replay.filled()[run, :, 0].tolist() == expected
        assert (replay.filled()[run, :, 1] == run).all()


def test_take_gives_each_run_its_own_rows():
    taken = ring(12).take(torch.tensor([[0, 0, 4], [3, 2, 1]]))
    assert taken[..., 0].tolist() == [[10, 10, 9], [8, 7, 11]]
    assert taken[..., 1].tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("added", [3, 12])
def test_restore_goes_on_where_it_was(added):
    source, copy = ring(added), ring(2)
    copy.restore(source.filled().clone(), added)
    for replay in (source, copy):
        replay.add(np.full((2, 3), 99, np.float32))
    assert torch.equal(source.filled(), copy.filled())
    copy.restore(None, 50)
    assert copy.size == copy.added == 0


@pytest.mark.parametrize("size", [16, 40, FEW_BATCHES * 16 - 1, FEW_BATCHES * 16, 1000])
def test_distinct_rows_do_not_repeat_and_are_uniform(size):
    """Chi-square over rows and over positions 0 and last, 3000 draws of 16: repeats removed must not favour any row."""
    philox, batch, steps = Philox(3, [0]), 16, 3000
    count = words_wanted(batch, True)
    words = philox.words("batch", 1, steps, count)
    drawn = np.array([distinct_rows(philox, words[:, t], t + 1, size, batch)[0].tolist() for t in range(steps)])
    assert drawn.shape == (steps, batch)
    assert (np.diff(np.sort(drawn, 1), axis=1) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() < size
    for part in (drawn, drawn[:, 0], drawn[:, -1]):
        seen = np.bincount(part.ravel(), minlength=size)
        if size > batch or part.ndim == 1:
            assert stats.chisquare(seen).pvalue > 1e-3


def test_distinct_rows_are_the_first_different_ones_of_the_draw():
    """Candidates in a replay where every fourth repeats: against a plain loop, all runs at once."""
    philox, size, batch = Philox(0, [0, 1, 2]), 80, 10
    for t in range(50):
        words = philox.words("batch", t, 1, words_wanted(batch, True))[:, 0]
        found = distinct_rows(philox, words, t, size, batch)
        for run in range(3):
            candidates = [word * size // 2**32 for word in words[run].tolist()]
            assert found[run].tolist() == list(dict.fromkeys(candidates))[:batch]


def test_an_agent_draws_from_the_filled_rows_alone_and_with_replacement():
    agent = CASES[0].build(capacity=40)
    play(agent, 50, learn=False)
    seen, original, repeats = [], agent._step, 0

    def spy(batch, noise):
        nonlocal repeats
        seen.extend(batch.row[0].tolist())
        repeats += len(set(batch.row[0].tolist())) < 32
        original(batch, noise)

    agent._step = spy
    agent.update(60)
    assert set(seen) == set(range(40))
    assert repeats == 60
    assert stats.chisquare(np.bincount(seen)).pvalue > 1e-3


def test_stac_never_sees_a_row_twice_in_a_batch():
    agent = next(case for case in CASES if case.name == "stac").filled(80)
    original = agent._step

    def spy(batch, noise):
        assert len(set(batch.row[0].tolist())) == 32
        original(batch, noise)

    agent._step = spy
    agent.update(5)
    play(agent, 300, learn=False)
    agent.update(5)
