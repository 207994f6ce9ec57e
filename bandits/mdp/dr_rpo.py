"""DR-RPO: robust policy optimisation near a reference policy, with linear features (arXiv:2510.14246), and DR-LSVI-UCB.

Every episode plans anew, backwards: the worst-case mean of V_{h+1} for each factor by a dual at the weights of ridge
regression (`bandits.mdp.duals`), an optimistic Q_h, and the softmax policy pi_h ~ reference e^(Q_h / temperature), for
which V_h = temperature log sum reference e^(Q_h / temperature). At temperature 0 it is DR-LSVI-UCB (2402.15399).

Deliberate differences: Q is also clipped below, at 0; ties at temperature 0 are broken at random, because a learner
whose Q are all at their cap looks robust where action 0 happens to be; a radius of 0 is the plain regression;
KL takes projected weights. That the paper's policy step is this closed form, rather than the proximal one
of `step_size`, is our reading. Practice: beta 1, ridge 0.1; the theorems' beta is `transition_model.theory_beta`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from bandits.arm_learner import Draws
from bandits.mdp import duals
from bandits.mdp.base import PolicyLearner
from bandits.mdp.transition_model import TransitionModel, diagonal_bonus, elliptical_bonus, mix, script_bonus
from orbs import Feedback, reject

__all__ = ["Bonus", "DRLSVIUCB", "DRRPO", "TIE"]

Bonus: TypeAlias = Literal["paper", "script", "elliptical"]

BONUSES = ("paper", "script", "elliptical")
TIE = 1e-10  # values nearer than this are equal
COLDEST = 1e-300  # a temperature whose inverse is finite
DOUBLED = math.log(2.0) * (1 - 1e-12)


class DRRPO(PolicyLearner):
    """Distributionally robust, reference-regularised policy optimisation.

    Args:
        features: (S, A, d), (H, S, A, d) or (R, H, S, A, d); with a set, or the bonus "paper", at least 0 with sums of
            at most 1 (1 in the theorems).
        steps: H.
        rewards: (H or 1, S, A) or (R, H or 1, S, A) where known; None: regressed on the features.
        divergence: "tv", "kl", "chi2"; None for the learner that is not robust.
        form: "constrained" or "regularised".
        level: broadcasts to (H, d): the radii (at least 0) or the weight of the divergence (above 0).
        temperature: of the policy, above 0.
        reference: (S, A) or (H, S, A), positive, rows of sum 1; None: uniform.
        beta: the bonus's factor, at least 0.
        bonus: "paper", sum_i phi_i sqrt((Lambda^-1)_ii); "script", of the authors' code, sqrt(sum_i phi_i^2
            (Lambda^-1)_ii); "elliptical", sqrt(phi^T Lambda^-1 phi).
        ridge: what Lambda starts from, above 0.
        weights: "signed", "projected" (see `duals.worst_case`), or "auto": projected for KL, else signed.
        eps: c of signed KL's floor c sqrt((Lambda^-1)_ii) of E e^(-V/b); 0: none.
        kl_center, exact_zero_radius: see `duals.worst_case`.
        fail: states whose value is known to be 0.
        value_cap: (H, S, A), the largest Q, inf where it has none; None: H - h. The ranges of values that the duals of
            KL need are the largest finite ones.
        step_size: of the proximal step pi ~ argmax <Q, pi> - temperature KL(pi || reference) - KL(pi || pi_old) /
            step_size; None: the exact step.
        switching: plan only after some det Lambda_h has doubled, at most d H log2(1 + K / (ridge d)) + 1 times.
        regress: regress known rewards too, but for pairs whose features are all 0: no regression tells what those pay.
        runs, seed, device: see `PolicyLearner`.

    Raises:
        ValueError: a value out of its range, a shape that does not fit.
    """

    _sign = 1.0  # of the bonus: optimism
    _greedy = False  # whether the temperature may be 0

    def __init__(
        self,
        features: Tensor,
        steps: int,
        rewards: Tensor | None = None,
        divergence: duals.Divergence | None = "tv",
        form: duals.Form = "constrained",
        level: Tensor | float = 0.5,
        temperature: float = 0.05,
        reference: Tensor | None = None,
        beta: float = 1.0,
        bonus: Bonus = "paper",
        ridge: float = 0.1,
        weights: Literal["auto", "signed", "projected"] = "auto",
        eps: float = 0.0,
        kl_center: bool = True,
        exact_zero_radius: bool = True,
        fail: Sequence[int] = (),
        value_cap: Tensor | None = None,
        step_size: float | None = None,
        switching: bool = False,
        regress: bool = False,
        runs: int | Sequence[int] = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(features, Tensor) or features.ndim not in (3, 4, 5) or not features.shape[-1]:
            reject("features", "shape (S, A, d), (H, S, A, d) or (R, H, S, A, d)", f"{features!r:.80}", "give a tensor")
        super().__init__(int(features.shape[-3]), int(features.shape[-2]), steps, runs, seed, device)
        table = self._table(features, "features")
        if divergence is not None or bonus == "paper":
            # Worst cases a coordinate, and bonuses added up along them, are bounds for mixtures alone.
            lowest, total = float(table.min()), float(table.sum(-1).max())
            if lowest < -1e-9 or total > 1 + 1e-6:
                found = f"an entry of {lowest:g}" if lowest < -1e-9 else f"a sum of {total:g}"
                reject("features", "rows of the simplex (at least 0, sum at most 1)", found, "scale them")
        known = None
        if rewards is not None:
            known = self._table(torch.as_tensor(rewards).unsqueeze(-1), "rewards").flatten(2)
        for name, value, least in (("temperature", temperature, 0.0), ("beta", beta, 0.0), ("eps", eps, 0.0)):
            _range(name, value, least)
        if temperature == 0 and not self._greedy:
            fix = "take DRLSVIUCB, which is greedy, or give one"
            reject("temperature", "a finite number above 0", temperature, fix)
        if 0 < temperature < COLDEST:
            reject("temperature", f"at least {COLDEST:g}", temperature, "take DRLSVIUCB, which is greedy")
        _range("ridge", ridge, None)
        if step_size is not None:
            _range("step_size", step_size, None)
        for name, word, words in (("bonus", bonus, BONUSES), ("weights", weights, ("auto", "signed", "projected")),
                                  ("divergence", divergence, (*duals.DIVERGENCES, None)),
                                  ("form", form, duals.FORMS)):  # fmt: skip
            if word not in words:
                reject(name, " or ".join(map(repr, words)), repr(word), "choose one of them")
        self.temperature, self.beta, self.bonus, self.eps = float(temperature), float(beta), bonus, float(eps)
        self.step_size, self.switching = step_size, bool(switching)
        self.divergence, self.form = divergence, form
        self.kl_center, self.exact_zero_radius = kl_center, exact_zero_radius
        self.kind: duals.Kind = ("projected" if divergence == "kl" else "signed") if weights == "auto" else weights
        self.model = TransitionModel(table, self.runs, steps, ridge, known is None or regress)
        self._base = torch.zeros(1, 1, 1, dtype=torch.float64, device=self.device) if known is None else known
        if regress:
            self._base = torch.where((self.model.table == 0).all(-1), self._base, 0.0)
        self._cap = self._caps(value_cap, fail)
        finite = torch.where(torch.isfinite(self._cap), self._cap, -1.0).amax(-1)
        if (divergence, self.kind) == ("kl", "signed") and float(finite.min()) < 0:
            fix = "give a finite one for the pairs that go on, or take weights='projected'"
            reject("value_cap", "a finite cap in each step, the range of signed KL", "inf in a whole step", fix)
        most = [float(cap) for cap in finite]
        self._ranges, self._horizon = [max(cap, 1.0) for cap in (*most[1:], 0.0)], max(most)
        self._set_levels(level)
        self.reference = self._checked_reference(reference)
        shape = self.runs, steps, self.states, self.actions
        near = self.uniform()[0] if self.reference is None else self.reference
        self._near = near.log().expand(steps, self.states, self.actions)
        self._draws = Draws(self.philox, "dr-rpo/ties", steps * self.states)
        self._plain_zero = kl_center or divergence != "kl" or form != "regularised"  # V = 0 has worst-case mean 0
        self._kept: Tensor | None = None  # the last policy, or its logarithm, where the next needs it
        self._due = torch.ones(self.runs, dtype=torch.bool, device=self.device)
        if step_size is not None:
            self._kept = self._near.expand(shape).clone()
        elif self.switching:
            self._kept = self.uniform()
        if step_size is not None and self.switching:
            reject("switching", "False with a step_size", "True", "the proximal step moves in every episode")
        self._fresh: Tensor | None = None

    # Arguments.

    def _table(self, given: Tensor, name: str) -> Tensor:
        """(1|R, 1|H, S, A, n), checked."""
        table = torch.as_tensor(given, dtype=torch.float64).to(self.device)
        table = table.view(*(1,) * (5 - table.ndim), *table.shape) if table.ndim <= 5 else table
        fits = table.ndim == 5 and len(table) in (1, self.runs) and table.shape[1] in (1, self.steps)
        if not (fits and table.shape[2:4] == (self.states, self.actions)):
            wanted = f"({self.runs} runs, {self.steps} steps, {self.states} states, {self.actions} actions, ...)"
            reject(name, f"the last axes of {wanted}", f"shape {tuple(given.shape)}", "align it with the problem")
        if not bool(torch.isfinite(table).all()):
            reject(name, "finite numbers", "a NaN or inf", "mend them")
        return table

    def _caps(self, given: Tensor | None, fail: Sequence[int]) -> Tensor:
        """(H, S A) the largest Q; 0 in the states that are known to be worth nothing."""
        cap = self.steps - torch.arange(self.steps, dtype=torch.float64, device=self.device).view(-1, 1, 1)
        if given is not None:
            cap = torch.as_tensor(given, dtype=torch.float64).to(self.device)
            wanted = f"numbers of at least 0, shape {(self.steps, self.states, self.actions)}"
            if cap.shape != (self.steps, self.states, self.actions):
                reject("value_cap", wanted, f"shape {tuple(cap.shape)}", "give the largest Q")
            if not bool((cap >= 0).all()):
                reject("value_cap", wanted, f"one of {float(cap.min()):g}", "give the largest Q")
        cap = cap.expand(self.steps, self.states, self.actions).clone()
        for state in fail:
            if not isinstance(state, int) or not 0 <= state < self.states:
                reject("fail", f"states 0 to {self.states - 1}", state, "name states of the problem")
            cap[:, state] = 0.0
        return cap.flatten(1)

    def _set_levels(self, level: Tensor | float) -> None:
        d = self.model.dimension
        try:
            levels = torch.as_tensor(level, dtype=torch.float64).to(self.device)
        except (TypeError, ValueError, RuntimeError):
            reject("level", f"a number, or shape ({self.steps}, {d})", repr(level), "e.g. 0.5")
        try:
            levels = levels.expand(self.steps, d).clone()
        except RuntimeError:
            reject("level", f"a number, or shape ({self.steps}, {d})", f"shape {tuple(levels.shape)}", "align it")
        constrained = self.form == "constrained"
        fine = (levels >= 0).all() if constrained else (levels > 0).all()
        if self.divergence is not None and not bool(fine & torch.isfinite(levels).all()):
            wanted = "finite numbers " + ("of at least 0" if constrained else "above 0")
            strange = levels[~torch.isfinite(levels)]
            reject("level", wanted, f"{(strange if len(strange) else levels).min():g}", "e.g. 0.5")
        if (self.divergence, self.form, self.kind) == ("kl", "regularised", "signed"):
            least = self._horizon / 30
            if bool((levels < least * (1 - 1e-12)).any()):
                fix = "raise it, or take weights='projected'"
                reject("level", f"at least {least:g}: e^(horizon/level) is noise", f"{levels.min():g}", fix)
        self.levels = levels
        # Steps that nature cannot touch need no dual.
        still = constrained and self.exact_zero_radius
        self._robust = [self.divergence is not None and not (still and bool((row == 0).all())) for row in levels]

    def _checked_reference(self, given: Tensor | None) -> Tensor | None:
        if given is None:
            return None
        table = torch.as_tensor(given, dtype=torch.float64).to(self.device)
        if table.shape not in ((self.states, self.actions), (self.steps, self.states, self.actions)):
            wanted = f"shape ({self.states}, {self.actions}), or that for each step"
            reject("reference", wanted, f"shape {tuple(table.shape)}", "give a policy")
        if not bool((table > 0).all()) or float((table.sum(-1) - 1).abs().max()) > 1e-9:
            found = f"a least chance of {float(table.min()):g}, sums from {float(table.sum(-1).min()):g}"
            reject("reference", "chances above 0 of sum 1", found, "give every action a chance, e.g. 1e-14")
        return table

    # Planning.

    def _worst(self, step: int, values: Tensor, weights: Tensor, width: Tensor | None) -> Tensor:
        """(R, d) the worst-case means of V_{h+1} (R, S) at the weights (R, d, S) of step h; width (R, H, d)."""
        if not self._robust[step] or self.divergence is None:
            return duals.plain(values, duals.project(weights)[0] if self.kind == "projected" else weights)
        floor = None if not self.eps or width is None else (self.eps * width[:, step]).clamp_max(1.0)
        return duals.worst_case(
            values, weights, self.divergence, self.form, self.levels[step], kind=self.kind, cap=self._ranges[step],
            horizon=self._horizon, floor=floor, kl_center=self.kl_center, exact_zero_radius=self.exact_zero_radius,
        )  # fmt: skip

    def _sweep(self) -> tuple[Tensor, Tensor, Tensor]:
        """Q (R, H, S, A), V (R, H + 1, S), of which V_H = 0, and what `_value` made of the policy."""
        model, runs, steps = self.model, self.runs, self.steps
        scale = self._sign * self.beta
        width = diagonal_bonus(model.inverse) if self.bonus == "paper" or self.eps else None
        base, each = self._base, None if model.pays is None else model.pay_weights()
        if self.bonus == "paper":
            assert width is not None
            each = scale * width if each is None else each + scale * width
        elif self.bonus == "script":
            base = base + scale * script_bonus(model.table, model.inverse)
        else:
            base = base + scale * elliptical_bonus(model.table, model.inverse)
        if each is not None:
            base = base + mix(model.table, each)
        base, weights = base.expand(-1, steps, -1), model.weights()
        shape = runs, steps, self.states, self.actions
        q, policy = (torch.empty(shape, dtype=torch.float64, device=self.device) for _ in range(2))
        v = torch.zeros(runs, steps + 1, self.states, dtype=torch.float64, device=self.device)
        for h in range(steps - 1, -1, -1):
            found = base[:, h]
            if h < steps - 1 or not self._plain_zero:
                nu = self._worst(h, v[:, h + 1], weights[:, h], width)
                table = model.table[:, h if model.table.shape[1] > 1 else 0]
                found = found + (nu @ table[0].mT if len(table) == 1 else (table @ nu.unsqueeze(-1)).squeeze(-1))
            one = torch.minimum(found, self._cap[h]).clamp_min_(0.0).view(-1, *shape[2:])
            q[:, h] = one
            v[:, h] = self._value(h, one, policy[:, h])
        return q, v, policy

    def _value(self, step: int, q: Tensor, policy: Tensor) -> Tensor:
        """(R, S) V of a step from Q (R, S, A); writes to `policy` the softmax, or the logarithm of the proximal one."""
        tau = self.temperature
        if self.step_size is not None:
            logs = self._proximal(q, step)
            policy.copy_(logs)
            gain = q if tau == 0 else q - tau * (logs - self._near[step])
            return (logs.exp() * gain).sum(-1)
        if tau == 0:
            return q.amax(-1)
        logs = q * (1.0 / tau) + self._near[step]
        most = logs.amax(-1, keepdim=True)
        powers = logs.sub_(most).exp_()
        total = powers.sum(-1, keepdim=True)
        torch.div(powers, total, out=policy)
        return tau * (most + total.log_()).squeeze(-1)

    def _proximal(self, q: Tensor, step: int) -> Tensor:
        """(R, S, A) the logarithm of the proximal step's policy."""
        assert self.step_size is not None
        assert self._kept is not None
        moved = self._kept[:, step] + self.step_size * q
        pull = self.step_size * self.temperature
        if pull:
            moved = (moved + pull * self._near[step]) / (1.0 + pull)
        return moved.log_softmax(-1)

    def _best(self, round: int) -> Tensor:
        """(R, H, S, A) the policy of what is known, exact step; ties are broken by the numbers of a round."""
        q, _, policy = self._sweep()
        if self.temperature > 0:
            return policy
        ties = q >= q.amax(-1, keepdim=True) - TIE
        rank = ties.cumsum(-1)
        u = self._draws(round).reshape(self.runs, self.steps, self.states, 1)
        picked = 1 + (u * rank[..., -1:]).long()
        return (ties & (rank == picked)).double()

    def _plan(self) -> Tensor:
        if self.step_size is not None:
            self._fresh = self._sweep()[2]
            return self._fresh.exp()
        if not self.switching:
            return self._best(self.rounds)
        assert self._kept is not None
        # On a device that must not wait, all plan and those that are not due keep what they have.
        if self.device.type == "cpu" and not bool(self._due.any()):
            return self._kept.clone()
        return torch.where(self._due.view(-1, 1, 1, 1), self._best(self.rounds), self._kept)

    def estimate(self) -> tuple[Tensor, Tensor]:
        """Q (R, H, S, A) and V (R, H + 1, S) as planned from what is known now: upper bounds, if all goes well."""
        q, v, _ = self._sweep()
        return q, v

    def _take(self, policy: Tensor, states: Tensor, actions: Tensor, rewards: Tensor, feedback: Feedback) -> None:
        if self._kept is not None:
            own = self.act()
            self._kept.copy_(own if self._fresh is None else self._fresh)
            self._fresh = None
        if self.switching:
            self.model.growth.masked_fill_(self._due.unsqueeze(-1), 0.0)
        self.model.learn(states, actions, rewards, self.rounds)
        if self.switching:
            self._due = (self.model.growth >= DOUBLED).any(-1)

    def _tensors(self) -> dict[str, Tensor]:
        kept = {} if self._kept is None else {"kept": self._kept}
        return {**self.model.tensors(), **kept}

    def _loaded(self) -> None:
        super()._loaded()
        self._fresh = None
        self._due = (self.model.growth >= DOUBLED).any(-1)
        if self.rounds == 0:
            self._due = torch.ones_like(self._due)


def _range(name: str, value: float, least: float | None) -> None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or (value <= 0 if least is None else value < least):
        reject(name, "a finite number " + ("above 0" if least is None else f"of at least {least:g}"), value, "mend it")


class DRLSVIUCB(DRRPO):
    """DR-LSVI-UCB: DR-RPO at temperature 0, greedy with ties broken at random."""

    _greedy = True

    def __init__(self, features: Tensor, steps: int, rewards: Tensor | None = None, **arguments: object) -> None:
        super().__init__(features, steps, rewards, **{"temperature": 0.0, **arguments})  # type: ignore[arg-type]
