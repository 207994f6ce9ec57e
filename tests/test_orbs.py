"""The lowest layer: random numbers against published vectors, transitions, files, hyperparameter names."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import orbs
from orbs import Transitions

F64 = torch.float64

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
