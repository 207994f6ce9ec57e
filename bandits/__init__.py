"""Learners judged by regret: bandits, online convex optimisation, episodic MDPs. They arrive with the regret harness."""
