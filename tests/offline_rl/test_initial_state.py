"""Where every learner starts: shapes of all layers, ranges of the weights, what stands at a fixed value."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from offline_rl import A2PR, IQL, ODICE, ReBRAC
from tests.offline_rl.reference import count


def stack(learner, prefix):
    """The tensors `prefix.0`, `prefix.1`, ... of a learner."""
    state = learner.state_dict()
    return [state[f"{prefix}.{i}"] for i in range(count(state, prefix))]


def linear_shapes(members, *widths):
    """[W, b] a layer: (members, in, out) and (members, 1, out)."""
    return [shape for fan_in, out in pairwise(widths) for shape in ((members, fan_in, out), (members, 1, out))]


def normed_shapes(members, *widths):
    """[W, b, gain, shift] a hidden layer, [W, b] for the last."""
    found = []
    for layer, (fan_in, out) in enumerate(pairwise(widths)):
        found += [(members, fan_in, out), *[(members, 1, out)] * (1 if layer == len(widths) - 2 else 3)]
    return found


def shapes(tensors):
    return [tuple(tensor.shape) for tensor in tensors]


def assert_uniform(tensor, bound):
    """Within +-bound and most of the way there, both signs alike; for tensors of many numbers."""
    assert tensor.abs().max() <= bound
    if tensor.numel() >= 100:
        assert tensor.abs().max() > 0.9 * bound
        assert abs(tensor.mean()) < 0.25 * bound


A2PR_SHAPES = {
    "actor": linear_shapes(2, 11, 256, 256, 256, 3),
    "actor_target": linear_shapes(2, 11, 256, 256, 256, 3),
    "critic.online": linear_shapes(4, 14, 256, 256, 256, 256, 1),
    "critic.target": linear_shapes(4, 14, 256, 256, 256, 256, 1),
    "value": linear_shapes(2, 11, 256, 256, 256, 256, 1),
    "vae_encoder": linear_shapes(2, 14, 750, 750, 12),  # two heads of 2 * 3
    "vae_decoder": linear_shapes(2, 17, 750, 750, 3),
}


@pytest.fixture(scope="module")
def a2pr():
    return A2PR(11, 3, runs=2)


@pytest.mark.parametrize("name", A2PR_SHAPES)
def test_a2pr_has_the_specification_s_layers_with_pytorch_s_initialisation(a2pr, name):
    tensors = stack(a2pr, name)
    assert shapes(tensors) == A2PR_SHAPES[name]
    for weight, bias in zip(tensors[::2], tensors[1::2], strict=True):
        for tensor in (weight, bias):
            assert_uniform(tensor, 1 / math.sqrt(weight.shape[1]))


def test_a2pr_s_slow_copies_are_equal_and_its_critics_are_not(a2pr):
    for fast, slow in (("actor", "actor_target"), ("critic.online", "critic.target")):
        assert all(torch.equal(a, b) for a, b in zip(stack(a2pr, fast), stack(a2pr, slow), strict=True))
    critics = stack(a2pr, "critic.online")[0]
    assert not any(torch.equal(critics[i], critics[j]) for i in range(4) for j in range(i))


def test_o_dice():
    learner = ODICE(11, 3, runs=2)
    state = learner.state_dict()
    assert shapes(stack(learner, "actor")) == linear_shapes(2, 11, 1024, 1024, 3)
    assert tuple(state["log_std"].shape) == (2, 1, 3)
    assert not state["log_std"].any()
    value, slow = stack(learner, "value"), stack(learner, "value_target")
    assert shapes(value) == normed_shapes(4, 11, 256, 256, 1)
    assert all(torch.equal(a, b) for a, b in zip(value, slow, strict=True))
    for layer, fan_in in ((0, 11), (4, 256), (8, 256)):
        assert_uniform(value[layer], 1 / math.sqrt(fan_in))
        assert_uniform(value[layer + 1], 1 / math.sqrt(fan_in))
    for gain, shift in ((2, 3), (6, 7)):
        assert (value[gain] == 1).all()
        assert (value[shift] == 0).all()
    assert not torch.equal(value[0][0], value[0][1])
    single = ODICE(11, 3, twin=False, layer_norm=False)
    assert shapes(stack(single, "value")) == linear_shapes(1, 11, 256, 256, 1)


@pytest.mark.parametrize("actor_normed", [False, True])
@pytest.mark.parametrize("critic_normed", [False, True])
def test_rebrac(actor_normed, critic_normed):
    """Hidden weights +-1/sqrt(fan_in), hidden biases 0.1; last layer +-1e-3 (actor), +-3e-3 (critic), biases too."""
    learner = ReBRAC(11, 3, runs=2, actor_layer_norm=actor_normed, critic_layer_norm=critic_normed)
    for name, slow, members, normed, widths, bound in (
        ("actor", "actor_target", 2, actor_normed, (11, 256, 256, 256, 3), 1e-3),
        ("critic.online", "critic.target", 4, critic_normed, (14, 256, 256, 256, 1), 3e-3),
    ):
        tensors = stack(learner, name)
        assert shapes(tensors) == (normed_shapes if normed else linear_shapes)(members, *widths)
        assert all(torch.equal(a, b) for a, b in zip(tensors, stack(learner, slow), strict=True))
        *hidden, weight, bias = tensors
        assert_uniform(weight, bound)
        assert 0 < bias.abs().max() <= bound
        per = 4 if normed else 2
        for layer in range(3):
            block = hidden[per * layer : per * layer + per]
            assert_uniform(block[0], 1 / math.sqrt(widths[layer]))
            assert (block[1] == torch.tensor(0.1)).all()
            if normed:
                assert (block[2] == 1).all()
                assert (block[3] == 0).all()
        assert not torch.equal(tensors[0][0], tensors[0][1])


@pytest.mark.parametrize("initialisation", ["orthogonal", "uniform"])
def test_iql(initialisation):
    """Orthogonal with gain sqrt(2), the outputs' columns too, and zero biases; or PyTorch's default. log std 0."""
    learner = IQL(11, 3, runs=2, initialisation=initialisation)
    assert not learner.state_dict()["log_std.0"].any()
    for name, wanted in {
        "actor": linear_shapes(2, 11, 256, 256, 3),
        "value": linear_shapes(2, 11, 256, 256, 1),
        "critic.online": linear_shapes(4, 14, 256, 256, 1),
        "critic.target": linear_shapes(4, 14, 256, 256, 1),
    }.items():
        tensors = stack(learner, name)
        assert shapes(tensors) == wanted
        for weight, bias in zip(tensors[::2], tensors[1::2], strict=True):
            if initialisation == "uniform":
                assert_uniform(weight, 1 / math.sqrt(weight.shape[1]))
                assert bias.any()
                continue
            assert not bias.any()
            gram = weight @ weight.mT if weight.shape[1] < weight.shape[2] else weight.mT @ weight
            torch.testing.assert_close(gram, 2 * torch.eye(gram.shape[1]).expand_as(gram), rtol=0, atol=1e-5)
