"""Log-barrier FTRL with dilated bonuses: Dai, Luo, Wei and Zimmert, arXiv 2301.12942, algorithm 1.

For any real losses, without a lower bound, its policies p_k satisfy, against every u in the simplex,
sum_k <p_k - u, c_k> <= (Psi(u) - Psi(uniform))/eta + eta sum_k sum_a p_{k,a} c_{k,a}^2, Psi(p) = sum_a ln(1/p_a);
exponential weights satisfy theirs only while eta c >= -1. Regret of order sqrt(A d H^6 K).
"""

from __future__ import annotations

import math

from torch import Tensor

from bandits.mdp.ftrl_base import DilatedFTRL, Rates
from bandits.mdp.pol_opt import entropy_rate
from bandits.online_learning.simplex_solvers import LARGEST, log_barrier

__all__ = ["LogBarrierFTRL", "log_barrier_rates"]


def log_barrier_rates(
    tuning: str, actions: int, dimension: int, steps: int, horizon: int, c: float = 32.0, scale: float = 1 / 16
) -> Rates:
    """Rates of `LogBarrierFTRL` for K = horizon episodes of H = steps.

    "practical": eta = c sqrt(A ln K/(dK))/3, gamma = scale H sqrt(ln A/(dK)), beta = 0.02 scale H eta.
    "theory": eta = sqrt(A ln K/(d K H^4)), beta = 8 eta H^2, gamma = 12 eta beta H^2.
    """
    base = math.sqrt(actions * math.log(max(2, horizon)) / (dimension * max(1, horizon)))
    if tuning == "practical":
        eta = c * base / 3.0
        gamma = scale * steps * entropy_rate(actions, dimension, horizon, 1.0)
        return Rates(eta, 0.02 * scale * steps * eta, gamma)
    eta = base / steps**2
    beta = 8.0 * eta * steps**2
    return Rates(eta, beta, 12.0 * eta * beta * steps**2)


class LogBarrierFTRL(DilatedFTRL):
    """pi = argmin_p <p, Cum> + (1/eta) sum_a ln(1/p_a), by Newton's iteration to machine precision.

    Arguments as of `DilatedFTRL`.
    """

    def policy_of(self, cumulative: Tensor) -> Tensor:
        eta = min(self.rates.eta, LARGEST)
        return log_barrier(cumulative, eta)[0] if eta > 0 else self.uniform()
