"""Networks with a leading runs axis, and their optimiser.

A stack of G = runs * members independent perceptrons is one list of parameters [W1, b1, W2, b2, ...] with
W (G, in, out) and b (G, 1, out); all are evaluated by batched matrix products. The stack is one node of the
autograd graph: on a CPU half of a small network's time would otherwise go into the graph's bookkeeping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orbs import Philox

__all__ = [
    "Adam",
    "Parameters",
    "clone_parameters",
    "cropped",
    "init_mlp",
    "leading_rows",
    "member",
    "mlp",
    "orthogonal_mlp",
    "padded",
    "polyak",
    "take_rows",
]

Parameters = list[Tensor]


def init_mlp(
    philox: Philox, name: str, sizes: Sequence[int], members: int = 1, dtype: torch.dtype = torch.float32
) -> Parameters:
    """Parameters of runs * members perceptrons, PyTorch's default Linear initialisation: U(-1, 1) / sqrt(fan_in).

    Args:
        philox: random numbers; `name` is their purpose, so each network of a learner needs its own.
        sizes: widths from input to output.
        members: independent copies within each run (2 for twin critics); the stack's order is run-major.
    """
    parameters: Parameters = []
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        bound = 1.0 / math.sqrt(fan_in)
        for kind, rows in (("weight", fan_in), ("bias", 1)):
            u = philox.uniform(f"{name}.{layer}.{kind}", 0, 1, members * rows * fan_out, dtype)
            tensor = ((2.0 * u - 1.0) * bound).view(-1, rows, fan_out)
            parameters.append(tensor.contiguous().requires_grad_())
    return parameters


def orthogonal_mlp(
    philox: Philox,
    name: str,
    sizes: Sequence[int],
    members: int = 1,
    dtype: torch.dtype = torch.float32,
    gain: float = math.sqrt(2.0),
) -> Parameters:
    """As `init_mlp`, but each weight is `gain` times a uniformly random (semi-)orthogonal matrix and biases are 0.

    Decomposed in float64 on the CPU, matrix by matrix: the same weights in either precision and beside any runs.
    """
    parameters: Parameters = []
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        rows, columns = max(fan_in, fan_out), min(fan_in, fan_out)
        normal = philox.normal(f"{name}.{layer}.orthogonal", 0, 1, members * rows * columns, torch.float64)
        q, r = torch.linalg.qr(normal.cpu().view(-1, rows, columns))
        q = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2)).unsqueeze(1)  # without this Q is not uniform
        weight = gain * (q if fan_in >= fan_out else q.transpose(1, 2))
        bias = torch.zeros(len(weight), 1, fan_out, dtype=dtype, device=philox.runs.device)
        for tensor in (weight.to(philox.runs.device, dtype).contiguous(), bias):
            parameters.append(tensor.requires_grad_())
    return parameters


def clone_parameters(parameters: Sequence[Tensor]) -> Parameters:
    """An exact copy without gradient: a target network."""
    return [tensor.detach().clone() for tensor in parameters]


# Rows of 64 bytes: a product of matrices whose rows straddle cache lines reaches four fifths of a CPU's speed.
MULTIPLE = 16


def padded(parameters: Sequence[Tensor]) -> Parameters:
    """The same perceptrons with zero units added to the hidden layers, to a multiple of `MULTIPLE`.

    A zero unit puts out 0, receives no gradient, and Adam without weight decay leaves it at 0: not a number changes.
    The originals are the parts `cropped` to the old shapes.
    """
    wide: Parameters = []
    for index, tensor in enumerate(parameters):
        runs, rows, columns = tensor.shape
        rows += -rows % MULTIPLE if index % 2 == 0 and index > 0 else 0
        columns += -columns % MULTIPLE if index < len(parameters) - 2 else 0
        storage = torch.zeros(runs, rows, columns, dtype=tensor.dtype, device=tensor.device)
        storage[:, : tensor.shape[1], : tensor.shape[2]] = tensor.detach()
        wide.append(storage.requires_grad_())
    return wide


def cropped(tensors: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Views of the leading part of each tensor, of the shape given for it, cut off from the graph."""
    parts = (tuple(slice(size) for size in shape) for shape in shapes)
    return [tensor.detach()[part] for tensor, part in zip(tensors, parts, strict=True)]


