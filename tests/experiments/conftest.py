"""Fixtures of the harness's tests."""

import pytest

from experiments import eval_workers


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """One neighbour cache for the whole test session, not the user's."""
    monkeypatch.setenv("ORBS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _one_core(monkeypatch):
    """No process for evaluations, which takes seconds to start, unless it is asked for by number."""
    monkeypatch.setattr(eval_workers, "cores", lambda: 1)
