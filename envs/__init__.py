"""The worlds that the suite's algorithms are measured on: datasets and environments.

Importing this package registers Gymnasium ids, as strings, and does no other work. It imports gymnasium (0.13 s), and
none of the packages that an environment needs.
"""

from gymnasium.envs.registration import register

_MAZE2D_STEPS = {"open": 150, "umaze": 300, "medium": 600, "large": 800}
for _layout in ("open", "umaze", "medium", "large", "eval-umaze", "eval-medium", "eval-large"):
    for _reward, _suffix in (("sparse", ""), ("dense", "-dense")):
        register(
            f"orbs/maze2d-{_layout}{_suffix}-v{0 if _layout == 'open' else 1}",
            entry_point="envs.d4rl_envs:Maze2d",
            max_episode_steps=_MAZE2D_STEPS[_layout.removeprefix("eval-")],
            kwargs={"layout": _layout, "reward": _reward},
        )
for _layout in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play", "large-diverse"):
    register(
        f"orbs/antmaze-{_layout}-v2",
        entry_point="envs.d4rl_envs:AntMaze",
        max_episode_steps=700 if _layout.startswith("umaze") else 1000,
        kwargs={"layout": _layout.partition("-")[0]},
    )
for _source, _part in (("complete", "slide cabinet"), ("partial", "slide cabinet"), ("mixed", "bottom burner")):
    register(
        f"orbs/kitchen-{_source}-v0",
        entry_point="envs.d4rl_envs:Kitchen",
        max_episode_steps=280,
        kwargs={"parts": ("microwave", "kettle", "light switch", _part)},
    )
register("orbs/ant-v2", entry_point="envs.d4rl_ant:Ant", max_episode_steps=1000)
register("orbs/RiskyDial-v0", entry_point="envs.risky:RiskyDial", max_episode_steps=100)
register("orbs/RiskyPointMass-v0", entry_point="envs.risky:RiskyPointMass", max_episode_steps=200)
for _name, _module in (
    ("SEA", "sea"), ("Experts", "experts"), ("OnlineRegression", "online_regression"), ("Portfolio", "portfolio"),
    ("MultiArmedBandit", "multi_armed_bandit"),
    ("LinearBandit", "linear_bandit"), ("DynamicalLinearBandit", "dynamical_linear_bandit"),
    ("ContextualBandit", "contextual_bandit"), ("ClassificationBandit", "classification_bandit"),
):  # fmt: skip
    register(f"orbs/{_name}-v0", entry_point=f"envs.{_module}:single")
for _name, _entry in (
    ("OffDynamicsMDP", "off_dynamics:single"), ("RandomRobustMDP", "off_dynamics:single_random"),
    ("AmericanPut", "american_put:single"), ("AdversarialMDP", "adversarial_mdp:single"),
):  # fmt: skip
    register(f"orbs/{_name}-v0", entry_point=f"envs.{_entry}")
