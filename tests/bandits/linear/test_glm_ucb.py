"""The maximum of the logistic likelihood that GLM-UCB looks for."""

import torch

from bandits.linear.glm_ucb import logistic_fit


def test_a_maximum_of_the_likelihood():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(9, 3, 6, dtype=torch.float64, generator=generator) * torch.tensor([0.1, 1, 1, 1, 5, 30.0])
    plays = torch.randint(0, 400, (9, 6), generator=generator).double()
    share = torch.rand(9, 6, dtype=torch.float64, generator=generator)
    share[:, 2], share[:, 3] = 1.0, (rows[:, 0, 3] > 0).double()  # all rewards 1; separable
    sums = plays * share
    for lam in (1.0, 1e-3):
        theta = logistic_fit(torch.zeros(3, 6, dtype=torch.float64), rows, sums, plays, lam)
        mean = torch.sigmoid((rows * theta).sum(1))
        gradient = (rows * (sums - plays * mean).unsqueeze(1)).sum(0) - lam * theta
        assert float(gradient.abs().max()) < 1e-8
