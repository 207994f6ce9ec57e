"""Errors of values: by hand, with and without entropy bonuses, and of actions as they were played."""

import numpy as np
import pytest
import torch

from experiments import value_error as module
from experiments.evaluate import Evaluator
from experiments.value_error import Step, discounted_errors, value_error
from offline_rl import algorithm
from offline_rl.online.config import ONLINE_CONFIGS


def test_value_error_by_hand():
    rewards, bonuses, nothing = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.0, 0.25]), np.zeros(3)
    predicted = np.array([10.0, 20.0, 30.0])
    # Ended by the environment: 3, 2 + 3/2, 1 + 3.5/2. Cut: 3 + 8/2, 2 + 7/2, 1 + 5.5/2.
    for terminated, expected in ((True, [7.25, 16.5, 27.0]), (False, [6.25, 14.5, 23.0])):
        errors = discounted_errors(predicted, rewards, nothing, 0.5, terminated, last_value=8.0)
        np.testing.assert_allclose(errors, expected)
    # The bonus of a step counts on both sides: it changes the errors of the steps before it alone.
    errors = discounted_errors(predicted, rewards, bonuses, 0.5, True, last_value=8.0)
    np.testing.assert_allclose(errors, [7.25 - 0.0625, 16.5 - 0.125, 27.0])


@pytest.mark.parametrize("terminated", [True, False])
def test_value_error_bootstraps_at_a_time_limit_alone(terminated):
    class Agent:
        runs, config = 2, ONLINE_CONFIGS["td3"](discount=0.5)

        def act(self, obs):
            return 10 * obs

        def value(self, obs, action):
            return obs[..., 0] + action[..., 0]

    def step(obs, reward, end):
        return Step(np.array([obs]), np.array([0.0]), reward, end and terminated)

    episodes = [[step(1.0, 1.0, False), step(2.0, 1.0, True)], [step(4.0, 2.0, True)], [], []]
    errors = value_error(Agent(), episodes, np.array([[3.0], [5.0], [0.0], [0.0]]))
    last = (0.0, 0.0) if terminated else (33.0, 55.0)
    second = 1.0 + 0.5 * last[0]
    expected = (((1.0 - (1.0 + 0.5 * second)) + (2.0 - second)) / 2 + (4.0 - (2.0 + 0.5 * last[1]))) / 2
    assert errors[0] == pytest.approx(expected)
    assert np.isnan(errors[1])


def test_kept_steps_are_those_that_were_played():
    agent = algorithm("td3")(3, 1, -2.0, 2.0, runs=2, hidden=(8,), capacity=300)
    evaluator = Evaluator("Pendulum-v1", [0, 1], 2, 0)
    plain, kept = evaluator.evaluate(agent, 5), evaluator.evaluate(agent, 5, keep_steps=True)
    assert (plain.steps, plain.last_obs) == (None, None)
    np.testing.assert_array_equal(plain.returns, kept.returns)
    for slot, steps in enumerate(kept.steps):
        assert sum(step.reward for step in steps) == kept.returns.reshape(-1)[slot]
        assert not any(step.terminated for step in steps)
    evaluator.envs[3].reset(seed=0)
    np.testing.assert_array_equal(agent.act(kept.steps[3][7].obs)[1], kept.steps[3][7].action)
    assert np.shape(kept.last_obs) == (4, 3)
    evaluator.close()


class Soft:
    """One run; its value is the observation, its bonus at the last one tells what it was asked."""

    runs, config = 1, ONLINE_CONFIGS["td3"](discount=0.5)

    def act(self, obs, draw=0):
        return np.full((*np.shape(obs)[:-1], 1), float(draw), np.float32)

    def value(self, obs, action):
        return obs[..., 0] + 10 * action[..., 0]

    def entropy_bonus(self, obs, draw=0):
        return 100.0 * draw + torch.as_tensor(obs)[..., 0]


