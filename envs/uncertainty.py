"""What nature may do to the laws of an MDP, and the worst that it does: the primal side of robust MDPs.

Each law moves on its own, within a radius of its nominal one ("constrained") or at a price ("regularised"). The
divergences are TV(nu || mu) = 1/2 sum |nu - mu|, which may leave the support of mu, KL(nu || mu) = sum nu log(nu / mu)
and chi2(nu || mu) = sum (nu - mu)^2 / mu (no 1/2), which may not. Models: arXiv 2510.14246, 2402.15399, 2411.18612.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from envs import worst_cases
from orbs import reject

__all__ = ["DIVERGENCES", "FORMS", "Laws", "Uncertainty", "divergence_of"]

Divergence = Literal["tv", "kl", "chi2"]
Form = Literal["constrained", "regularised"]
DIVERGENCES = ("tv", "kl", "chi2")
FORMS = ("constrained", "regularised")

FEW_STATES = 64  # below, a law's zeros cost less than looking for them
PART = 1 << 16  # weights in a part of the compressed laws: what a core's cache holds
MOST = 1 << 22  # numbers in a temporary array


class _Part(NamedTuple):
    """Some laws, as columns of weights on points; the points are all states where `where` is None."""

    rows: Tensor | slice
    where: Tensor | None  # (n, f) the states
    weights: Tensor  # (n, f)


class Laws:
    """(F, S) laws made ready for `Uncertainty`: rows that sum to 1, each as its support alone where that is small.

    Args:
        laws: (F, S), at least 0, rows that sum to 1.
    """

    def __init__(self, laws: Tensor) -> None:
        self.laws = laws.clamp_min(0.0) / laws.clamp_min(0.0).sum(-1, keepdim=True)
        self.factors, self.states = laws.shape
        self.alike = self._distinct() if self.states > FEW_STATES else None

    def _distinct(self) -> tuple[Laws, Tensor] | None:
        """The different laws, and which one each is; None where few are alike. Of use where all have one level."""
        seen: dict[bytes, int] = {}
        which = [seen.setdefault(law.tobytes(), len(seen)) for law in self.laws.cpu().numpy()]
        if 2 * len(seen) > self.factors:
            return None
        inverse = torch.tensor(which, device=self.laws.device)
        different = self.laws.new_empty(len(seen), self.states)
        different[inverse] = self.laws
        return Laws(different), inverse

    def mean(self, values: Tensor) -> Tensor:
        """(..., F) the nominal mean of values (..., S)."""
        if self.alike is None:
            return values @ self.laws.mT
        different, inverse = self.alike
        return (values @ different.laws.mT)[..., inverse]

    @functools.cached_property
    def _parts(self) -> list[_Part]:
        found = self._compressed() if self.states > FEW_STATES else None
        return [_Part(slice(0, self.factors), None, self.laws.mT.contiguous())] if found is None else found

    def _compressed(self) -> list[_Part] | None:
        """Laws of like support together, so that few points are padding; None where most states have weight."""
        counts = (self.laws > 0).sum(1)
        if 2 * int(counts.sum()) > self.laws.numel():
            return None
        order, sizes = counts.argsort(), counts.sort()[0].tolist()
        parts, done = [], 0
        while done < self.factors:
            end = done + 1
            while end < self.factors and (end + 1 - done) * sizes[end] <= PART:
                end += 1
            rows = order[done:end]
            weights, where = self.laws[rows].topk(sizes[end - 1], dim=-1)  # padded by points without weight
            parts.append(_Part(rows, where.mT.contiguous(), weights.mT.contiguous()))
            done = end
        return parts

    def parts(self, copies: int) -> Iterator[_Part]:
        """The laws part by part, so small that `copies` of one stay a moderate array."""
        for part in self._parts:
            points, columns = part.weights.shape
            width = max(1, MOST // max(1, copies * points))
            if width >= columns:
                yield part
                continue
            for first in range(0, columns, width):
                some = slice(first, min(first + width, columns))
                rows = some if isinstance(part.rows, slice) else part.rows[some]
                where = None if part.where is None else part.where[:, some]
                yield _Part(rows, where, part.weights[:, some])


@dataclasses.dataclass(frozen=True, eq=False)
class Uncertainty:
    """The set of laws that nature picks from, or the price that it pays.

    Attributes:
        divergence: "tv", "kl" or "chi2".
        form: "constrained": the laws nu with D(nu || mu) <= level; "regularised": all, at a price level * D(nu || mu).
        level: radius, at least 0, or weight, above 0: a number, (F,) one a law, (H, 1) one a step, or (H, F).

    Raises:
        ValueError: an unknown word, a level that is negative, no number, or (regularised) 0.
    """

    divergence: Divergence
    form: Form
    level: Any

    def __post_init__(self) -> None:
        for field, known in (("divergence", DIVERGENCES), ("form", FORMS)):
            value = getattr(self, field)
            if value not in known:
                reject(f"Uncertainty.{field}", " or ".join(map(repr, known)), repr(value), "choose one of them")
        try:
            level = torch.as_tensor(self.level, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            reject("Uncertainty.level", "a number, or numbers", repr(self.level), "e.g. 0.1")
        if level.ndim > 2 or level.numel() == 0:
            given = f"shape {tuple(level.shape)}"
            reject("Uncertainty.level", "a number, (F,), (H, 1) or (H, F)", given, "give one a law, a step or both")
        wanted = "finite radii of at least 0" if self.form == "constrained" else "finite weights above 0"
        if not bool(torch.isfinite(level).all()):
            reject("Uncertainty.level", wanted, level.tolist(), "give such numbers")
        least = float(level.min())
        if self.form == "constrained" and not least >= 0:
            reject("Uncertainty.level", "finite radii of at least 0", f"{least:g}", "give such a radius")
        if self.form == "regularised" and not least > 0:
            reject("Uncertainty.level", "finite weights above 0", f"{least:g}", "give such a weight")
        object.__setattr__(self, "level", level)

    def to(self, device: torch.device | str) -> Uncertainty:
        """The same on another device."""
        return dataclasses.replace(self, level=self.level.to(device))

    def check(self, steps: int, factors: int) -> None:
        """Raise ValueError unless the levels fit a model of `steps` steps and `factors` laws."""
        shape = tuple(self.level.shape)
        fits = shape in ((), (factors,)) if self.level.ndim < 2 else shape in ((steps, 1), (steps, factors))
        if not fits:
            wanted = f"a number or shape ({factors},), ({steps}, 1) or ({steps}, {factors}), as the model has"
            reject("Uncertainty.level", wanted, f"shape {shape}", "give a level a law, a step or both")

    def level_at(self, step: int) -> Tensor:
        """(), (1,) or (F,) of a step."""
        level: Tensor = self.level
        return level[step] if level.ndim == 2 else level

    def levels(self, steps: int, factors: int) -> Tensor:
        """(H, F) all of them."""
        self.check(steps, factors)
        level: Tensor = self.level
        return level.expand(steps, factors).clone()

    def worst(self, values: Tensor, laws: Tensor | Laws, step: int = 0) -> Tensor:
        """(..., F) the least mean of the next state's value, the price of the divergence included where it has one.

        Args:
            values: (..., S) of the next states; laws: (F, S), or made ready as `Laws`; step: whose level to take.
        """
        return self._solve(values, laws, step)[0]

    def _solve(self, values: Tensor, laws: Tensor | Laws, step: int) -> tuple[Tensor, Tensor]:
        """The values (..., F), and of KL and chi2 what gives the worst law: the tilt t, and a of (a - V)_+."""
        ready = laws if isinstance(laws, Laws) else Laws(laws)
        level = self.level_at(step).to(values.device)
        if values.shape[-1] != ready.states:
            wanted, given = f"shape (..., {ready.states}), a value a state", f"shape {tuple(values.shape)}"
            reject("values", wanted, given, "align values and laws")
        if level.numel() not in (1, ready.factors):
            wanted = f"a number, or {ready.factors}, one a law"
            reject("Uncertainty.level", wanted, f"{level.numel()}", "give a level a law")
        if ready.alike is not None and level.numel() == 1:
            different, inverse = ready.alike
            value, how = self._solve(values, different, step)
            return value[..., inverse], how[..., inverse]
        copies = max(1, values.numel() // values.shape[-1])
        whole: tuple[Tensor, Tensor] | None = None
        for part in ready.parts(copies):
            its = level[part.rows] if level.ndim and len(level) > 1 else level
            found = self._of_part(values, part, its)
            if part.weights.shape[1] == ready.factors and isinstance(part.rows, slice):
                return found
            if whole is None:
                shape = *values.shape[:-1], ready.factors
                whole = values.new_empty(shape), values.new_empty(shape)
            for full, some in zip(whole, found, strict=True):
                full[..., part.rows] = some
        assert whole is not None
        return whole

    def _of_part(self, values: Tensor, part: _Part, level: Tensor) -> tuple[Tensor, Tensor]:
        weights, where = part.weights, part.where
        constrained = self.form == "constrained"
        if self.divergence == "chi2" or (self.divergence == "tv" and constrained):
            descending = self.divergence == "tv"
            if where is None:
                ordered, order = values.sort(dim=-1, descending=descending)
                points, weights = ordered.unsqueeze(-1), weights[order]
            else:
                points, order = values[..., where].sort(dim=-2, descending=descending)
                weights = weights.expand_as(points).gather(-2, order)
            if descending:
                floor = None if where is None else values.amin(-1, keepdim=True)
                found = worst_cases.tv_constrained(points, weights, level, floor)
                return found, found
            if constrained:
                return worst_cases.chi2_constrained(points, weights, level)
            return worst_cases.chi2_regularised(points, weights, level)
        points = values.unsqueeze(-1) if where is None else values[..., where]
        if self.divergence == "tv":
            found = worst_cases.tv_regularised(points, weights, level, values.amin(-1, keepdim=True))
            return found, found
        if constrained:
            return worst_cases.kl_constrained(points, weights, level)
        least = worst_cases.support_least(points, weights)
        return -worst_cases.log_mean_exp(-points, weights, level, -least), (1.0 / level).expand_as(least)

    def worst_laws(self, values: Tensor, laws: Tensor | Laws, step: int = 0) -> Tensor:
        """(..., F, S) laws that attain `worst`.

        TV moves mass from the top to the first least state; KL tilts by exp(-t V), chi2 by (a - V)_+. See `worst`.
        """
        ready = laws if isinstance(laws, Laws) else Laws(laws)
        if self.divergence == "tv":
            return self._moved(values, ready, self.level_at(step).to(values.device))
        tilt = self._solve(values, ready, step)[1].unsqueeze(-1)
        least = torch.where(ready.laws > 0, values.unsqueeze(-2), torch.inf).amin(-1, keepdim=True)
        above = (values.unsqueeze(-2) - least).clamp_min(0.0)
        linear = self.divergence == "chi2"
        shape = (1.0 - above / (tilt - least)).clamp_min(0.0) if linear else torch.exp(-tilt * above)
        tilted = ready.laws * torch.where(above > 0, shape, 1.0)  # at the least value 1, be the tilt infinite
        return tilted / tilted.sum(-1, keepdim=True)

    def _moved(self, values: Tensor, ready: Laws, level: Tensor) -> Tensor:
        level = level.unsqueeze(-1) if level.ndim else level
        if self.form == "regularised":
            stays = values.unsqueeze(-2) <= values.amin(-1)[..., None, None] + level
            kept = ready.laws * stays
        else:
            order = values.argsort(dim=-1, descending=True)
            summed = ready.laws[:, order].movedim(0, -2).cumsum(-1)
            left = torch.diff(
                (summed - level).clamp_min(0.0), dim=-1, prepend=summed.new_zeros(()).expand_as(summed[..., :1])
            )
            kept = torch.zeros_like(left).scatter(-1, order.unsqueeze(-2).expand_as(left), left)
        to = torch.nn.functional.one_hot(values.argmin(-1), values.shape[-1]).unsqueeze(-2)
        return kept + (1.0 - kept.sum(-1, keepdim=True)) * to

    def price(self, chosen: Tensor, laws: Tensor, step: int = 0) -> Tensor:
        """(..., F) what nature pays for the laws `chosen` (..., F, S) in place of `laws` (F, S): 0 if constrained."""
        if self.form == "constrained":
            return torch.zeros_like(chosen[..., 0])
        return self.level_at(step).to(chosen.device) * divergence_of(self.divergence, chosen, laws)


def divergence_of(name: Divergence, chosen: Tensor, laws: Tensor) -> Tensor:
    """(..., F) D(chosen || laws) of laws (..., F, S); inf where KL or chi2 leaves the support."""
    if name == "tv":
        return 0.5 * (chosen - laws).abs().sum(-1)
    outside = ((laws <= 0) & (chosen > 0)).any(-1)
    ratio = torch.where(laws > 0, chosen / laws, 1.0)
    found = torch.xlogy(chosen, ratio).sum(-1) if name == "kl" else (laws * (ratio - 1.0).square()).sum(-1)
    return found.masked_fill(outside, torch.inf)
