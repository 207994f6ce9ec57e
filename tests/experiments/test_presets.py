"""Every row of the presets of A2PR, IQL, O-DICE and ReBRAC against the specifications' tables, copied as literals."""

from __future__ import annotations

import pytest

from envs.datasets import local
from experiments.presets import preset, rules
from experiments.train import train
from offline_rl.config import CONFIGS
from tests.experiments.training import options

# a2pr.md, section 5: alpha, vae_weight, mask, gamma.
A2PR = {
    "halfcheetah-medium-v?": (40.0, 1.0, 1.0, 0.99),
    "halfcheetah-medium-replay-v?": (40.0, 1.5, 0.8, 0.995),
    "halfcheetah-medium-expert-v?": (40.0, 1.0, 10.0, 0.99),
    "hopper-medium-v?": (2.5, 1.0, 0.4, 0.995),
    "hopper-medium-replay-v?": (2.5, 1.5, 0.5, 0.99),
    "hopper-medium-expert-v?": (2.5, 1.0, 4.0, 0.99),
    "hopper-random-v?": (2.5, 1.5, 1.5, 0.995),
    "walker2d-medium-v?": (2.5, 1.5, 1.0, 0.99),
    "walker2d-medium-replay-v?": (2.5, 1.5, 1.2, 0.995),
    "walker2d-medium-expert-v?": (2.5, 1.0, 0.8, 0.99),
}
A2PR_OTHER = {
    "halfcheetah-medium-strong-v?": (40.0, 1.0, 10.0, 0.99),
    "walker2d-medium-strong-v?": (2.5, 1.0, 0.8, 0.99),
    "halfcheetah-*": (40.0, 1.0, 1.0, 0.99),
    "*": (2.5, 1.0, 0.5, 0.99),
}
A2PR_NAMES = ("alpha", "vae_weight", "bc_weight", "discount")
A2PR_REST = {
    "antmaze-*": {"alpha": 7.5, "vae_weight": 1.0, "bc_weight": 1.0, "reward_scale": 10000.0, "reward_shift": -1.0},
    "pendulum-medium-replay-v0": {
        "hidden": [64, 64], "critic_hidden": [64, 64], "vae_hidden": [128, 128], "learning_rate": 1e-3,
        "value_learning_rate": 1e-3, "alpha": 2.5, "bc_weight": 1.0,
    },
}  # fmt: skip

# baselines_offline.md, section 3: CORL's column whole, or the authors' with their reward rule.
CORL = {
    "normalise_obs": True, "update_order": "actor_last", "critic_reduction": "mean", "initialisation": "uniform",
    "log_std_min": -20.0, "clip_data_actions": False,
}  # fmt: skip
HOPPER = {"expectile": 0.7, "beta": 3.0, "tau": 0.001, "policy": "deterministic", "reward_normaliser": "blocks"}
LOCOMOTION = {"reward_normaliser": "episodes"}
ADROIT = {"beta": 0.5, "dropout": 0.1}
IQL = {
    "pendulum-medium-replay-v0": {"hidden": [64, 64], "learning_rate": 1e-3, "cosine_steps": None},
    "hopper-medium-expert-*": {"expectile": 0.5, "beta": 6.0, **CORL},
    "hopper-medium-*": {**HOPPER, **CORL},
    "halfcheetah-*": LOCOMOTION,
    "hopper-*": LOCOMOTION,
    "walker2d-*": LOCOMOTION,
    "antmaze-*": {"expectile": 0.9, "beta": 10.0, "reward_shift": -1.0},
    **{f"{task}-*": ADROIT for task in ("pen", "hammer", "door", "relocate", "kitchen")},
    "maze2d-*": {"expectile": 0.7, "beta": 3.0, **CORL},
    "*": {},
}

