"""Bandits with K arms: stochastic and adversarial. One algorithm or tight family a file; `named.py` builds by name."""
