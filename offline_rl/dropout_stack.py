"""Perceptrons with dropout and LayerNorm, and a runs axis: (Linear, Dropout, LayerNorm, ReLU) a hidden layer, Linear.

The trunk of STAC's critic and actor (arXiv 2601.00737, figures and code). A mask is a function of (seed, run, purpose,
step): nothing to save. One draw a unit would cost more than the network, so the gaps between dropped units are drawn:
geometric numbers, a handful at the usual rates, and the units are exactly independent Bernoulli ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from offline_rl.networks import Parameters, init_mlp, mlp
from orbs import Philox, reject

__all__ = ["Dropout", "draw_masks", "dropout_stack", "init_dropout_stack", "masks_from_gaps", "uniforms_per_mask"]

NORM_EPS = 1e-5
# Uniform numbers are drawn for this many steps at once. Results do not depend on it.
BLOCK = 64


def init_dropout_stack(
    philox: Philox, name: str, sizes: Sequence[int], members: int = 1, dtype: torch.dtype = torch.float32
) -> Parameters:
    """[W, b, gain, shift] a hidden layer, then [W, b]: PyTorch's defaults, U(-1, 1) / sqrt(fan_in), gain 1, shift 0.

    Shapes W (G, in, out), all others (G, 1, out), with G = runs * members, run-major. `sizes`: from input to output.
    """
    plain = init_mlp(philox, name, sizes, members, dtype)
    parameters: Parameters = []
    for weight, bias in zip(plain[:-2:2], plain[1:-2:2], strict=True):
        parameters += [weight, bias, torch.ones_like(bias).requires_grad_(), torch.zeros_like(bias).requires_grad_()]
    return parameters + plain[-2:]


def dropout_stack(
    x: Tensor, parameters: Sequence[Tensor], masks: Sequence[Tensor] | None = None, hidden_only: bool = False
) -> Tensor:
    """x (G, B, in) -> (G, B, out), or with `hidden_only` the last hidden layer, after its ReLU.

    Args:
        parameters: as `init_dropout_stack` gives them.
        masks: one (G, B, width) a hidden layer, 0 or 1 / (1 - p); None: no dropout.
    """
    for layer in range((len(parameters) - 2) // 4):
        weight, bias, gain, shift = parameters[4 * layer : 4 * layer + 4]
        x = mlp(x, [weight, bias])
        if masks is not None:
            x = x * masks[layer]
        x = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=NORM_EPS)
        x = torch.addcmul(shift, x, gain).relu_()
    return x if hidden_only else mlp(x, parameters[-2:])


def uniforms_per_mask(count: int, probability: float) -> int:
    """How many gaps reach past `count` units but with a chance below 1e-14: eight deviations over the mean."""
    mean = count * probability
    return min(count, math.ceil(mean + 8.0 * math.sqrt(mean * (1.0 - probability)) + 8.0))


def masks_from_gaps(uniform: Tensor, count: int, probability: float, dtype: torch.dtype) -> Tensor:
    """(R, count), 0 with the given probability, else 1 / (1 - probability), from uniform (R, K) in (0, 1), float64.

    floor(log u / log(1 - p)) is geometric: how many units are kept before the next one is dropped.
    """
    runs = len(uniform)
    gap = torch.floor(torch.log(uniform) / math.log1p(-probability)).clamp_(max=count).to(torch.int64)
    place = torch.cumsum(gap + 1, 1) - 1
    first = count * torch.arange(runs, device=uniform.device).unsqueeze(1)
    place = torch.where(place < count, place + first, runs * count)  # what lies beyond goes to one slot at the end
    flat = torch.full((runs * count + 1,), 1.0 / (1.0 - probability), dtype=dtype, device=uniform.device)
    return flat.scatter_(0, place.view(-1), 0.0)[:-1].view(runs, count)


def draw_masks(
    philox: Philox,
    purpose: str,
    step: int,
    probability: float,
    widths: Sequence[int],
    rows: int,
    members: int = 1,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor] | None:
    """The masks of one forward pass, (runs * members, rows, width) for each of `widths`; None where probability is 0.

    The same in float32 and float64. Wants one purpose a forward pass.
    """
    if probability == 0.0:
        return None
    uniform = _uniforms(philox, purpose, step, 1, probability, widths, rows * members)[:, 0]
    return _masks(uniform, probability, widths, rows, members, dtype)


def _uniforms(
    philox: Philox, purpose: str, step: int, steps: int, probability: float, widths: Sequence[int], rows: int
) -> Tensor:
    total = sum(uniforms_per_mask(rows * width, probability) for width in widths)
    return philox.uniform(purpose, step, steps, total, torch.float64)


def _masks(
    uniform: Tensor, probability: float, widths: Sequence[int], rows: int, members: int, dtype: torch.dtype
) -> list[Tensor]:
    counts = [members * rows * width for width in widths]
    parts = torch.split(uniform, [uniforms_per_mask(count, probability) for count in counts], dim=1)
    return [
        masks_from_gaps(part, count, probability, dtype).view(-1, rows, width)
        for part, count, width in zip(parts, counts, widths, strict=True)
    ]


class Dropout:
    """The masks of one network, equal to `draw_masks` at the step told last, drawn a block of steps at a time.

    Args:
        philox, probability, widths, members, dtype: as of `draw_masks`.
        name: the first part of every purpose, so each network of a learner needs its own.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(
        self,
        philox: Philox,
        name: str,
        probability: float,
        widths: Sequence[int],
        members: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not 0.0 <= probability < 1.0:
            reject(f"{name}.probability", "a number from 0 to below 1", probability, "e.g. 0.01")
        self.philox, self.name, self.probability = philox, name, probability
        self.widths, self.members, self.dtype = tuple(widths), members, dtype
        self.step = 0
        self._calls: dict[str, int] = {}
        self._drawn: dict[tuple[str, int], tuple[tuple[int, int], Tensor]] = {}

    def begin(self, step: int) -> None:
        """All masks until the next call belong to this step."""
        self.step = step
        self._calls.clear()

    def masks(self, purpose: str, rows: int) -> list[Tensor] | None:
        """Masks for a forward pass of `rows` rows; None where the probability is 0.

        Drawn for the purpose "<name>.<purpose>"; a second pass of that purpose within a step has ".1" after it, and so
        on: each pass has its own masks.
        """
        if self.probability == 0.0:
            return None
        call = self._calls.get(purpose, 0)
        self._calls[purpose] = call + 1
        purpose = f"{self.name}.{purpose}" + (f".{call}" if call else "")
        start, length = self.philox.block(self.step, BLOCK)
        drawn, uniform = self._drawn.get((purpose, rows), (None, None))
        if uniform is None or drawn != (self.philox.epoch, start):
            shape = (self.probability, self.widths, rows * self.members)
            uniform = _uniforms(self.philox, purpose, start, length, *shape)
            self._drawn[purpose, rows] = ((self.philox.epoch, start), uniform)
        part = uniform[:, self.step - start]
        return _masks(part, self.probability, self.widths, rows, self.members, self.dtype)