# odice.md, sections 5 and 6: the one published pair of lambda and eta; AntMaze: 0 -> -3, 1 -> 0, no LayerNorm.
PAIR = {"lam": 0.6, "eta": 1.0}
MAZE = {**PAIR, "layer_norm": False, "reward_scale": 3.0, "reward_shift": -3.0}
ODICE = {
    "pendulum-medium-replay-v0": {"hidden": [64, 64], "actor_hidden": [64, 64], "learning_rate": 1e-3},
    "antmaze-large-*": {**MAZE, "twin": False},
    "antmaze-umaze-diverse-*": {**MAZE, "twin": False},
    "antmaze-*": MAZE,
    **{f"{task}-*": {**PAIR, "return_blocks": "legacy"} for task in ("hopper-medium-replay", "halfcheetah")},
    **{f"{task}-*": {**PAIR, "return_blocks": "legacy"} for task in ("hopper", "walker2d")},
    "*": {},
}

# baselines_offline.md, section 4: beta1 / beta2.
REBRAC_MUJOCO = """
             random      medium      expert     medium-expert medium-replay full-replay strong     medium-strong
halfcheetah  0.001/0.1   0.001/0.01  0.01/0.01  0.01/0.1      0.01/0.001    0.001/0.1   0.01/0.01  0.01/0.1
hopper       0.001/0.01  0.01/0.01   0.1/0.1    0.1/0.01      0.05/0.5      0.01/0.01   0.1/0.1    0.1/0.01
walker2d     0.01/0      0.05/0.1    0.01/0.5   0.01/0.01     0.05/0.01     0.01/0.01   0.01/0.5   0.01/0.01
"""
REBRAC_ADROIT = """
          human     cloned    expert
pen       0.1/0.5   0.05/0.5  0.01/0.01
door      0.1/0.1   0.01/0.1  0.05/0.01
hammer    0.01/0.5  0.1/0.5   0.01/0.01
relocate  0.1/0.01  0.1/0.01  0.05/0.01
"""
REBRAC_ANTMAZE = """
         umaze        umaze-diverse medium-play   medium-diverse large-play   large-diverse
antmaze  0.003/0.002  0.003/0.001   0.001/0.0005  0.001/0        0.002/0.001  0.002/0.002
"""
SMALLER = {"batch_size": 256, "learning_rate": 3e-4, "critic_learning_rate": 3e-4}
FAR = {**SMALLER, "critic_learning_rate": 5e-5, "discount": 0.999, "reward_scale": 100.0}


def penalties(table, others):
    """{pattern: values} of a table of pairs; its head names the qualities."""
    head, *rows = table.strip("\n").splitlines()
    found = {}
    for task, *pairs in (row.split() for row in rows):
        for quality, pair in zip(head.split(), pairs, strict=True):
            first, second = (float(number) for number in pair.split("/"))
            found[f"{task}-{quality}-v?"] = {"actor_beta": first, "critic_beta": second, **others}
    return found


REBRAC = {
    **penalties(REBRAC_MUJOCO, {}),
    **penalties(REBRAC_ADROIT, SMALLER),
    **penalties(REBRAC_ANTMAZE, FAR),
    "maze2d-*": {"actor_beta": 0.003, "critic_beta": 0.001, **SMALLER},
    "pendulum-*": {"batch_size": 256, "hidden": [64, 64], "actor_beta": 0.01, "critic_beta": 0.01},
    "*": {"actor_beta": 0.01, "critic_beta": 0.01},
}

TABLES = {
    "a2pr": {
        **{name: dict(zip(A2PR_NAMES, row, strict=True)) for name, row in {**A2PR, **A2PR_OTHER}.items()},
        **A2PR_REST,
    },
    "iql": IQL,
    "odice": ODICE,
    "rebrac": REBRAC,
}


@pytest.mark.parametrize("algorithm", TABLES)
def test_rows_are_the_specification_s(algorithm):
    """Each row whole, none missing, none besides; each makes a configuration."""
    found = rules(algorithm)
    assert len(found) == len(TABLES[algorithm])
    assert {rule.pattern: rule.values for rule in found} == TABLES[algorithm]
    for rule in found:
        CONFIGS[algorithm](**rule.values)
        assert rule.source


