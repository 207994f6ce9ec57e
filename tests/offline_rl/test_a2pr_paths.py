"""A2PR's short cuts change nothing: rows left out, padded storage, a target that is taken once, a foreign critic."""

from __future__ import annotations

import pytest
import torch

from offline_rl import A2PR, networks
from offline_rl import a2pr as module
from offline_rl.critics import CRITICS, Critic, TwinCritic
from offline_rl.critics.layer_norm import LayerNormTwinCritic
from offline_rl.networks import Adam, cropped, init_mlp, leading_rows, mlp, padded, take_rows
from orbs import Philox
from tests.offline_rl.reference import make_data, moved, snapshot
from tests.offline_rl.reference_a2pr import built, lively, trained

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


# Rows that contribute nothing are left out


def test_leading_rows_by_hand():
    """Kept rows first, in order; the run with fewer of them is filled up; never none."""
    kept = torch.tensor([[False, True, False, True], [False, False, True, False]])
    assert leading_rows(kept).tolist() == [[1, 3], [2, 0]]
    assert leading_rows(kept & False).tolist() == [[0], [0]]
    assert leading_rows(kept | True).tolist() == [[0, 1, 2, 3]] * 2
    x = torch.arange(16.0).view(2, 4, 2)
    assert take_rows(x, leading_rows(kept)).tolist() == [[[2, 3], [6, 7]], [[12, 13], [8, 9]]]


@pytest.mark.parametrize("final_relu", [False, True])
@pytest.mark.parametrize("zero", [[], [0, 3], [0, 1, 2, 3, 4, 5]])
def test_rows_without_gradient_are_left_out_of_the_backward_pass(final_relu, zero, monkeypatch):
    parameters = [p.detach() for p in init_mlp(Philox(0, range(2)), "net", (3, 7, 6, 2), dtype=F64)]
    x, weight = normal(2, 6, 3).requires_grad_(), normal(2, 6, 2, seed=1)
    weight[0, zero] = 0.0
    weight[1, zero[1:]] = 0.0
    counts = []

    def seen(kept):
        counts.append(leading_rows(kept).shape[1])
        return leading_rows(kept)

    monkeypatch.setattr(networks, "leading_rows", seen)
    grads = [
        torch.autograd.grad((weight * mlp(x, parameters, final_relu, skip_rows=skip)).sum(), x)[0]
        for skip in (False, True)
    ]
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-15)
    assert counts == [6 - len(zero[1:])]
    live = [p.clone().requires_grad_() for p in parameters]  # gradients of parameters need every row
    loss = (weight * mlp(x, live, final_relu, skip_rows=True)).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, [x, *live])[0], grads[0], rtol=0, atol=0)
    assert len(counts) == 1


@pytest.mark.parametrize(
    "arguments",
    [{}, {"bc_weight": 10.0, "vae_weight": 1.5}, {"detach_vae_target": True}, {"vae_source": "prior"}],
    ids=str,
)
def test_leaving_rows_out_changes_rounding_alone(arguments, monkeypatch):
    """After 20 updates of two runs with different shares: 1e-12 in float64; rows were left out on one path alone."""
    data = make_data()
    short, full = (lively(data, policy_period=1, **arguments) for _ in range(2))
    assert short._skip_rows
    full._skip_rows = False
    counts = []

    def seen(kept):
        index = leading_rows(kept)
        counts.append(index.shape[1])
        return index

    monkeypatch.setattr(module, "leading_rows", seen)
    monkeypatch.setattr(networks, "leading_rows", seen)
    full.update(20)
    assert counts == []
    short.update(20)
    assert min(counts) < 20
    for name, tensor in short.state_dict().items():
        torch.testing.assert_close(tensor, full.state_dict()[name], rtol=0, atol=1e-12)
    theirs = full.metrics()
    for name, value in short.metrics().items():
        assert value == pytest.approx(theirs[name], rel=1e-11, abs=1e-13), name


def test_no_row_above_the_value_is_no_special_case():
    short, full = built(value_learning_rate=1e-12), built(value_learning_rate=1e-12)
    full._skip_rows = False
    for learner in (short, full):
        with torch.no_grad():
            learner.value[-1].fill_(99.0)
        learner.update(4)
    for name, tensor in short.state_dict().items():
        torch.testing.assert_close(tensor, full.state_dict()[name], rtol=0, atol=1e-13)
    assert short.metrics()["advantage_rate"].tolist() == [0.0, 0.0]


