"""Critics: values of their own, plugged into actors that call `actor_value` alone.

The interface is `Critic`; `TwinCritic` is TD3's pair. Another critic joins by implementing the protocol.
"""

from offline_rl.critics.interface import Batch, Critic, td_target
from offline_rl.critics.twin import TwinCritic

__all__ = ["Batch", "Critic", "TwinCritic", "td_target"]
