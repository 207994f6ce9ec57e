"""Hyperparameters of every learner: one frozen dataclass each, in a module that never imports torch.

Change a default here and it changes for the class, for the command line and for its help text at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from offline_rl.config_checks import Checker
from offline_rl.critic_config import CriticConfig

__all__ = [
    "A2PRConfig",
    "BCConfig",
    "CONFIGS",
    "Config",
    "IQLConfig",
    "ODICEConfig",
    "PRDCConfig",
    "ReBRACConfig",
    "TD3BCConfig",
]


@dataclass(frozen=True)
class Config:
    """What every offline learner has."""

    batch_size: int = 256
    """Rows per update and run."""
    learning_rate: float = 3e-4
    """Adam's step size for the actor (and, where there is one, the critic)."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    normalise_obs: bool = True
    """Scale observations to (s - mean) / (std + 1e-3), statistics over the data's current observations."""
    stats_dtype: Literal["float64", "float32"] = "float64"
    """Precision of those statistics; float32 reproduces the authors' NumPy call bit for bit."""
    reward_scale: float = 1.0
    """Rewards are used as scale * r + shift."""
    reward_shift: float = 0.0
    """See reward_scale."""

    def __post_init__(self) -> None:
        check = Checker(self)
        check.positive("batch_size", "learning_rate", "reward_scale")
        check.widths("hidden")
        check.one_of("stats_dtype", "float64", "float32")

    def notes(self, steps: int) -> list[str]:
        """Lines that somebody who trains `steps` updates with this configuration should read first."""
        return []


@dataclass(frozen=True)
class BCConfig(Config):
    """Behaviour cloning; with top_fraction the percentile variant ("10 % BC")."""

    top_fraction: float | None = None
    """Keep this share of the data's blocks, best return first; None keeps every row, in order. CORL's BC is 1.0
    (which drops an incomplete last block), its 10 % BC is 0.1."""
    filter_discount: float = 1.0
    """Discount of the block returns by which blocks are ranked."""
    filter_horizon: int = 1000
    """A block ends at a terminal row or after this many rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        if self.top_fraction is not None and not 0 < self.top_fraction <= 1:
            check.reject("top_fraction", "None or a number in (0, 1]", "e.g. top_fraction=0.1")
        check.positive("filter_horizon")
        check.share("filter_discount")


@dataclass(frozen=True)
class _TD3BC(Config):
    """TD3+BC's own fields: a class of their own, so that they are listed before the critic's."""

    alpha: float = 2.5
    """Weight of the value against the penalty; 0 is behaviour cloning."""
    discount: float = 0.99
    """gamma."""
    tau: float = 0.005
    """Polyak step of the target networks."""
    policy_noise: float = 0.2
    """Standard deviation of the target policy's noise, in units of half the action range."""
    noise_clip: float = 0.5
    """Bound of that noise, in the same units."""
    policy_period: int = 2
    """The actor and all target networks move every this many updates."""


