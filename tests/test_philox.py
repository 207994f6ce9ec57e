"""Counter-based random numbers: the published ones, whatever the device, the block and the company."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import orbs
from orbs import Philox

F64 = torch.float64

# Philox

VECTORS = [  # Random123's kat_vectors, philox 4x32 10: counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
MASK = 2**32 - 1


def plain_philox(counter, key):
    """Philox 4x32-10 in Python's integers, straight from the paper."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & MASK, (p >> 32) ^ c[3] ^ k[1], p & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


@pytest.mark.parametrize("runs_last", [False, True])
@pytest.mark.parametrize(("first", "steps", "count"), [(1, 3, 5), (2**33 - 1, 4, 8), (7, 50, 1), (0, 1, 4)])
def test_every_device_draws_the_same(runs_last, first, steps, count, monkeypatch):
    """What the CPU draws part by part in NumPy is what torch draws elsewhere, in either layout."""
    ids = [0, 3, 2**32 - 1]
    philox = Philox(9, ids, runs_last=runs_last)
    elsewhere = philox._words_by_torch(Philox.purpose("p"), first, steps, -(-count // 4))
    right = elsewhere.permute(3, 0, 1, 2) if runs_last else elsewhere
    right = right.reshape(3, steps, -1)[..., :count]
    assert torch.equal(philox.words("p", first, steps, count), right)
    monkeypatch.setattr(orbs, "_PHILOX_PART", 1)
    assert torch.equal(philox.words("p", first, steps, count), right)
    other = Philox(9, ids, runs_last=not runs_last)
    for draw in ("uniform", "normal"):
        drawn = getattr(philox, draw)("p", first, steps, count, torch.float64)
        assert torch.equal(drawn, getattr(other, draw)("p", first, steps, count, torch.float64))
        assert not runs_last or drawn.stride(0) == 1


@pytest.mark.parametrize(("counter", "key", "result"), VECTORS)
def test_published_vectors(counter, key, result, monkeypatch):
    """The counter is (element block, step low, step high, purpose), the key (seed, run)."""
    c, k, expected = ([int(word, 16) for word in text.split()] for text in (counter, key, result))
    assert plain_philox(c, k) == expected
    step = (c[2] << 32) + c[1]
    here = orbs._philox(
        *(np.array([x], np.uint64) for x in (c[0], step)), c[3], k[0], np.array([k[1]], np.uint64), True
    )
    assert [int(word.item()) for word in here] == expected
    # An element is reached by asking for all before it, here too many: shift the element counter instead.
    arange = torch.arange
    monkeypatch.setattr(torch, "arange", lambda *a, **kw: arange(*a, **kw) + (c[0] if len(a) == 1 else 0))
    signed = step - (step >> 63 << 64)  # the same 64 bits
    words = Philox(k[0], [k[1]])._words_by_torch(c[3], signed, 1, 1)
    assert words.flatten().tolist() == expected


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, MASK), run=st.integers(0, MASK), step=st.integers(0, 2**48), count=st.integers(1, 11))
def test_words_equal_a_plain_implementation(seed, run, step, count):
    words = Philox(seed, [run]).words("noise", step, 2, count)
    for i in (0, 1):
        c1, c2 = (step + i) & MASK, (step + i) >> 32
        expected = [
            w for b in range(-(-count // 4)) for w in plain_philox([b, c1, c2, Philox.purpose("noise")], [seed, run])
        ]
        assert words[0, i].tolist() == expected[:count]


@pytest.mark.parametrize("draw", ["words", "integers", "uniform", "normal"])
def test_numbers_depend_neither_on_the_block_nor_on_the_company(draw):
    def numbers(runs, first, steps):
        extra = (1000,) if draw == "integers" else ()
        return getattr(Philox(7, runs), draw)("x", *extra, first, steps, 5)

    together = numbers([0, 3, 9], 10, 6)
    assert together.shape == (3, 6, 5)
    for i, run in enumerate([0, 3, 9]):
        assert torch.equal(numbers([run], 10, 6)[0], together[i])
    assert torch.equal(torch.cat([numbers([9, 0, 3], 10, 4), numbers([9, 0, 3], 14, 2)], 1)[[1, 2, 0]], together)


def test_streams_differ_by_seed_run_purpose_and_step_also_above_2_to_the_32():
    draws = [
        Philox(seed, [run]).words(purpose, step, 1, 8).flatten()
        for seed in (0, 1, MASK)
        for run in (0, 1, MASK)
        for purpose in ("a", "b")
        for step in (0, 1, 2**32, 2**32 + 1, 2**33)
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)
    across = Philox(0, [0]).words("a", 2**32 - 1, 2, 8)
    assert torch.equal(across[:, 1:], Philox(0, [0]).words("a", 2**32, 1, 8))


def test_the_purposes_in_use_are_distinct():
    names = ["batch", "target_noise"]
    names += [
        f"{net}.{i}.{kind}" for net in ("actor", "critic", "value") for i in range(5) for kind in ("weight", "bias")
    ]
    assert len({Philox.purpose(name) for name in names}) == len(names)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_uniform_numbers(dtype):
    u = Philox(1, [0, 1]).uniform("u", 1, 50, 2000, dtype)
    assert u.dtype == dtype
    flat = u.double().flatten().numpy()
    assert 0 < flat.min() < 1e-4
    assert 1 - 1e-4 < flat.max() < 1
    assert abs(flat.mean() - 0.5) < 5 * math.sqrt(1 / 12 / flat.size)
    assert stats.kstest(flat, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("dtype", "edge"), [(torch.float32, 2.0**-24), (F64, 2.0**-33)], ids=str)
def test_uniform_numbers_stay_inside_the_open_interval(dtype, edge, monkeypatch):
    extremes = torch.tensor([[[0, MASK]]])
    monkeypatch.setattr(Philox, "words", lambda *a: extremes)
    assert Philox(0, [0]).uniform("u", 0, 1, 2, dtype).flatten().tolist() == [edge, 1 - edge]
    tail = Philox(0, [0]).normal("u", 0, 1, 2, dtype)
    assert torch.isfinite(tail).all()
    assert tail.abs().max() == pytest.approx(5.77 if dtype is torch.float32 else 6.76, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_normal_numbers(dtype):
    flat = Philox(2, [0, 1]).normal("n", 1, 50, 2001, dtype).double()
    n = flat.numel()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(flat.pow(power).mean() - moment) < 5 * math.sqrt(spread / n), power
    assert stats.kstest(flat.flatten().numpy(), "norm").pvalue > 1e-3
    # Both halves of a Box-Muller pair, neighbours, steps and runs are uncorrelated.
    for a, b in (
        (flat[..., :1000], flat[..., 1001:]),
        (flat[..., :-1], flat[..., 1:]),
        (flat[:, 1:], flat[:, :-1]),
        (flat[0], flat[1]),
    ):
        assert abs((a * b).mean()) < 5 / math.sqrt(a.numel())


@pytest.mark.parametrize("high", [1, 2, 7, 1000, 2**31])
def test_integers_are_uniform_below_high(high):
    draws = Philox(3, [0]).integers("i", high, 1, 20, 1000).flatten().numpy()
    assert draws.min() >= 0
    assert draws.max() < high
    bins = min(high, 50)
    counts = np.bincount(draws * bins // high, minlength=bins)
    assert high == 1 or stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    "bad", [{"seed": -1}, {"seed": 2**32}, {"seed": 0.5}, {"runs": [-1]}, {"runs": [2**32]}], ids=str
)
def test_bad_seeds_and_runs(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}: expected"):
        Philox(**{"seed": 0, "runs": [0], **bad})
