"""Every default against the specifications' tables, copied here as literals; help texts; what a run should be told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from experiments.cli import _field_docs
from offline_rl import IQL, ODICE
from offline_rl.config import (
    CONFIGS,
    A2PRConfig,
    Config,
    IQLConfig,
    ODICEConfig,
    PRDCConfig,
    ReBRACConfig,
    TD3BCConfig,
)
from offline_rl.critic_config import CriticConfig
from tests.offline_rl.reference import make_data

SHARED = {"batch_size": 256, "stats_dtype": "float64", "reward_scale": 1.0, "reward_shift": 0.0}

# a2pr.md, section 5: networks, rates, noise, the defaults of the authors' command line; section 7: as the code.
A2PR = {
    **SHARED,
    "learning_rate": 3e-4,
    "value_learning_rate": 3e-4,
    "vae_learning_rate": 1e-3,
    "hidden": (256, 256, 256),
    "critic_hidden": (256, 256, 256, 256),
    "vae_hidden": (750, 750),
    "normalise_obs": True,
    "alpha": 2.5,
    "discount": 0.99,
    "tau": 0.005,
    "policy_noise": 0.2,
    "noise_clip": 0.5,
    "policy_period": 2,
    "critic": "twin",
    "beer": 0.0,
    "bc_weight": 0.5,
    "vae_weight": 1.0,
    "kl_weight": 0.5,
    "advantage_threshold": 0.0,
    "vae_source": "posterior",
    "detach_vae_target": False,
    "fresh_value": False,
}

# baselines_offline.md, section 3: the column of the original code, and what is common.
IMPLICIT_Q = {
    **SHARED,
    "learning_rate": 3e-4,
    "hidden": (256, 256),
    "normalise_obs": False,
    "expectile": 0.7,
    "beta": 3.0,
    "weight_cap": 100.0,
    "discount": 0.99,
    "tau": 0.005,
    "update_order": "value_first",
    "critic_reduction": "sum",
    "initialisation": "orthogonal",
    "policy": "gaussian",
    "log_std_min": -5.0,
    "log_std_max": 2.0,
    "dropout": 0.0,
    "cosine_steps": 1_000_000,
    "clip_data_actions": True,
    "reward_normaliser": "none",
}

# odice.md, section 5: offline RL.
O_DICE = {
    **SHARED,
    "learning_rate": 2e-4,
    "hidden": (256, 256),
    "actor_hidden": (1024, 1024),
    "normalise_obs": False,
    "lam": 0.6,
    "eta": 1.0,
    "gradient": "orthogonal",
    "divergence": "chi2",
    "policy_weight": "relu_residual",
    "weight_cap": 100.0,
    "twin": True,
    "layer_norm": True,
    "tanh_mean": False,
    "weight_decay": 1e-4,
    "discount": 0.99,
    "tau": 0.005,
    "return_blocks": "none",
    "demonstration": None,
}

# baselines_offline.md, section 4: networks, noise, the row of Gym-MuJoCo; the penalties are per dataset.
REBRAC = {
    **SHARED,
    "batch_size": 1024,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "hidden": (256, 256, 256),
    "normalise_obs": False,
    "actor_beta": 0.01,
    "critic_beta": 0.01,
    "discount": 0.99,
    "tau": 0.005,
    "policy_noise": 0.2,
    "noise_clip": 0.5,
    "policy_period": 2,
    "normalise_q": True,
    "actor_value": "min",
    "critic_layer_norm": True,
    "actor_layer_norm": False,
    "slow_actor_lag": True,
}


@pytest.mark.parametrize(
    ("kind", "table"), [(A2PRConfig, A2PR), (IQLConfig, IMPLICIT_Q), (ODICEConfig, O_DICE), (ReBRACConfig, REBRAC)]
)
def test_defaults_are_the_specification_s(kind, table):
    """All of them: a field that is missing from its table fails here. Options of critics that are not the twin one,
    which A2PR takes with TD3+BC's fields, are those critics' affair."""
    others = {field.name for field in dataclasses.fields(CriticConfig) if field.name not in ("critic", "beer")}
    if not issubclass(kind, TD3BCConfig):
        others = set()
    assert {name: value for name, value in dataclasses.asdict(kind()).items() if name not in others} == table


# Help texts


@pytest.mark.parametrize(
    ("kind", "field", "words"),
    [
        (A2PRConfig, "alpha", "no behaviour cloning"),
        (A2PRConfig, "stats_dtype", "the authors take float32"),
        (A2PRConfig, "detach_vae_target", 'no effect with vae_source "prior"'),
        (IQLConfig, "learning_rate", "the policy, V and the critics"),
        (ODICEConfig, "eta", 'no effect with gradient "semi" or "true"'),
        (ODICEConfig, "reward_scale", "no effect with a demonstration"),
        (ODICEConfig, "reward_shift", "See reward_scale"),
        (ODICEConfig, "return_blocks", "no effect with a demonstration"),
        (TD3BCConfig, "alpha", "0 is behaviour cloning"),
    ],
)
def test_help_says_where_a_field_means_something_else_or_nothing(kind, field, words):
    assert words in " ".join(_field_docs(kind)[field].split())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_has_a_help_text(name):
    docs = _field_docs(CONFIGS[name])
    assert all(docs.get(field.name, "").endswith(".") for field in dataclasses.fields(CONFIGS[name]))


# What the settings mean together


def test_a_demonstration_overrides_return_blocks():
    """The rows of preset hopper-* set them; a demonstration's rewards count as 0 anyhow."""
    assert ODICEConfig(demonstration=1, return_blocks="legacy").return_blocks == "legacy"
    data = dataclasses.replace(make_data(rows=60), reward=np.zeros(60))  # blocks of one return would be refused
    learner = ODICE.for_dataset(data, demonstration=1, return_blocks="legacy", hidden=(4,), actor_hidden=(4,))
    plain = ODICE.for_dataset(data, demonstration=1, hidden=(4,), actor_hidden=(4,))
    assert learner._data is not None
    assert learner._data.equal(plain._data)
    assert not learner._data[:, 5].any()


def test_notes_of_a_schedule_that_does_not_fit_the_steps():
    fits = "--set iql.cosine_steps=100000 gives the whole schedule"
    (longer,) = IQLConfig().notes(100_000)
    falls = "iql: the actor's learning rate falls to 0 over cosine_steps="
    assert longer == f"{falls}1000000 updates; --steps is 100000: {fits}"
    (shorter,) = IQLConfig(cosine_steps=50_000).notes(100_000)
    assert shorter == f"{falls}50000 updates and the actor stands still after them; --steps is 100000: {fits}"
    assert IQLConfig(cosine_steps=100_000).notes(100_000) == IQLConfig(cosine_steps=None).notes(100_000) == []
    for kind in (Config, A2PRConfig, ODICEConfig, ReBRACConfig):
        assert kind().notes(7) == []
    assert PRDCConfig(beta=2.0).notes(7) == []


@pytest.mark.parametrize("bounds", [(-20.0, 20.0), (-20.0, 2.0), (0, 1)])
def test_bounds_of_the_log_std_up_to_20_are_taken(bounds):
    config = IQL(3, 2, hidden=(4,), log_std_min=bounds[0], log_std_max=bounds[1]).config
    assert (config.log_std_min, config.log_std_max) == bounds
