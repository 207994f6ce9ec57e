"""Strong duality: the learners' duals at a law equal the worst means that nature's laws attain."""

import numpy as np
import pytest
import torch

from bandits.mdp.duals import worst_case
from envs.uncertainty import Uncertainty

CASES = [(d, f) for d in ("tv", "kl", "chi2") for f in ("constrained", "regularised")]


@pytest.mark.parametrize("kind", ["signed", "projected"])
@pytest.mark.parametrize(("divergence", "form"), CASES, ids=str)
def test_duals_of_laws_are_natures_values(divergence, form, kind):
    if (divergence, form, kind) == ("kl", "constrained", "signed"):
        pytest.skip("its search is a definition of its own: a grid over an interval")
    rng = np.random.default_rng(7)
    for case in range(60):
        states, factors = int(rng.integers(2, 9)), int(rng.integers(1, 5))
        values = torch.as_tensor(rng.uniform(0, 3, (4, states)))
        if case % 3 == 0:
            values = values.round()  # ties
        laws = rng.dirichlet(np.full(states, 0.5), factors)
        if case % 4 == 0:
            laws[:, 0] = 0.0
            laws /= laws.sum(-1, keepdims=True)
        # Signed weights have no digits left of exp(-V / level) where that is rounding.
        small = 0.5 if (divergence, form, kind) == ("kl", "regularised", "signed") else 0.01
        level = torch.as_tensor(rng.choice([0.01, 0.1, 0.5, 2.0], factors)).clamp_min(small)
        laws = torch.as_tensor(laws)
        nature = Uncertainty(divergence, form, level).worst(values, laws)
        weights = laws.expand(4, -1, -1)
        found = worst_case(values, weights, divergence, form, level, kind=kind, cap=3.0, horizon=4.0)
        # A square root of a difference that is clipped at 0 keeps half the digits.
        close = 1e-7 if (divergence, kind) == ("chi2", "signed") else 1e-8
        torch.testing.assert_close(found, nature, rtol=0, atol=close)
