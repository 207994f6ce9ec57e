"""Contextual bandits: one context for all arms each round, and what pays depends on it."""
