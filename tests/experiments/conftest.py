"""Fixtures of the harness's tests."""

import pytest


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """One neighbour cache for the whole test session, not the user's."""
    monkeypatch.setenv("ORBS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