def leading_rows(kept: Tensor) -> Tensor:
    """(R, B) bool -> (R, K) int64: the numbers of each run's True rows, in order, then of False ones up to K.

    K is the largest count of True among the runs, at least 1: it is read on the host.
    """
    count = max(int(kept.sum(1).amax()), 1)
    return torch.argsort(kept.to(torch.uint8), dim=1, descending=True, stable=True)[:, :count]


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """x (R, B, d), index (R, K) -> (R, K, d)."""
    return x.reshape(-1, x.shape[2]).index_select(0, _flat(index, x.shape[1])).view(*index.shape, -1)


def _flat(index: Tensor, rows: int) -> Tensor:
    """Row numbers within each run (R, K) as row numbers of (R * rows, .)."""
    return (index + rows * torch.arange(len(index), device=index.device).unsqueeze(1)).view(-1)


def member(parameters: Sequence[Tensor], index: int, members: int) -> Parameters:
    """Views of one member's parameters, (runs, ...), cut off from the graph: constants to whoever uses them."""
    return [tensor.detach().view(-1, members, *tensor.shape[1:])[:, index] for tensor in parameters]


def mlp(x: Tensor, parameters: Sequence[Tensor], final_relu: bool = False, skip_rows: bool = False) -> Tensor:
    """Evaluate a stack: x (G, B, in) -> (G, B, out), ReLU between layers and, with `final_relu`, after the last.

    With `skip_rows`, rows whose gradient is zero are left out of a backward pass to x alone. That reads their number
    on the host, so it is for the CPU.
    """
    if torch.is_grad_enabled():
        return _Stack.apply(final_relu, skip_rows, x, *parameters)  # type: ignore[no-any-return, no-untyped-call]
    return _forward(final_relu, x, parameters)[-1]


