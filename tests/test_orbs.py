"""The lowest layer: random numbers against published vectors, transitions, files, hyperparameter names."""

from __future__ import annotations

import dataclasses
import json
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import stats

import orbs
from orbs import Philox, Transitions

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


# Transitions

FIELDS = {
    "obs": np.zeros((4, 3)),
    "action": np.zeros((4, 2)),
    "reward": np.zeros(4),
    "next_obs": np.ones((4, 3)),
    "terminal": np.array([0, 0, 1, 0]),
}


def test_transitions_are_float32_contiguous_and_sized():
    data = Transitions(**{**FIELDS, "obs": np.zeros((3, 4)).T}, action_low=-2, action_high=[1, 3])
    assert (len(data), data.obs_dim, data.action_dim) == (4, 3, 2)
    for field in dataclasses.fields(data):
        array = getattr(data, field.name)
        if field.name in ("name", "next_action"):
            continue
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
    assert data.timeout.tolist() == [0] * 4
    assert data.action_low.tolist() == [-2, -2]
    assert data.action_high.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("obs", np.zeros((0, 3))),
        ("obs", np.zeros(4)),
        ("obs", np.zeros((4, 0))),
        ("obs", np.full((4, 3), np.nan)),
        ("action", np.zeros((3, 2))),
        ("action", np.zeros(4)),
        ("action", np.full((4, 2), np.inf)),
        ("reward", np.zeros((4, 1))),
        ("reward", np.array([0, 0, np.nan, 0])),
        ("next_obs", np.zeros((4, 2))),
        ("terminal", np.zeros(5)),
        ("terminal", np.full(4, 0.5)),
        ("timeout", np.array([0, 2, 0, 0])),
        ("next_action", np.zeros((4, 1))),
        ("next_action", np.array([[0, 0], [0, np.nan], [0, -np.inf], [0, 0]])),
        ("action_low", 1.0),
        ("action_low", np.array([0.0, 2.0])),
        ("action_low", -np.inf),
        ("action_high", np.nan),
    ],
)
def test_bad_transitions_name_the_field(field, value):
    with pytest.raises(ValueError, match=rf"transitions\.{'action_low' if 'high' in field else field}.*expected.*Fix"):
        Transitions(**{**FIELDS, field: value})


def test_bounds_of_another_length_are_refused():
    with pytest.raises(
        ValueError, match=r"transitions.action_low: expected a number or shape \(2,\), got shape \(3,\)"
    ):
        Transitions(**FIELDS, action_low=[-1.0, -1.0, -1.0])


def test_actions_outside_the_box_are_refused():
    with pytest.raises(ValueError, match=r"transitions.action: expected actions in .*clip them"):
        Transitions(**{**FIELDS, "action": np.full((4, 2), 1.5)})


def test_next_actions_outside_the_box_are_refused_and_unknown_ones_taken():
    following = np.array([[0.5, np.nan], [np.nan, np.nan], [-1, 1], [0, 0]])
    data = Transitions(**FIELDS, next_action=following)
    np.testing.assert_array_equal(data.next_action, following.astype(np.float32))
    assert data.next_action.flags.c_contiguous
    following[2, 1] = 1.5  # in a terminal row, too
    with pytest.raises(ValueError, match=r"transitions.next_action: expected actions in .* in row 2. Fix: clip them"):
        Transitions(**FIELDS, next_action=following)
    following[2, 1] = -np.inf
    with pytest.raises(ValueError, match=r"transitions.next_action: expected numbers, got an inf in row 2. Fix: "):
        Transitions(**FIELDS, next_action=following)


def test_checksum_sees_known_next_actions():
    """They are trained on, by ReBRAC. Data without them keep the checksum that they always had."""
    plain = Transitions(**FIELDS)
    assert plain.checksum() == "ec52ca038fbe1265ceeedfe775a8b228757ab9b2d997da546cd793917d5bc6f8"
    unknown = np.full((4, 2), np.nan)
    assert dataclasses.replace(plain, next_action=unknown).checksum() == plain.checksum()
    seen = {plain.checksum()}
    for value in (0.0, 0.5):
        following = unknown.copy()
        following[1, 0] = value
        seen.add(dataclasses.replace(plain, next_action=following).checksum())
    assert len(seen) == 3