@pytest.mark.parametrize("algorithm", TABLES)
def test_every_row_is_reached(algorithm):
    """No row stands behind one that takes its names."""
    for rule in rules(algorithm):
        name = rule.pattern.replace("-v?", "-v2").replace("-*", "-x-v2").replace("*", "anything")
        assert preset(algorithm, name).pattern == rule.pattern


# The datasets that go by other names

A2PR_LOCAL = {
    "hopper-medium-v0": A2PR["hopper-medium-v?"],
    "hopper-medium-replay-v0": A2PR["hopper-medium-replay-v?"],
    "hopper-medium-expert-v0": A2PR["hopper-medium-expert-v?"],
    "hopper-random-v0": A2PR["hopper-random-v?"],
    "hopper-expert-v0": A2PR_OTHER["*"],
    "halfcheetah-medium-v0": A2PR["halfcheetah-medium-v?"],
    "halfcheetah-medium-replay-v0": A2PR["halfcheetah-medium-replay-v?"],
    "halfcheetah-medium-strong-v0": A2PR["halfcheetah-medium-expert-v?"],
    "halfcheetah-random-v0": A2PR_OTHER["halfcheetah-*"],
    "halfcheetah-strong-v0": A2PR_OTHER["halfcheetah-*"],
    "walker2d-medium-v0": A2PR["walker2d-medium-v?"],
    "walker2d-medium-replay-v0": A2PR["walker2d-medium-replay-v?"],
    "walker2d-medium-strong-v0": A2PR["walker2d-medium-expert-v?"],
    "walker2d-random-v0": A2PR_OTHER["*"],
    "walker2d-strong-v0": A2PR_OTHER["*"],
}


def test_local_sets_find_their_rows():
    """Each MuJoCo set that is made here, by A2PR's rows; the rows of -v2 for D4RL's own names."""
    assert {f"local/{name}" for name in A2PR_LOCAL} == {n for n in local.ENTRIES if not n.startswith("local/pendulum")}
    for name, row in A2PR_LOCAL.items():
        assert tuple(preset("a2pr", f"local/{name}").values[field] for field in A2PR_NAMES) == row, name
    for pattern, row in A2PR.items():
        for version in ("v0", "v2"):
            found = preset("a2pr", pattern.replace("v?", version))
            assert tuple(found.values[field] for field in A2PR_NAMES) == row
            assert f"its row of {pattern.replace('v?', 'v2')}" in found.source


@pytest.mark.parametrize("task", ["halfcheetah", "walker2d"])
@pytest.mark.parametrize("algorithm", CONFIGS)
def test_medium_strong_has_the_row_of_medium_expert(algorithm, task):
    strong, expert = (preset(algorithm, f"local/{task}-medium-{best}-v0") for best in ("strong", "expert"))
    assert strong.values == expert.values
    if strong.pattern != expert.pattern:
        assert any(f"{word} {task}-medium-expert: " in strong.source for word in ("the row of", "as"))


# What the command says


@pytest.mark.parametrize(("steps", "said"), [(20, True), (30, False)])
def test_a_schedule_that_does_not_fit_the_steps_is_said_after_the_preset(tmp_path, capsys, steps, said):
    chosen = ("iql.hidden=8,8", "iql.cosine_steps=30", "bc.hidden=8,8")
    train(options(tmp_path, algos=("iql", "bc"), steps=steps, runs=1, set=chosen, eval_every=steps))
    lines = capsys.readouterr().out.splitlines()
    (first,) = [i for i, line in enumerate(lines) if line.startswith("iql: preset 'pendulum-medium-replay-v0'")]
    note = "iql: the actor's learning rate falls to 0 over cosine_steps=30 updates; --steps is 20: "
    assert lines[first + 1].startswith(note) == said
    assert sum("cosine_steps=30 updates" in line for line in lines) == said
