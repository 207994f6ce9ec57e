"""Dropout masks out of geometric gaps, and the stack of Linear, Dropout, LayerNorm, ReLU against torch.nn."""

from __future__ import annotations

import math

import pytest
import torch

from offline_rl.dropout_stack import (
    BLOCK,
    Dropout,
    draw_masks,
    dropout_stack,
    init_dropout_stack,
    masks_from_gaps,
    uniforms_per_mask,
)
from orbs import Philox

F64 = torch.float64


def dropped(philox=None, purpose="x", step=3, p=0.1, widths=(32,), rows=8, members=1):
    masks = draw_masks(philox or Philox(0, [0, 1]), purpose, step, p, widths, rows, members, F64)
    return [mask == 0 for mask in masks]


# Masks


def test_masks_by_hand():
    """p = 1/2: u in (1/2, 1) is a gap of 0, (1/4, 1/2) of 1, (1/8, 1/4) of 2. Gaps 1, 0, 2 drop units 1, 2 and 5."""
    uniform = torch.tensor([[0.3, 0.7, 0.2, 0.9], [0.9, 1e-3, 0.9, 0.9]], dtype=F64)
    found = masks_from_gaps(uniform, 6, 0.5, torch.float32)
    assert found.tolist() == [[2, 0, 0, 2, 2, 0], [0, 2, 2, 2, 2, 2]]
    assert found.dtype == torch.float32


@pytest.mark.parametrize("p", [0.003, 0.01, 0.1, 0.5, 0.9])
def test_dropped_units_are_bernoulli(p):
    """The share over 3.3 million units, and the variance over 400 masks of the number dropped, n p (1 - p)."""
    steps, rows, width = 400, 32, 64
    n = rows * width
    runs = Philox(5, range(4))
    counts = torch.stack([dropped(runs, step=s, p=p, widths=(width,), rows=rows)[0].sum((1, 2)) for s in range(steps)])
    counts = counts.double().flatten()
    assert abs(counts.mean().item() - n * p) < 4 * math.sqrt(n * p * (1 - p) / counts.numel())
    ratio = counts.var().item() / (n * p * (1 - p))
    assert abs(ratio - 1) < 4 * math.sqrt(2 / counts.numel())


def test_every_place_is_dropped_as_often_as_the_others():
    """Counts per place over 3000 masks, first and last of a mask included: chi-square within 4 deviations."""
    p, n = 0.05, 40
    total = sum(dropped(Philox(1, [0]), step=s, p=p, widths=(10,), rows=4)[0].double() for s in range(3000)).flatten()
    square = ((total - 3000 * p) ** 2 / (3000 * p * (1 - p))).sum().item()
    assert abs(square - n) < 4 * math.sqrt(2 * n)


@pytest.mark.parametrize("lag", [1, 2, 7, 64])
def test_dropped_units_are_independent_of_one_another(lag):
    """The correlation of units `lag` apart in the order of drawing; and a pair drops together with p^2."""
    p = 0.2
    drops = torch.stack([dropped(Philox(2, [0, 1]), step=s, p=p, widths=(64,), rows=64)[0] for s in range(20)])
    flat = drops.double().flatten(2)
    a, b = flat[..., :-lag] - p, flat[..., lag:] - p
    assert abs((a * b).mean().item()) < 4 * p * (1 - p) / math.sqrt(a.numel())
    both = (flat[..., :-lag] * flat[..., lag:]).mean().item()
    assert abs(both - p * p) < 5 * p / math.sqrt(a.numel())


@pytest.mark.parametrize("other", ["run", "step", "purpose", "layer", "member", "seed"])
def test_masks_of_different_streams_are_independent(other):
    def one(seed=0, run=0, purpose="a", step=1, layer=0, member=0):
        masks = dropped(Philox(seed, [run]), purpose, step, 0.3, (128, 128), 64, members=2)
        return masks[layer][member].double() - 0.3

    change = {"purpose": "b"} if other == "purpose" else {other: 1 if other != "step" else 2}
    a, b = one(), one(**change)
    assert abs((a * b).mean().item()) < 4 * 0.3 * 0.7 / math.sqrt(a.numel())
    assert abs((a * one()).mean().item()) > 0.15


def test_a_mask_is_zero_or_keeps_the_mean():
    mask = draw_masks(Philox(0, [0, 7]), "x", 1, 0.25, (20, 30), 11, 2, F64)
    assert [m.shape for m in mask] == [(4, 11, 20), (4, 11, 30)]
    for m in mask:
        assert set(m.unique().tolist()) == {0.0, 1 / 0.75}


def test_without_dropout_nothing_is_drawn():
    class Refusing:
        def uniform(self, *_):
            raise AssertionError("a draw")

    assert draw_masks(Refusing(), "x", 1, 0.0, (4,), 3) is None
    never = Dropout(Refusing(), "x", 0.0, (4,))
    never.begin(3)
    assert never.masks("data", 3) is None


def test_enough_gaps_are_drawn():
    """Every number of dropped units up to eight deviations above the mean fits; never more than there are units."""
    for n, p in ((65536, 0.01), (256, 0.01), (1000, 0.5), (10, 0.9), (10, 1e-12)):
        k = uniforms_per_mask(n, p)
        assert k == n or k >= n * p + 8 * math.sqrt(n * p * (1 - p))
    assert uniforms_per_mask(65536, 0.01) < 900
    assert uniforms_per_mask(10, 0.9) == 10