def _forward(final_relu: bool, x: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """[x, first activation, ..., output]."""
    activations = [x]
    layers = len(parameters) // 2
    for layer in range(layers):
        x = _affine(x, parameters[2 * layer], parameters[2 * layer + 1])
        if final_relu or layer < layers - 1:
            x.relu_()
        activations.append(x)
    return activations


# The CPU's library multiplies narrow matrices (an action, a value) up to ten times slower than it could. The three
# products below are the plain ones in an order of axes, or as a sum, that it is good at; CUDA needs none of this.
NARROW = 64


def _narrow(x: Tensor, width: int) -> bool:
    return width < NARROW and x.device.type == "cpu"


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (G, B, in) @ weight (G, in, out) + bias (G, 1, out)."""
    out = weight.shape[2]
    if not _narrow(x, out):
        return torch.baddbmm(bias, x, weight)
    turned = weight.transpose(1, 2)
    if out == 1:
        return (x * turned).sum(2, keepdim=True).add_(bias)
    if out <= 4:
        turned = turned.contiguous()
    return torch.baddbmm(bias.transpose(1, 2), turned, x.transpose(1, 2)).transpose(1, 2)


def _weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """x (G, B, in)^T @ grad (G, B, out): (G, in, out)."""
    if _narrow(x, grad.shape[2]):
        return torch.bmm(grad.transpose(1, 2), x).transpose(1, 2)
    return torch.bmm(x.transpose(1, 2), grad)


def _input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """grad (G, B, out) @ weight (G, in, out)^T: (G, B, in)."""
    if _narrow(grad, weight.shape[1]):
        return torch.bmm(weight, grad.transpose(1, 2)).transpose(1, 2)
    if _narrow(grad, 1) and grad.shape[2] == 1:
        return grad * weight.transpose(1, 2)
    return torch.bmm(grad, weight.transpose(1, 2))


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, final_relu: bool, skip_rows: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        activations = _forward(final_relu, x, parameters)
        ctx.final_relu, ctx.skip_rows = final_relu, skip_rows
        ctx.layers = len(parameters) // 2
        ctx.save_for_backward(*activations, *parameters[::2])
        return activations[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layers = ctx.layers
        activations, weights = ctx.saved_tensors[: layers + 1], ctx.saved_tensors[layers + 1 :]
        of_x, of_parameters = ctx.needs_input_grad[2], ctx.needs_input_grad[3:]
        grads: list[Tensor | None] = [None] * (2 * layers)
        index = leading_rows((grad != 0).any(2)) if ctx.skip_rows and not any(of_parameters) else None
        if index is not None:
            grad, *activations = (take_rows(x, index) for x in (grad, *activations))
        if ctx.final_relu:
            grad = torch.ops.aten.threshold_backward(grad, activations[-1], 0)
        for layer in reversed(range(layers)):
            if of_parameters[2 * layer]:
                grads[2 * layer] = _weight_gradient(activations[layer], grad)
                grads[2 * layer + 1] = grad.sum(1, keepdim=True)
            if layer > 0:
                grad = _input_gradient(grad, weights[layer])
                # In place: this gradient was made one line above and nobody else holds it.
                torch.ops.aten.threshold_backward.grad_input(grad, activations[layer], 0, grad_input=grad)
        if not of_x:
            return None, None, None, *grads
        grad = _input_gradient(grad, weights[0])
        if index is not None:
            x = ctx.saved_tensors[0]
            whole = grad.new_zeros(x.shape[0] * x.shape[1], x.shape[2])
            grad = whole.index_copy_(0, _flat(index, x.shape[1]), grad.reshape(-1, x.shape[2])).view(x.shape)
        return None, None, grad, *grads


class Adam:
    """Adam (Kingma & Ba, arXiv 1412.6980) with PyTorch's defaults, as one fused kernel over all parameters.

    Elementwise, so runs never mix. Nothing is read back to the host. `state()` gives the tensors to save: where
    `shapes` are given (of parameters that are `padded`), the parts of these shapes.
    """

    def __init__(
        self,
        parameters: Parameters,
        learning_rate: float,
        weight_decay: float = 0.0,
        shapes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.parameters = parameters
        self.shapes = [p.shape for p in parameters] if shapes is None else shapes
        self.learning_rate: float | Tensor = learning_rate
        self.weight_decay = weight_decay  # L2 within the gradient, not AdamW's
        self.mean = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.square = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        # The fused kernel wants a step count per tensor, on the tensors' device.
        self.count = [torch.zeros((), dtype=torch.float32, device=p.device) for p in parameters]

    def minimise(self, loss: Tensor) -> None:
        """One step down the gradient of a scalar loss (a sum over runs)."""
        self.step(torch.autograd.grad(loss, self.parameters))

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        """One step with the given gradients, shaped as the parameters."""
        torch._foreach_add_(self.count, 1.0)
        torch._fused_adam_(
            self.parameters,
            [grad.contiguous() for grad in grads],  # the CPU kernel walks memory and ignores strides
            self.mean,
            self.square,
            [],
            self.count,
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self.weight_decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        return {
            f"{kind}.{index}": tensor
            for kind, tensors in (
                ("mean", cropped(self.mean, self.shapes)),
                ("square", cropped(self.square, self.shapes)),
                ("count", self.count),
            )
            for index, tensor in enumerate(tensors)
        }


@torch.no_grad()
def polyak(targets: Sequence[Tensor], parameters: Sequence[Tensor], tau: float) -> None:
    """target <- target + tau (parameter - target), in place."""
    torch._foreach_lerp_(list(targets), list(parameters), tau)
