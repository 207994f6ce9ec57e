"""Fixtures of the interacting agents' tests."""

from __future__ import annotations

import pytest

from tests.offline_rl.online.contract import CASES


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def agent_case(request):
    """Every agent under the contract."""
    return request.param
