"""The same learners on a CUDA device: same draws, same updates to rounding, no waiting for the host in an update."""

import numpy as np
import pytest
import torch

from orbs import Philox
from tests.offline_rl.contract import CASES

pytestmark = pytest.mark.gpu


def test_random_numbers_are_the_cpus():
    for device in ("cpu", "cuda"):
        words = Philox(3, [0, 5], device).words("x", 7, 3, 10).cpu()
        assert torch.equal(words, Philox(3, [0, 5]).words("x", 7, 3, 10))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_updates_agree_with_the_cpu_in_float64(case):
    states = []
    for device in ("cpu", "cuda"):
        learner = case.build(runs=3, device=device, dtype=torch.float64)
        learner.update(20)
        states.append({name: tensor.cpu() for name, tensor in learner.state_dict().items()})
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_update_never_waits_for_the_host(case):
    learner = case.build(runs=2, device="cuda")
    learner.update(4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.update(4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(np.isfinite(value).all() for value in learner.metrics().values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_saved_on_cuda_acts_on_the_cpu(case, tmp_path):
    learner = case.build(device="cuda")
    learner.update(4)
    learner.save(tmp_path / "checkpoint.safetensors")
    obs = np.zeros((4, learner.obs_dim), np.float32)
    np.testing.assert_allclose(
        case.kind.load(tmp_path / "checkpoint.safetensors").act(obs), learner.act(obs), atol=1e-5
    )
