"""Fixtures of the offline learners' tests."""

from __future__ import annotations

import pytest

from tests.offline_rl.contract import CASES


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Neighbour tables go into a folder of the session, never into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORBS_CACHE", str(tmp_path_factory.mktemp("neighbours")))
        yield


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    """Every algorithm under the contract."""
    return request.param


@pytest.fixture(params=[case for case in CASES if case.actor_critic], ids=lambda case: case.name)
def actor_critic(request):
    """Those with `critic`, `_actor_step` and `policy_period`."""
    return request.param
