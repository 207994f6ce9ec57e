"""Linear bandits: the mean reward of an arm is linear in its features, or a known function of such."""
