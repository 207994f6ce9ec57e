"""What the contracts of the bandits share: states, configurations, and what a learner at home plays, played once.

A module of homes has HOMES, `built(name, hyperparameters, runs)` and `play(learner, facts, rounds)`.
"""

import dataclasses
import functools
import typing

import pytest
import torch

from bandits.config import CONFIGS


def everything(learner):
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


def equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=0, atol=0, equal_nan=True, msg=name)


@functools.cache
def _straight(homes, name, given, runs, rounds):
    learner = homes.built(name, dict(given), runs)
    return homes.play(learner, homes.HOMES[name], rounds), learner


def straight(homes, name, given, runs, rounds):
    """What a learner at home plays in all rounds, and the learner then. Many tests look at them: only look."""
    return _straight(homes, name, tuple(given.items()), runs, rounds)


def resumes(homes, name, given, runs, rounds, stop):
    """Stopped, saved and loaded, a learner goes on as if it had never stopped."""
    whole, there = straight(homes, name, given, runs, rounds)
    first, second = (homes.built(name, given, runs) for _ in range(2))
    begun = homes.play(first, homes.HOMES[name], stop)
    second.load_state_dict(everything(first))
    rest = homes.play(second, homes.HOMES[name], rounds - stop, stop)
    assert torch.equal(torch.cat([begun, rest]), whole)
    equal(everything(there), everything(second))
    assert second.rounds == rounds


def keeps_its_state(homes, name, given, runs, more):
    """A state that was handed out stays as it is while another learner goes on from it for `more` rounds."""
    learner, other = (homes.built(name, given, runs) for _ in range(2))
    homes.play(learner, homes.HOMES[name], 3)
    state = learner.state_dict()
    kept = {key: tensor.clone() for key, tensor in state.items()}
    other.load_state_dict(state)
    homes.play(other, homes.HOMES[name], more, 3)
    equal(state, kept)


def refuses_other_states(homes, name, runs):
    """A state of other names or other runs is one clear error and changes nothing."""
    learner = homes.built(name, {}, runs)
    homes.play(learner, homes.HOMES[name], 2)
    state, before = learner.state_dict(), everything(learner)
    for wrong in (
        {key: tensor for key, tensor in state.items() if key != "rounds"},
        {**state, "more": torch.zeros(1)},
        *([homes.built(name, {}, runs + 1).state_dict()] if len(state) > 1 else []),
    ):
        with pytest.raises(ValueError, match=r"state.*expected .* got .*Fix: load a state of the same learner"):
            learner.load_state_dict(wrong)
        equal(everything(learner), before)


def checks_every_field(name):
    """No field of a configuration takes what it cannot be."""
    kind = CONFIGS[name]
    kinds = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        for wrong in (float("nan"), "many") if kinds[field.name] is not bool else (2, "many"):
            with pytest.raises(ValueError, match=rf"{name}.{field.name}: expected .*, got .*Fix: e.g. {field.name}="):
                kind(**{field.name: wrong})
