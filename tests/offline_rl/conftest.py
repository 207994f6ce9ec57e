"""Fixtures of the offline learners' tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Neighbour tables go into a folder of the session, never into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORBS_CACHE", str(tmp_path_factory.mktemp("neighbours")))
        yield
