"""Stacked perceptrons and their optimiser against torch.nn, torch.optim and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from offline_rl.networks import Adam, clone_parameters, init_mlp, member, mlp, polyak
from orbs import Philox

F64 = torch.float64


def stack(sizes=(3, 5, 4, 2), runs=2, members=2, seed=0, dtype=F64):
    return init_mlp(Philox(seed, range(runs)), "net", sizes, members, dtype)


def rows(*shape, seed=1):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("final_relu", "expected"), [(False, [[-1.0], [3.5]]), (True, [[0.0], [3.5]])])
def test_hand_value(final_relu, expected):
    """x -> relu([2x - 1, -x + 1]) -> 2 h1 - h2 + 0.5: x = -0.5 gives h = (0, 1.5), x = 1.5 / 2 + 0.5 gives (1.5, 0)."""
    W1, b1 = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[-1.0, 1.0]]])
    W2, b2 = torch.tensor([[[2.0], [-1.0]]]), torch.tensor([[[0.5]]])
    out = mlp(torch.tensor([[[-0.5], [1.25]]]), [W1, b1, W2, b2], final_relu)
    assert out.tolist() == [expected]


@pytest.mark.parametrize("final_relu", [False, True])
def test_a_stack_is_its_members_one_by_one(final_relu):
    parameters, x = stack(), rows(4, 6, 3)
    out = mlp(x, parameters, final_relu)
    with torch.no_grad():
        assert torch.equal(mlp(x, parameters, final_relu), out)
    for g in range(4):
        layers = []
        for W, b in zip(parameters[::2], parameters[1::2], strict=True):
            linear = torch.nn.Linear(W.shape[1], W.shape[2], dtype=F64)
            linear.weight.data, linear.bias.data = W[g].detach().T, b[g, 0].detach()
            layers += [linear, torch.nn.ReLU()]
        plain = torch.nn.Sequential(*layers[: None if final_relu else -1])
        torch.testing.assert_close(out[g], plain(x[g]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("final_relu", [False, True])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 5, 2), (2, 4, 3, 1)], ids=str)
def test_gradcheck_of_inputs_and_parameters(final_relu, sizes):
    parameters = stack(sizes, runs=1)
    x = rows(2, 4, sizes[0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *p: mlp(x, p, final_relu), (x, *parameters))


def test_gradcheck_where_only_some_inputs_want_a_gradient():
    parameters, x = stack(runs=1), rows(2, 4, 3)
    constants = [p.detach() for p in parameters]
    assert torch.autograd.gradcheck(lambda *p: mlp(x, p), parameters)
    assert torch.autograd.gradcheck(lambda x: mlp(x, constants), (x.clone().requires_grad_(),))
    half = [*constants[:4], *parameters[4:]]
    assert torch.autograd.gradcheck(lambda *p: mlp(x, [*half[:4], *p]), half[4:])


def test_backward_twice_leaves_inputs_and_gradients_whole():
    """The backward pass works in place on its own buffers alone."""
    parameters, x = stack(), rows(4, 6, 3)
    out, seed = mlp(x, parameters), rows(4, 6, 2, seed=2)
    kept = seed.clone()
    first = torch.autograd.grad(out, parameters, seed, retain_graph=True)
    first = [g.clone() for g in first]
    second = torch.autograd.grad(out, parameters, seed)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(seed, kept)
    assert torch.equal(x, rows(4, 6, 3))


def test_runs_never_mix():
    """The gradient of run 0's outputs reaches run 0's weights alone."""
    parameters = stack()
    grads = torch.autograd.grad(mlp(rows(4, 6, 3), parameters)[:2].sum(), parameters)
    assert all((g[:2] != 0).any() and (g[2:] == 0).all() for g in grads)


def test_initial_weights_are_torch_linear_s():
    """Weights and biases uniform in +-1/sqrt(fan_in): range, mean, variance; every layer, run and member its own."""
    sizes = (40, 50, 60, 30)
    parameters = stack(sizes, runs=3, dtype=torch.float32)
    for i, p in enumerate(parameters):
        fan_in = sizes[i // 2]
        bound = 1 / math.sqrt(fan_in)
        assert p.shape == (6, fan_in if i % 2 == 0 else 1, sizes[i // 2 + 1])
        assert p.requires_grad
        values = p.detach().double() / bound
        assert values.abs().max() <= 1
        assert values.abs().max() > 0.95
        assert abs(values.mean()) < 5 / math.sqrt(3 * values.numel())
        assert abs(values.square().mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / values.numel())
        flat = values.flatten(1)
        assert all(not torch.equal(flat[a], flat[b]) for a in range(6) for b in range(a))
    square = stack((9, 9, 9), runs=1, members=1)
    first_rows = [p[0, 0] for p in square]
    assert all(not torch.equal(first_rows[a], first_rows[b]) for a in range(4) for b in range(a))


def test_initial_weights_depend_on_name_seed_and_run_alone():
    one = init_mlp(Philox(3, [5]), "a", (4, 6))
    among = init_mlp(Philox(3, [1, 5, 2]), "a", (4, 6))
    assert all(torch.equal(x[0], y[1]) for x, y in zip(one, among, strict=True))
    assert not torch.equal(one[0], init_mlp(Philox(3, [5]), "b", (4, 6))[0])
    assert not torch.equal(one[0], init_mlp(Philox(4, [5]), "a", (4, 6))[0])


def test_adam_is_torch_optim_s():
    ours, theirs = stack(), stack()
    mine, adam = Adam(ours, 1e-2), torch.optim.Adam(theirs, lr=1e-2)
    x, y = rows(4, 6, 3), rows(4, 6, 2, seed=3)
    for _ in range(50):
        mine.minimise((mlp(x, ours) - y).square().sum())
        adam.zero_grad()
        (mlp(x, theirs) - y).square().sum().backward()
        adam.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_adam_by_hand():
    """Gradients 3 then 1 from 0 with step 0.1: m_hat = 3 then 1.9474, v_hat = 9 then 4.998."""
    p = torch.zeros(1, dtype=F64, requires_grad=True)
    adam = Adam([p], 0.1)
    adam.step([torch.tensor([3.0], dtype=F64)])
    assert p.item() == pytest.approx(-0.1, abs=1e-8)
    adam.step([torch.tensor([1.0], dtype=F64)])
    m = (0.9 * 0.3 + 0.1) / (1 - 0.81)
    v = (0.999 * 0.009 + 0.001) / (1 - 0.999**2)
    assert p.item() == pytest.approx(-0.1 - 0.1 * m / math.sqrt(v), abs=1e-8)
    assert adam.state()["count.0"].item() == 2


def test_polyak_by_hand_and_clones_stand_alone():
    source = [torch.tensor([1.0, 2.0], requires_grad=True)]
    copy = clone_parameters(source)
    assert not copy[0].requires_grad
    with torch.no_grad():
        source[0].add_(4.0)
    assert copy[0].tolist() == [1.0, 2.0]
    polyak(copy, source, 0.25)
    assert copy[0].tolist() == [2.0, 3.0]
    polyak(copy, source, 1.0)
    assert copy[0].tolist() == source[0].tolist()


def test_member_views_one_network_of_each_run():
    parameters = stack(runs=3)
    second = member(parameters, 1, 2)
    assert all(not p.requires_grad for p in second)
    assert all(torch.equal(p, q[1::2]) for p, q in zip(second, parameters, strict=True))
    assert second[0].data_ptr() == parameters[0][1].data_ptr()
