"""Learners judged by regret: bandits, online convex optimisation, episodic MDPs. They come with the regret harness."""
