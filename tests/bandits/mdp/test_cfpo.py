"""Contracted-features policy optimisation: epochs, contraction, estimates, limits, rates."""

import math

import numpy as np
import pytest
import torch

from bandits.mdp.cfpo import CFPO, CFPORates, cfpo_epochs, cfpo_rates
from tests.bandits.mdp.adversarial_bench import play as bench
from tests.bandits.mdp.homes import FEATURES, LOSSES, LOSSES_SEEN, STEPS, play
from tests.bandits.mdp.test_log_barrier_ftrl import terms

RATES = CFPORates(0.7, 0.3, 4.0, math.log(40))


def learner_of(rates=RATES, runs=3, features=FEATURES, **more):
    return CFPO(features, STEPS, rates, runs=runs, **more)


def test_an_epoch_begins_where_a_determinant_has_doubled():
    """Its policy is uniform; the inverse is that of the features met; at most (3/2) d H ln(2K) epochs."""
    learner, last, grams = learner_of(), torch.ones(3, dtype=torch.float64), None
    grams = torch.eye(3, dtype=torch.float64).expand(3, STEPS, 3, 3).clone()
    firsts, seen = grams.clone(), 0
    for k in range(60):
        policy = learner.act()
        began = learner.epochs > last
        seen += int(began.sum())
        assert torch.equal((policy == 1 / 3).flatten(1).all(1), began | (torch.tensor(k) == 0))
        doubled = (torch.linalg.det(grams) >= (2 - 1e-9) * torch.linalg.det(firsts)).any(-1)
        assert torch.equal(doubled, began)
        firsts[began] = grams[began]
        np.testing.assert_allclose(learner._inverse, torch.linalg.inv(grams), atol=1e-12)
        np.testing.assert_allclose(learner._frozen, torch.linalg.inv(firsts), atol=1e-12)
        last = learner.epochs.clone()
        g = torch.Generator().manual_seed(k)
        pairs = torch.randint(0, 15, (3, STEPS), generator=g)
        learner.observe(policy, terms(pairs, torch.rand(3, STEPS, dtype=torch.float64, generator=g)))
        met = FEATURES.flatten(0, 1)[pairs]
        grams += met.unsqueeze(-1) * met.unsqueeze(-2)
    assert seen > 10
    assert (learner.epochs <= cfpo_epochs(3, STEPS, 60)).all()


def test_a_unit_feature_doubles_the_determinant():
    eye = torch.eye(15, dtype=torch.float64).view(5, 3, 15)
    learner = learner_of(features=eye, runs=1)
    learner.observe(learner.act(), terms(torch.zeros(1, STEPS, dtype=torch.int64), torch.ones(1, STEPS).double()))
    assert learner.epochs.item() == 2


def test_the_contraction_lies_between_0_and_1():
    for contraction in (4.0, 1e5):
        learner = learner_of(CFPORates(0.7, 0.3, contraction, math.log(40)))
        play(learner, LOSSES, 5)
        width, factor = learner.contraction()
        assert torch.isfinite(factor).all()
        assert (factor >= 0).all()
        assert (factor < 1).all()
        expected = 1 / (1 + torch.exp((contraction * width - math.log(40)).clamp_max(700)))
        torch.testing.assert_close(factor, expected, rtol=1e-12, atol=1e-300)
        found = FEATURES.flatten(0, 1)
        by_hand = torch.einsum("pi,rhij,pj->rhp", found, learner._frozen, found).sqrt()
        torch.testing.assert_close(width, by_hand, rtol=1e-12, atol=0)


def test_estimates_stay_within_the_range_of_values():
    played = bench("cfpo", "iid", 300, 0, runs=5)
    assert played.learner.finite().all()
    largest = played.learner.estimates.abs().amax((0, 2, 3))
    assert (largest <= 2 * (3 - torch.arange(3))).all()
    assert (largest > 0.1).all()


def test_losses_revealed_need_no_noise_to_be_fought():
    """With the whole loss, no bonus and no contraction, the last step's estimates are its losses."""
    learner = learner_of(CFPORates(0.7, 0.0, 0.0, 40.0), full=True)
    from tests.bandits.mdp.homes import losses

    play(learner, LOSSES_SEEN, 1, first=6)
    torch.testing.assert_close(learner.estimates[:, -1], losses(6)[-1].expand(3, -1, -1), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"loss_table.*expected the episode's whole loss"):
        play(learner, LOSSES, 1)


def test_rates():
    """By hand, for A = 4, d = 5, H = 3, K = 100, delta = 0.1."""
    assert cfpo_rates("practical", 4, 5, 3, 100) == CFPORates(1.0, 0.3, 4.0, math.log(100))
    loss = 2 * math.sqrt(10 * math.log(6 * 100 * 3 / 0.1))
    law = 28 * 3 * 5 * math.sqrt(math.log(10 * 100**5 * 3 / 0.1))
    eta = math.sqrt(15 * 3 * math.log(200) * math.log(4) / (100 * 36))
    for full, size in ((False, loss + law), (True, law)):
        rates = cfpo_rates("theory", 4, 5, 3, 100, 0.1, full)
        expected = eta, size, 4 * size * math.log(math.e * 100), math.log(100)
        assert (rates.eta, rates.bonus, rates.contraction, rates.offset) == pytest.approx(expected, rel=1e-12)
    assert cfpo_epochs(4, 3, 6000) == pytest.approx(169, abs=0.5)


def test_the_limits_of_the_learning_rate():
    still, greedy = learner_of(CFPORates(0.0, 0.3, 4.0, 3.0)), learner_of(CFPORates(1e9, 0.3, 4.0, 3.0))
    play(still, LOSSES, 7)
    assert (still.act() == still.uniform()).all()
    for k in range(7):
        play(greedy, LOSSES, 1, k)
        leader = torch.nn.functional.one_hot(greedy.cumulative.argmin(-1), 3).double()
        anew = (greedy.cumulative == 0).all(-1, keepdim=True)
        torch.testing.assert_close(greedy.act(), torch.where(anew, greedy.uniform(), leader), rtol=0, atol=1e-9)


def test_bad_arguments_are_refused():
    for rates in (CFPORates(-1.0, 0.3, 4.0, 3.0), CFPORates(1.0, math.nan, 4.0, 3.0), CFPORates(1.0, 0.3, -4.0, 3.0)):
        with pytest.raises(ValueError, match="rates: expected eta, bonus and contraction of at least 0"):
            learner_of(rates)
