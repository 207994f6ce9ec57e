"""Linear systems of the dynamical linear bandit, as JSON: see `envs.linear_system`."""