def test_bonuses_of_a_soft_agent_by_hand():
    """Those that were recorded while it played, and after a cut the one of an action of its own number."""
    steps = [
        Step(np.array([1.0]), np.array([0.5]), 1.0, False, 3.0),
        Step(np.array([2.0]), np.array([0.0]), 4.0, False, 5.0),
    ]
    (error,) = value_error(Soft(), [steps], np.array([[7.0]]))
    last = (7.0 + 10 * 2) + (100.0 * 2 + 7.0)  # value and bonus of the action of step 2, nobody's
    second = 4.0 + 5.0 + 0.5 * last
    first = 1.0 + 3.0 + 0.5 * second
    assert error == pytest.approx(((6.0 + 3.0 - first) + (2.0 + 5.0 - second)) / 2)
    ended = [steps[0], Step(np.array([2.0]), np.array([0.0]), 4.0, True, 5.0)]
    (error,) = value_error(Soft(), [ended], np.array([[7.0]]))
    assert error == pytest.approx(((9.0 - (4.0 + 0.5 * 9.0)) + (7.0 - 9.0)) / 2)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_values_of_many_rows_come_in_blocks_and_are_the_same(name, monkeypatch):
    agent = algorithm(name)(3, 1, -2.0, 2.0, runs=2, hidden=(8,), capacity=300)
    evaluator = Evaluator("Pendulum-v1", [0, 1], 2, 0)
    played = evaluator.evaluate(agent, 5, skip=[1], keep_steps=True)
    evaluator.close()
    whole = value_error(agent, played.steps, played.last_obs)
    sizes, valued = [], module._valued

    def counted(agent, obs, action):
        sizes.append(obs.shape[1])
        return valued(agent, obs, action)

    monkeypatch.setattr(module, "_valued", counted)
    monkeypatch.setattr(module, "BLOCK", 200)
    parts = value_error(agent, played.steps, played.last_obs)
    assert sizes == [200, 200, 2]  # of 2 x 200 steps and 2 last observations
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    assert np.isnan(whole[1])


def test_averaged_samples_are_fresh_at_each_step_and_the_bonuses_are_theirs():
    """STAC as its author evaluates it: an average of ten samples, whose noise must not be one for a whole episode."""
    agent = algorithm("stac")(3, 1, -2.0, 2.0, runs=2, hidden=(8,), capacity=300, evaluation_action="samples")
    evaluator = Evaluator("Pendulum-v1", [0, 1], 2, 0)
    played = evaluator.evaluate(agent, 5, keep_steps=True)
    again = evaluator.evaluate(agent, 5)
    evaluator.close()
    np.testing.assert_array_equal(played.returns, again.returns)
    for number in (0, 7, 199):
        obs = np.stack([steps[number].obs for steps in played.steps]).reshape(2, 2, 3)
        action = np.stack([steps[number].action for steps in played.steps]).reshape(2, 2, 1)
        np.testing.assert_array_equal(action, agent.act(obs, draw=number))
        assert not np.allclose(action, agent.act(obs, draw=number + 1), atol=1e-3)
        bonus = np.array([steps[number].bonus for steps in played.steps]).reshape(2, 2)
        np.testing.assert_array_equal(bonus, agent.entropy_bonus(obs, draw=number).double().numpy())
    # By hand, from the agent's own numbers: the last action is that of draw 200.
    last = np.asarray(played.last_obs, np.float32).reshape(2, 2, 3)
    tail = agent.value(last, agent.act(last, draw=200)) + agent.entropy_bonus(last, draw=200)
    expected = np.zeros((2, 2))
    for slot, steps in enumerate(played.steps):
        place = divmod(slot, 2)
        obs, action = (np.stack([getattr(step, of) for step in steps]) for of in ("obs", "action"))
        values = agent.value(np.stack([obs] * 2), np.stack([action] * 2))[place[0]].double().numpy()
        rewards, bonuses = (np.array([getattr(step, of) for step in steps]) for of in ("reward", "bonus"))
        expected[place] = discounted_errors(values, rewards, bonuses, 0.99, False, float(tail[place])).mean()
    found = value_error(agent, played.steps, played.last_obs)
    np.testing.assert_allclose(found, expected.mean(1), rtol=1e-5)