def test_the_same_masks_in_either_precision_and_beside_any_runs():
    many, alone = Philox(3, range(5)), Philox(3, [4])
    together = draw_masks(many, "x", 9, 0.1, (16, 8), 6, 2, torch.float32)
    single = draw_masks(alone, "x", 9, 0.1, (16, 8), 6, 2, F64)
    for a, b in zip(together, single, strict=True):
        assert torch.equal(a[8:] == 0, b == 0)


def test_dropout_draws_in_blocks_what_draw_masks_draws_step_by_step():
    """Over a block's edge, backwards too; a second pass of a purpose within a step has masks of its own."""
    philox = Philox(0, [0, 1])
    stream = Dropout(philox, "net", 0.1, (16, 8), 2, F64)

    def same(found, purpose, step, rows=6):
        wanted = draw_masks(philox, purpose, step, 0.1, (16, 8), rows, 2, F64)
        return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))

    for step in (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2, 10**10):
        stream.begin(step)
        assert same(stream.masks("data", 6), "net.data", step)
        assert same(stream.masks("target", 6), "net.target", step)
        assert same(stream.masks("data", 6), "net.data.1", step)
        assert same(stream.masks("data", 5), "net.data.2", step, rows=5)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_probability_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match=r"net\.probability: expected a number from 0 to below 1"):
        Dropout(Philox(0, [0]), "net", p, (4,))


# The stack


def stack(runs=2, members=2, sizes=(3, 7, 5, 2)):
    parameters = init_dropout_stack(Philox(0, range(runs)), "net", sizes, members, F64)
    with torch.no_grad():
        for i in (2, 3, 6, 7):  # a gain and a shift that matter
            parameters[i].add_(0.3 * torch.randn(parameters[i].shape, dtype=F64, generator=torch.manual_seed(i)))
    return parameters


def modules(parameters, g):
    """Stack g as torch.nn modules."""
    layers = []
    for i in range(0, len(parameters) - 2, 4):
        W, b, gain, shift = (p[g].detach() for p in parameters[i : i + 4])
        linear, norm = torch.nn.Linear(*W.shape, dtype=F64), torch.nn.LayerNorm(W.shape[1], dtype=F64)
        linear.weight.data, linear.bias.data = W.T.clone(), b[0].clone()
        norm.weight.data, norm.bias.data = gain[0].clone(), shift[0].clone()
        layers.append((linear, norm))
    W, b = (p[g].detach() for p in parameters[-2:])
    head = torch.nn.Linear(*W.shape, dtype=F64)
    head.weight.data, head.bias.data = W.T.clone(), b[0].clone()
    return layers, head


@pytest.mark.parametrize("with_masks", [False, True])
def test_a_stack_is_its_members_one_by_one(with_masks):
    parameters = stack()
    x = torch.randn(4, 6, 3, dtype=F64, generator=torch.manual_seed(1))
    masks = draw_masks(Philox(0, range(2)), "x", 1, 0.3, (7, 5), 6, 2, F64) if with_masks else None
    out, hidden = (dropout_stack(x, parameters, masks, hidden_only=only) for only in (False, True))
    for g in range(4):
        layers, head = modules(parameters, g)
        h = x[g]
        for i, (linear, norm) in enumerate(layers):
            h = linear(h)
            h = torch.relu(norm(h if masks is None else h * masks[i][g]))
        torch.testing.assert_close(hidden[g], h, rtol=0, atol=1e-13)
        torch.testing.assert_close(out[g], head(h), rtol=0, atol=1e-13)


def test_gradcheck_of_input_and_parameters():
    parameters = stack(runs=1, members=2, sizes=(3, 4, 5, 2))
    x = torch.randn(2, 3, 3, dtype=F64, generator=torch.manual_seed(2), requires_grad=True)
    masks = draw_masks(Philox(0, [0]), "x", 1, 0.3, (4, 5), 3, 2, F64)
    assert torch.autograd.gradcheck(lambda x, *p: dropout_stack(x, p, masks), (x, *parameters))


def test_initialisation():
    """Linear layers as init_mlp draws them: within +-1/sqrt(fan_in), uniform; LayerNorm's gain 1, shift 0."""
    parameters = init_dropout_stack(Philox(0, [0, 1, 2]), "net", (100, 64, 32, 2))
    shapes = [(100, 64), (1, 64), (1, 64), (1, 64), (64, 32), (1, 32), (1, 32), (1, 32), (32, 2), (1, 2)]
    assert [tuple(p.shape) for p in parameters] == [(3, *shape) for shape in shapes]
    assert all(p.requires_grad and p.is_leaf for p in parameters)
    for i, fan_in in ((0, 100), (4, 64), (8, 32)):
        for p in parameters[i : i + 2]:
            assert 0.7 / math.sqrt(fan_in) < p.abs().max() <= 1 / math.sqrt(fan_in)
        assert abs(parameters[i].std().item() * math.sqrt(3 * fan_in) - 1) < 0.1
    for i in (2, 6):
        assert (parameters[i] == 1).all()
        assert (parameters[i + 1] == 0).all()


def test_the_mean_over_masks_keeps_the_layers_input():
    """E[mask] = 1: the linear layer's output, averaged over many masks, is the one without dropout."""
    x = torch.ones(1, 4000, 16, dtype=F64)
    (mask,) = draw_masks(Philox(0, [0]), "x", 1, 0.4, (16,), 4000, 1, F64)
    assert ((x * mask).mean(1) - 1).abs().max() < 5 * math.sqrt(0.4 / 0.6 / 4000)
