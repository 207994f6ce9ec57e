"""The state values of O-DICE with their derivatives written out: Linear (-> LayerNorm) -> ReLU -> ... -> Linear.

A value is one number a row, so any gradient of a batch is a sum over rows of (cotangent) x (the row's own derivative).
`differentiate` propagates the derivatives back once, with cotangent 1; each gradient is then one `pull_back`, a matrix
product a layer. Autograd would propagate anew for each.

G = runs * heads members lie in one matrix (G, P), a member a row: the optimiser, the slow copy and inner products over
all parameters are single operations. A member's parameters are views [W, b, (gain, shift,) ..., W, b], shaped
(G, in, out) and (G, 1, out).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from offline_rl.networks import Parameters

__all__ = ["LayerRows", "differentiate", "evaluate", "pack", "pull_back", "unpack"]

ALIGN = 16  # numbers: every tensor starts on a cache line
NORM_EPS = 1e-5


def pack(parameters: Sequence[Tensor]) -> Tensor:
    """Tensors (G, a, b) -> (G, P), a copy; gaps between them are 0."""
    shapes = [tuple(p.shape[1:]) for p in parameters]
    flat = parameters[0].detach().new_zeros((len(parameters[0]), sum(_room(shape) for shape in shapes)))
    for view, parameter in zip(unpack(flat, shapes), parameters, strict=True):
        view.copy_(parameter.detach())
    return flat


def unpack(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> Parameters:
    """(..., P) -> views (..., a, b), one a shape (a, b)."""
    views, start = [], 0
    for shape in shapes:
        views.append(flat[..., start : start + shape[0] * shape[1]].view(*flat.shape[:-1], *shape))
        start += _room(shape)
    return views


def _room(shape: tuple[int, ...]) -> int:
    return -(-shape[0] * shape[1] // ALIGN) * ALIGN


class LayerRows(NamedTuple):
    """One layer at every row. `x` (G, N, in) and `delta` (G, N, out): its weight's derivative is their outer product.
    `vectors` (G, N, n) each: the derivatives by the other parameters (the output layer's weight is such a vector)."""

    x: Tensor | None
    delta: Tensor | None
    vectors: tuple[Tensor, ...]


class _Trace(NamedTuple):
    """A hidden layer's way forward: input, output, and with LayerNorm (normalised, 1 / std)."""

    x: Tensor
    out: Tensor
    norm: tuple[Tensor, ...]


def evaluate(x: Tensor, parameters: Sequence[Tensor], layer_norm: bool) -> Tensor:
    """V of every member: x (G, N, in) -> (G, N)."""
    return _forward(x, parameters, layer_norm)[0]


def _forward(x: Tensor, parameters: Sequence[Tensor], layer_norm: bool) -> tuple[Tensor, list[_Trace], Tensor]:
    """V (G, N), the hidden layers' traces and the last one's output."""
    traces = []
    for i in range(0, len(parameters) - 2, 4 if layer_norm else 2):
        weight, bias = parameters[i : i + 2]
        before = torch.baddbmm(bias, x, weight)
        if layer_norm:
            gain, shift = parameters[i + 2 : i + 4]
            normal, rstd = _normalised(before)
            traces.append(_Trace(x, torch.addcmul(shift, normal, gain).relu_(), (normal, rstd)))
        else:
            traces.append(_Trace(x, before.relu_(), ()))
        x = traces[-1].out
    weight, bias = parameters[-2:]
    return (x * weight.transpose(1, 2)).sum(2) + bias.squeeze(2), traces, x


def _normalised(x: Tensor) -> tuple[Tensor, Tensor]:
    """LayerNorm without gain and shift, in place, and 1 / std (G, N, 1). Faster than the library's on a CPU."""
    x.sub_(x.mean(2, keepdim=True))
    variance = torch.linalg.vector_norm(x, dim=2, keepdim=True).square_().div_(x.shape[2])
    rstd = variance.add_(NORM_EPS).rsqrt_()
    return x.mul_(rstd), rstd


def _before_norm(delta: Tensor, normal: Tensor, rstd: Tensor) -> Tensor:
    """Back through `_normalised`: (delta - mean(delta) - normal mean(delta normal)) / std."""
    zero, one, size = torch.zeros_like(rstd), torch.ones_like(rstd), normal.shape[2:]
    back = torch.ops.aten.native_layer_norm_backward(delta, normal, size, zero, one, None, None, [True, False, False])
    scaled: Tensor = back[0].mul_(rstd)
    return scaled


def differentiate(x: Tensor, parameters: Sequence[Tensor], layer_norm: bool) -> tuple[Tensor, list[LayerRows]]:
    """V (G, N) of rows x (G, N, in), and its derivatives layer by layer, each row's own."""
    value, traces, last = _forward(x, parameters, layer_norm)
    layers = [LayerRows(None, None, (last, torch.ones_like(value).unsqueeze(2)))]
    grad = parameters[-2].transpose(1, 2).expand_as(last)
    first = range(0, len(parameters) - 2, 4 if layer_norm else 2)
    for trace, i in zip(reversed(traces), reversed(first), strict=True):
        delta = torch.ops.aten.threshold_backward(grad, trace.out, 0)
        vectors: tuple[Tensor, ...] = (delta,)
        if layer_norm:
            normal, rstd = trace.norm
            shift, delta = delta, _before_norm(delta * parameters[i + 2], normal, rstd)
            vectors = (delta, normal.mul_(shift), shift)  # in place: nobody else holds the normalised rows
        layers.append(LayerRows(trace.x, delta, vectors))
        if i > 0:
            grad = torch.bmm(delta, parameters[i].transpose(1, 2))
    return value, layers[::-1]


def pull_back(layers: Sequence[LayerRows], cotangents: Tensor, spans: Sequence[slice], out: Sequence[Tensor]) -> None:
    """Write the gradients of sum(cotangent * V) over rows, one a cotangent.

    Args:
        layers: from `differentiate`.
        cotangents: (K, G, N), one number a row, 0 outside the cotangent's span.
        spans: K, the rows to sum over.
        out: views (K, G, a, b), one a parameter; every entry is overwritten.
    """
    places = iter(out)
    mixed = cotangents.transpose(0, 1).contiguous()
    for x, delta, vectors in layers:
        if x is not None and delta is not None:
            for gradient, cotangent, rows in zip(next(places), cotangents, spans, strict=True):
                scaled = delta[:, rows] * cotangent[:, rows].unsqueeze(2)
                torch.bmm(x[:, rows].transpose(1, 2), scaled, out=gradient)
        for vector in vectors:
            place = next(places)
            place.copy_(torch.bmm(mixed, vector).transpose(0, 1).view_as(place))