@dataclass(frozen=True)
class TD3BCConfig(CriticConfig, _TD3BC):
    """TD3 with a behaviour-cloning term."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        check.not_negative("alpha", "policy_noise", "noise_clip")
        check.positive("policy_period")
        check.share("discount", "tau")
        self.check_critic(check)


@dataclass(frozen=True)
class IQLConfig(Config):
    """Implicit Q-learning. The defaults are the authors' code; CORL's column is named field by field."""

    learning_rate: float = 3e-4
    """Adam's step size for the policy, V and the critics; `cosine_steps` lets the policy's alone fall."""
    normalise_obs: bool = False
    """Scale observations to (s - mean) / (std + 1e-3), statistics over the data's current observations. CORL: True."""
    expectile: float = 0.7
    """tau of the expectile loss of V, between 0 and 1; 0.5 is mean regression."""
    beta: float = 3.0
    """Inverse temperature: weights are exp(beta * advantage); 0 is behaviour cloning."""
    weight_cap: float = 100.0
    """Largest weight."""
    discount: float = 0.99
    """gamma."""
    tau: float = 0.005
    """Polyak step of the target critics, taken every update."""
    update_order: Literal["value_first", "actor_last"] = "value_first"
    """value_first: V, then actor and critics with the new V (authors). actor_last: V, critics, actor, the latter two
    with the V of before the update (CORL)."""
    critic_reduction: Literal["sum", "mean"] = "sum"
    """Over the two critics' errors: sum (authors) or mean (CORL: half the gradient)."""
    initialisation: Literal["orthogonal", "uniform"] = "orthogonal"
    """Orthogonal with gain sqrt(2) and zero biases (authors), or PyTorch's default (CORL)."""
    policy: Literal["gaussian", "deterministic"] = "gaussian"
    """tanh mean with a free log standard deviation a coordinate, or the tanh mean with a weighted squared error."""
    log_std_min: float = -5.0
    """Lower clip of the log standard deviation, from -20. CORL: -20."""
    log_std_max: float = 2.0
    """Upper clip, up to 20."""
    dropout: float = 0.0
    """Probability of dropping a hidden unit of the policy, in training alone. Adroit: 0.1."""
    cosine_steps: int | None = 1_000_000
    """The actor's step size falls to 0 along a half cosine over this many updates and stays there: give the steps of
    the training. None keeps it constant."""
    clip_data_actions: bool = True
    """Clip the data's actions to 1 - 1e-5 of the half range around the box's centre. CORL: False."""
    reward_normaliser: Literal["none", "episodes", "blocks"] = "none"
    """Multiply rewards by 1000 / (range of returns) of the true episodes (authors, locomotion), or of blocks that
    end at a terminal or after 1000 rows (CORL); before reward_scale and reward_shift."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        if not 0 < self.expectile < 1:
            check.reject("expectile", "a number between 0 and 1, exclusive", "e.g. expectile=0.7")
        check.not_negative("beta")
        check.positive("weight_cap")
        check.share("discount", "tau")
        check.one_of("update_order", "value_first", "actor_last")
        check.one_of("critic_reduction", "sum", "mean")
        check.one_of("initialisation", "orthogonal", "uniform")
        check.one_of("policy", "gaussian", "deterministic")
        check.between(-20.0, 20.0, "log_std_min", "log_std_max")
        if self.log_std_min >= self.log_std_max:
            check.reject("log_std_min", f"a number below log_std_max ({self.log_std_max})", "e.g. log_std_min=-5.0")
        if not 0 <= self.dropout < 1:
            check.reject("dropout", "a number from 0 to below 1", "e.g. dropout=0.1")
        if self.cosine_steps is not None:
            check.positive("cosine_steps")
        check.one_of("reward_normaliser", "none", "episodes", "blocks")

    def notes(self, steps: int) -> list[str]:
        if self.cosine_steps is None or self.cosine_steps == steps:
            return []
        end = f"iql: the actor's learning rate falls to 0 over cosine_steps={self.cosine_steps} updates"
        if self.cosine_steps < steps:
            end += " and the actor stands still after them"
        return [f"{end}; --steps is {steps}: --set iql.cosine_steps={steps} gives the whole schedule"]


@dataclass(frozen=True)
class PRDCConfig(TD3BCConfig):
    """Policy regularisation with dataset constraint."""

    beta: float | None = None
    """Scale of the (normalised) observation in the search key; must be given. Authors: 2 for locomotion, 7.5 for
    AntMaze."""
    k: int = 1
    """Which nearest row is the target."""
    k_rule: Literal["kth", "mean_of_k"] = "kth"
    """The k-th row alone (the authors' code), or the mean action of the k nearest."""
    penalty: Literal["action_mse", "joint_norm"] = "action_mse"
    """Mean squared error of the action (code), or the distance in the joint space (paper)."""
    q_normaliser: Literal["policy", "data"] = "policy"
    """lambda = alpha / mean |Q| over the policy's actions (code) or the data's (paper)."""
    neighbours: int = 64
    """Length of each row's candidate list; changes the speed, never the result."""
    legacy_scale_next_state: bool = False
    """Apply reward_scale and reward_shift to the next observation instead of the reward, as the authors' code did
    before 5 July 2023. For forensic comparison only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        if self.beta is None:
            check.reject("beta", "a number", "pass beta=2.0 (locomotion) or beta=7.5 (AntMaze)")
        check.not_negative("beta")
        check.positive("k", "neighbours")
        check.one_of("k_rule", "kth", "mean_of_k")
        check.one_of("penalty", "action_mse", "joint_norm")
        check.one_of("q_normaliser", "policy", "data")


@dataclass(frozen=True)
class ODICEConfig(Config):
    """O-DICE; the defaults are the authors' for MuJoCo locomotion."""

    learning_rate: float = 2e-4
    """Adam's step size for the value and the policy."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the value's hidden layers."""
    normalise_obs: bool = False
    """Scale observations to (s - mean) / (std + 1e-3); the authors do so for imitation alone."""
    actor_hidden: tuple[int, ...] = (1024, 1024)
    """Widths of the policy's hidden layers."""
    lam: float = 0.6
    """lambda in (0, 1): (1 - lambda) V(s) against lambda f*(residual). Rewards must be large against
    2 (2 lambda - 1) / lambda, or the value falls towards the goal instead of rising (0.67 at 0.6, 0 at 0.5)."""
    eta: float = 1.0
    """Weight of the gradient through V(s'); 0 is the semi-gradient. Of no effect with gradient "semi" or "true"."""
    gradient: Literal["orthogonal", "semi", "true"] = "orthogonal"
    """Backward gradient projected onto the forward one's normal plane (O-DICE), left out, or added as it is."""
    divergence: Literal["chi2", "kl"] = "chi2"
    """Pearson's (x - 1)^2 over ratios of at least 0, or the reverse KL's x log x."""
    policy_weight: Literal["relu_residual", "omega"] = "relu_residual"
    """Weight of a row in cloning: max(0, y) as in the authors' code, or the optimal ratio omega*(y)."""
    weight_cap: float = 100.0
    """Upper bound of that weight."""
    twin: bool = True
    """Two value heads, their minimum in the slow copy; the authors use one for AntMaze large and umaze-diverse."""
    layer_norm: bool = True
    """LayerNorm before each ReLU of the value; the authors have none for AntMaze and for imitation."""
    tanh_mean: bool = False
    """Squash the policy's mean; the authors do so for imitation alone."""
    weight_decay: float = 1e-4
    """L2 of the policy inside Adam, log-std included."""
    discount: float = 0.99
    """gamma."""
    tau: float = 0.005
    """Step of the slow value, every update."""
    reward_scale: float = 1.0
    """Rewards are used as scale * r + shift; of no effect with a demonstration, whose rewards count as 0."""
    reward_shift: float = 0.0
    """See reward_scale."""
    return_blocks: Literal["none", "legacy", "episodes"] = "none"
    """Multiply rewards (before reward_scale and reward_shift) by 1000 / (largest - smallest return) of the data's
    blocks: "legacy" cuts at a terminal or after 1000 rows as the authors do for MuJoCo, "episodes" at true ends. Of no
    effect with a demonstration."""
    demonstration: int | None = None
    """Imitate this whole episode of the data, counted from 0: other rows are left out and rewards count as 0, whatever
    return_blocks, reward_scale and reward_shift say. The authors then set lam=0.4, learning_rate=1e-4,
    layer_norm=False, tanh_mean=True, normalise_obs=True, and weight_decay 1e-5 (hopper-expert) or 1e-3
    (walker2d-expert)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        check.widths("actor_hidden")
        if not 0 < self.lam < 1:
            check.reject("lam", "a number between 0 and 1", "e.g. lam=0.6")
        check.not_negative("eta", "weight_decay")
        check.positive("weight_cap")
        check.share("discount", "tau")
        check.one_of("gradient", "orthogonal", "semi", "true")
        check.one_of("divergence", "chi2", "kl")
        check.one_of("policy_weight", "relu_residual", "omega")
        check.one_of("return_blocks", "none", "legacy", "episodes")
        if self.demonstration is not None and self.demonstration < 0:
            check.reject("demonstration", "None or the number of an episode, from 0", "e.g. demonstration=1")


@dataclass(frozen=True)
class ReBRACConfig(Config):
    """TD3 with separate behaviour penalties in actor and critic."""

    batch_size: int = 1024
    """Rows per update (locomotion; 256 for Adroit, AntMaze and Maze2d)."""
    learning_rate: float = 1e-3
    """Adam's, of the actor."""
    critic_learning_rate: float = 1e-3
    """Adam's, of the critics."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of every network."""
    normalise_obs: bool = False
    """The authors use raw observations."""
    actor_beta: float = 0.01
    """beta1: weight of the squared distance to the data's action in the actor's loss."""
    critic_beta: float = 0.01
    """beta2: weight of the squared distance to the data's next action in the critic's target."""
    discount: float = 0.99
    """gamma (0.999 for AntMaze)."""
    tau: float = 0.005
    """Polyak step of the target networks."""
    policy_noise: float = 0.2
    """Standard deviation of the target policy's noise, in units of half the action range."""
    noise_clip: float = 0.5
    """Bound of that noise, in the same units."""
    policy_period: int = 2
    """The actor and all target networks move every this many updates, from the first on."""
    normalise_q: bool = True
    """Divide the actor's value term by mean |Q|."""
    actor_value: Literal["min", "q1"] = "min"
    """What the actor maximises: the smaller of the two critics, or the first."""
    critic_layer_norm: bool = True
    """LayerNorm after the ReLU of each hidden layer of the critics."""
    actor_layer_norm: bool = False
    """The same in the actor."""
    slow_actor_lag: bool = True
    """The actor's slow copy moves towards the parameters of before the step (the authors' code), or of after it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        check.not_negative("actor_beta", "critic_beta", "policy_noise", "noise_clip")
        check.positive("critic_learning_rate", "policy_period")
        check.share("discount", "tau")
        check.one_of("actor_value", "min", "q1")


@dataclass(frozen=True)
class A2PRConfig(TD3BCConfig):
    """Adaptive advantage-guided policy regularisation; the defaults are the authors' command line's."""

    alpha: float = 2.5
    """Weight of the value against the penalty; at 0 the gated penalty alone remains, which is no behaviour cloning: its
    target may be the VAE's action, and rows with closed gates have none."""
    stats_dtype: Literal["float64", "float32"] = "float64"
    """Precision of the observations' mean and deviation. A deliberate difference: the authors take float32, which
    gives their normaliser bit for bit."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256, 256, 256)
    """Widths of the hidden layers of critics and state value."""
    vae_hidden: tuple[int, ...] = (750, 750)
    """Widths of the hidden layers of the VAE's encoder and decoder; its latent has twice the action's size."""
    value_learning_rate: float = 3e-4
    """Adam's step size for the state value."""
    vae_learning_rate: float = 1e-3
    """Adam's step size for the VAE."""
    bc_weight: float = 0.5
    """Weight of the behaviour penalty in the actor's loss (the authors' "mask"), tuned per dataset from 0.4 to 15."""
    vae_weight: float = 1.0
    """Weight of the VAE's reconstruction on rows of enough advantage; other rows have 0."""
    kl_weight: float = 0.5
    """Weight of the VAE's KL term, on all rows."""
    advantage_threshold: float = 0.0
    """Rows with Q(s, a) - V(s) strictly above it train the VAE's reconstruction (the paper's epsilon_A)."""
    vae_source: Literal["posterior", "prior"] = "posterior"
    """The VAE's proposal: reconstruction of the policy's own action (code), or a draw from N(0, I) clipped to
    +-0.5 and decoded, a sample of the enhanced behaviour policy (the paper's text)."""
    detach_vae_target: bool = False
    """Take the proposal as a constant (the paper's text); the code lets the gradient pass through it. Of no effect with
    vae_source "prior", whose proposal does not depend on the policy."""
    fresh_value: bool = False
    """Advantages against V(s) after its own step of this update; the code uses V(s) from before it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check = Checker(self)
        check.widths("critic_hidden", "vae_hidden")
        check.positive("value_learning_rate", "vae_learning_rate")
        check.not_negative("bc_weight", "vae_weight", "kl_weight")
        check.one_of("vae_source", "posterior", "prior")


CONFIGS: dict[str, type[Config]] = {
    "bc": BCConfig,
    "td3bc": TD3BCConfig,
    "iql": IQLConfig,
    "odice": ODICEConfig,
    "prdc": PRDCConfig,
    "a2pr": A2PRConfig,
    "rebrac": ReBRACConfig,
}
"""Command-line name of each algorithm -> its hyperparameters."""