def test_checksum_sees_every_field():
    base = Transitions(**FIELDS)
    assert base.checksum() == Transitions(**FIELDS, name="other").checksum()
    seen = {base.checksum()}
    for field in (*FIELDS, "timeout", "action_high"):
        changed = np.array(getattr(base, field))
        changed.flat[0] = 1.0 if field not in ("next_obs", "action_high") else 3.0
        seen.add(dataclasses.replace(base, **{field: changed}).checksum())
    assert len(seen) == 8


# Files


def write_half(path):
    with orbs.atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("half")
        raise RuntimeError


def test_writing_is_atomic(tmp_path):
    path = tmp_path / "new" / "file.txt"
    orbs.write_atomically(path, "one")
    assert path.read_text() == "one"
    with pytest.raises(RuntimeError):
        write_half(path)
    assert path.read_text() == "one"
    orbs.write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        orbs.write_atomically(tmp_path / "a", "x")
    assert list(tmp_path.iterdir()) == []


def test_written_files_have_ordinary_permissions(tmp_path):
    orbs.write_atomically(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "t.safetensors"
    tensors = {
        "weight": torch.randn(3, 2, requires_grad=True),
        "view": torch.arange(6.0, dtype=F64).view(2, 3).T,
        "count": torch.tensor(3),
        "nan": torch.tensor([float("nan"), float("inf")]),
    }
    meta = {"steps": 7, "nested": {"a": [1, 2.5, None, "ü"]}}
    orbs.save_tensors(path, tensors, meta)
    found, header = orbs.load_tensors(path)
    assert header == meta
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].nan_to_num(), tensor.detach().nan_to_num())


def test_a_save_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "t.safetensors"
    orbs.save_tensors(path, {"a": torch.ones(2)}, {"steps": 1})
    with pytest.raises(TypeError):
        orbs.save_tensors(path, {"a": torch.zeros(2)}, {"steps": object()})
    assert orbs.load_tensors(path)[1] == {"steps": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_not_ours_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    with pytest.raises(ValueError, match="existing file"):
        orbs.load_tensors(path)
    with pytest.raises(ValueError, match="existing file"):
        orbs.load_tensors(tmp_path)
    orbs.save_tensors(path, {"a": torch.ones(100)}, {})
    assert orbs.load_tensors(path)[1] == {}
    whole = path.read_bytes()
    for damaged in (b"", whole[:4], whole[:30], whole[:-1], whole + b"x", b"junk" * 50):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="checkpoint"):
            orbs.load_tensors(path)
    for header in (None, {"other": "1"}, {"orbs": "{broken"}, {"orbs": "[1]"}, {"orbs": ""}):
        save_file({"a": torch.ones(1)}, path, header)
        with pytest.raises(ValueError, match="written by orbs"):
            orbs.load_tensors(path)
    torch.save({"a": torch.ones(1)}, path)  # a pickle is never opened
    with pytest.raises(ValueError, match="safetensors"):
        orbs.load_tensors(path)


# Hyperparameter names


@dataclasses.dataclass
class Fields:
    learning_rate: float = 1.0
    batch_size: int = 2


def test_checked_fields():
    given = {"batch_size": 3}
    assert orbs.checked_fields(Fields, given, "x") == given
    assert orbs.checked_fields(Fields, given, "x") is not given
    with pytest.raises(
        ValueError, match=r"x\.batchsize: .*did you mean 'batch_size'\? fields are learning_rate, batch"
    ):
        orbs.checked_fields(Fields, {"batchsize": 3}, "x")
    with pytest.raises(ValueError, match=r"x\.zzz: expected a field of Fields, got 'zzz'\. Fix: fields are"):
        orbs.checked_fields(Fields, {"zzz": 3}, "x")


def test_reject_has_one_form():
    with pytest.raises(ValueError, match=r"^field: expected this, got that\. Fix: so\.$"):
        orbs.reject("field", "this", "that", "so")
    assert json.loads(f'"{orbs.__version__}"').count(".") == 2