# Padded storage


@pytest.mark.parametrize("sizes", [(3, 5, 2), (3, 18, 16, 4), (3, 16, 1)])
def test_padding_changes_no_value_and_stays_zero(sizes):
    plain = init_mlp(Philox(0, range(2)), "net", sizes, dtype=F64)
    shapes = [p.shape for p in plain]
    wide = padded(plain)
    assert all(p.shape[2] % 16 == 0 for p in wide[:-2])
    assert all(torch.equal(a, b) for a, b in zip(cropped(wide, shapes), plain, strict=True))
    x = normal(2, 6, 3)
    torch.testing.assert_close(mlp(x, wide), mlp(x, plain), rtol=0, atol=1e-14)
    ours, theirs = Adam(wide, 1e-2, shapes=shapes), Adam(plain, 1e-2)
    for _ in range(5):
        ours.minimise(mlp(x, wide).square().sum())
        theirs.minimise(mlp(x, plain).square().sum())
    for tensors, others in ((wide, plain), (ours.mean, theirs.mean), (ours.square, theirs.square)):
        for tensor, other, part in zip(tensors, others, cropped(tensors, shapes), strict=True):
            torch.testing.assert_close(part, other.detach(), rtol=0, atol=1e-12)
            assert tensor.count_nonzero() == part.count_nonzero()
    assert [t.shape for t in ours.state().values()] == [t.shape for t in theirs.state().values()]


def test_the_learner_shows_and_saves_its_vae_without_the_padding(tmp_path):
    learner = trained(5)
    state = learner.state_dict()
    assert state["vae_encoder.2"].shape == state["vae_adam.mean.2"].shape == (2, 18, 16)
    assert learner._encoder[2].shape == (2, 32, 16)
    for wide, part in zip(learner._encoder + learner._decoder, learner.encoder + learner.decoder, strict=True):
        assert wide.count_nonzero() == part.count_nonzero()
        assert wide.data_ptr() == part.data_ptr()
    learner.save(tmp_path / "a2pr.safetensors")
    loaded = A2PR.load(tmp_path / "a2pr.safetensors")
    loaded.attach(make_data())
    for each in (learner, loaded):
        each.update(5)
    assert not moved(snapshot(learner), snapshot(loaded), "")


# One target for the critic and the value


@pytest.mark.parametrize("kind", [TwinCritic, LayerNormTwinCritic])
@pytest.mark.parametrize("bonus", [False, True])
def test_a_critic_takes_its_target_from_who_has_it(kind, bonus):
    own, given, other = (kind(Philox(0, [0, 1]), 3, 2, (8, 8), dtype=F64) for _ in range(3))
    learner = built()
    batch = learner._batch(learner._draw(1)[0][:, 0])
    action, extra = normal(2, 20, 2), normal(2, 20, seed=1) if bonus else None
    target = given.td_target(batch, action, extra)
    own.update(batch, action, extra)
    given.update(batch, action, extra, target=target)
    other.update(batch, action, target=target + 1.0)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters, given.parameters, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(own.parameters, other.parameters, strict=True))


def test_the_slow_critic_is_evaluated_once_an_update(monkeypatch):
    learner, calls = built(), []
    inner = learner.critic.backup_value
    monkeypatch.setattr(learner.critic, "backup_value", lambda *rows: (calls.append(1), inner(*rows))[1])
    learner.update(3)
    assert len(calls) == 3


# The critic is a part that can be exchanged


class InterfaceOnly:
    """A twin critic of which nothing but the interface `Critic` can be reached."""

    def __init__(self, *arguments, **keywords):
        inner = TwinCritic(*arguments, **keywords)
        for name in [name for name in vars(Critic) if not name.startswith("_")]:
            setattr(self, name, getattr(inner, name))


def test_a_critic_is_taken_by_name_and_only_its_interface_is_called(monkeypatch):
    monkeypatch.setitem(CRITICS, "interface", InterfaceOnly)
    ours, theirs = trained(4, critic="interface"), trained(4)
    assert not moved(snapshot(ours), snapshot(theirs), "")


def test_no_host_synchronisation_within_an_update(monkeypatch):
    def refuse(*_):
        raise AssertionError("an update reads a tensor back")

    """On the path that CUDA takes; the one that leaves rows out reads their number."""
    learner = trained(2)
    learner._skip_rows = False
    for name in ("item", "__bool__", "tolist", "cpu", "numpy", "__float__", "__int__", "__index__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    learner.update(4)
