"""The overestimation benchmark: what it judges by, what it writes, and in the proof tier what it is there to show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.benchmarks import overestimation
from experiments.benchmarks.overestimation import BETA, LEARNERS, final, judge, late_means, main, train
from offline_rl.online import TD3

SMALL = {"hidden": (8, 8), "batch_size": 16}


@pytest.fixture
def short(monkeypatch):
    """Fewer random steps, so that 72 steps are a training with three records."""
    monkeypatch.setattr(overestimation, "RANDOM_STEPS", 64)
    monkeypatch.setitem(overestimation.SHARED, "random_steps", 64)


def flat(agent, value, action=None):
    """The agent with networks that answer the same everywhere: every critic `value`, the actor tanh(`action`)."""
    with torch.no_grad():
        for tensor in [*agent.critic.parameters, *agent.actor]:
            tensor.zero_()
        agent.critic.parameters[-1][..., 0] = value
        if action is not None:
            agent.actor[-1][..., 0] = float(np.arctanh(action))
    return agent


def test_single_td3_has_one_critic_and_learns_from_its_own_value():
    single, twin = LEARNERS["td3-single"][0](3, 1, **SMALL), TD3(3, 1, **SMALL)
    assert (single.critic.members, twin.critic.members) == (1, 2)
    obs, action = torch.rand(1, 5, 3), torch.rand(1, 5, 1)
    torch.testing.assert_close(
        single.critic.backup_value(obs, action), single.critic.evaluate(obs, action, target=True).mean[:, 0]
    )
    own = {name: p for name, p in single.state_dict().items() if name.startswith("actor.")}
    assert own
    assert all(torch.equal(p, twin.state_dict()[name]) for name, p in own.items())


def test_judged_numbers_are_the_hand_computed_ones():
    """Action 0.6: mean reward 0.3 (0.8 - 1) = -0.06, value -0.06 / (1 - 0.9) = -0.6; predicted 2, so 2.6 too much."""
    found = judge(flat(TD3(3, 1, runs=2, discount=0.9, **SMALL), 2.0, 0.6))
    expected = {
        "predicted": 2.0, "backed_up": 2.0, "true": -0.6, "error": 2.6, "backed_up_error": 2.6, "greedy_action": 0.6,
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], [value, value], rtol=1e-5, err_msg=name)


def test_judged_numbers_of_stac_hold_its_entropy_and_its_pessimism():
    """A flat critic of mean 2 and deviation softplus(0); the bonus is in the prediction once, in the truth 10 times."""
    agent = flat(LEARNERS["stac"][0](3, 1, discount=0.9, **{**SMALL, **LEARNERS["stac"][1]}), 2.0)
    found = judge(agent)
    states = torch.rand(1, overestimation.STATES, 3)
    assert found["backed_up"] - found["predicted"] == pytest.approx(-BETA * np.log(2.0), rel=1e-5)
    bonus = found["predicted"] - 2.0
    sampled = agent.entropy_bonus(states, deterministic=False).mean().item()
    assert bonus == pytest.approx(sampled, abs=1e-6)
    assert bonus != 0.0
    action = agent.act(states, deterministic=False)
    true = (0.3 * (action.mean().item() - 1) / 2 + bonus) / 0.1
    assert found["true"] == pytest.approx(true, rel=1e-4)
    assert found["greedy_action"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.usefixtures("short")
def test_the_script_writes_table_and_picture_and_repeats_itself(tmp_path, capsys):
    tables = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        main(["--out", str(tmp_path / name), "--steps", "72", "--runs", "2", "--seed", str(seed)])
        tables.append((tmp_path / name / "overestimation.csv").read_bytes())
        assert (tmp_path / name / "overestimation.png").read_bytes().startswith(b"\x89PNG")
    assert tables[0] == tables[1] != tables[2]
    table = pd.read_csv(tmp_path / "one" / "overestimation.csv")
    assert list(dict.fromkeys(table["learner"])) == list(LEARNERS)
    assert not table.duplicated(["learner", "run", "step"]).any()
    assert set(table["run"]) == {0, 1}
    assert set(table["step"]) == {66, 69, 72}
    assert np.isfinite(table.drop(columns="learner").to_numpy()).all()
    np.testing.assert_allclose(table["predicted"] - table["true"], table["error"], atol=1e-5)
    printed = capsys.readouterr().out
    assert all(name in printed for name in LEARNERS)


@pytest.mark.usefixtures("short")
def test_one_run_has_a_picture_without_bands(tmp_path):
    main(["--out", str(tmp_path), "--steps", "72", "--runs", "1"])
    table = pd.read_csv(tmp_path / "overestimation.csv")
    assert final(table)["error_95"].isna().all()
    assert (tmp_path / "overestimation.png").stat().st_size > 10_000


@pytest.mark.parametrize(("steps", "runs", "field"), [(300, 2, "--steps"), (400, 0, "--runs")])
def test_too_few_steps_or_runs_are_refused(steps, runs, field):
    with pytest.raises(ValueError, match=field):
        train("td3", steps, runs)


def test_single_td3_and_td3_meet_the_same_worlds_until_they_learn():
    replays = [train(name, 301, 2, **SMALL)[0].replay.filled()[:, :299] for name in ("td3-single", "td3")]
    assert torch.equal(*replays)


def test_final_is_the_mean_over_runs_of_the_last_quarter():
    """Steps 1 to 8: 7 and 8 are the last quarter; errors of the runs there 3 and 5, half-width 12.706."""
    rows = [
        {"learner": "td3", "run": run, "step": step, "error": 3.0 + 2 * run if step > 6 else 99.0}
        for run in (0, 1)
        for step in range(1, 9)
    ]
    table = pd.DataFrame(rows).assign(backed_up_error=0.0, true=0.0, greedy_action=0.0)
    (line,) = final(table).to_dict("records")
    assert (line["learner"], line["runs"], line["error"]) == ("td3", 2, 4.0)
    assert line["error_95"] == pytest.approx(12.706, abs=1e-3)


@pytest.mark.proof
def test_pessimism_avoids_the_risk_and_lowers_what_is_predicted():
    """The script at its defaults, each run's mean over the last quarter, 8 runs; the test trains seed 1.

    Measured with seeds 0, 1 and 2, means over runs of predicted - true: one critic 0.52, 0.65, 0.54; TD3 0.15, 0.22,
    0.06; STAC without beta 1.07, 1.12, 1.09; with it -0.73, -0.61, -0.75. In the same run one critic is above TD3 by
    0.37, 0.42, 0.48 on average. Greedy actions: 0.66, 0.63, 0.46; 0.64, 0.62, 0.46; 0.30, 0.49, 0.43; with beta -0.50,
    -0.57, -0.51 (the optimum without entropy and error: -0.7). Not asserted: that TD3's own error is positive, which
    its interval leaves open, and any order of TD3 and STAC without beta, which differ in more than pessimism.

    What mistakes give (seed 1): beta in the actor alone, error 0.55; in the backup alone, action 0.48; mu + beta sigma,
    action 0.96; mu - beta sigma^2, error -0.01; the mean of two critics for their minimum, error 0.60, as one critic's.
    """
    table = pd.DataFrame([line for name in LEARNERS for line in train(name, 2400, 8, seed=1)[1]])
    error, action = late_means(table, "error"), late_means(table, "greedy_action")
    assert action["stac"].max() < -0.2
    for plain in ("td3-single", "td3", "stac-neutral"):
        assert action[plain].mean() > 0.1, plain
        assert (action[plain] > action["stac"]).all(), plain
    assert error["td3-single"].mean() > 0.2
    assert error["stac-neutral"].mean() > 0.5
    assert (error["td3-single"] - error["td3"]).mean() > 0.2
    assert (error["td3-single"] > error["td3"]).all()
    assert error["stac"].max() < -0.3
    assert error["td3"].mean() - error["stac"].mean() > 0.4
