"""Episodic MDPs with linear features: robust policy optimisation, and FTRL for losses that an adversary chooses."""
