"""Fixtures and skips shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

CHECKOUT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)  # processes, not threads, use the cores; a busy machine slows two threads to a crawl


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device, torch sees none")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets: $ORBS_SHARED_DATA, or ../shared/data beside the checkout."""
    stated = os.environ.get("ORBS_SHARED_DATA")
    folder = Path(stated) if stated else CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no folder of real datasets at {folder} (set ORBS_SHARED_DATA to where it is)")
    return folder
