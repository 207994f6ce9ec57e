"""The same learners on a CUDA device: same draws, same updates to rounding, graphs, no waiting for the host."""

import numpy as np
import pytest
import torch

from offline_rl import learner as learner_module
from orbs import Philox
from tests.offline_rl.contract import CASES
from tests.offline_rl.online.contract import CASES as AGENTS
from tests.offline_rl.online.contract import play

pytestmark = pytest.mark.gpu


def test_random_numbers_are_the_cpus():
    for device in ("cpu", "cuda"):
        words = Philox(3, [0, 5], device).words("x", 7, 3, 10).cpu()
        assert torch.equal(words, Philox(3, [0, 5]).words("x", 7, 3, 10))


@pytest.mark.parametrize("graphs", [False, True], ids=["plain", "graphs"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_updates_agree_with_the_cpu_in_float64(case, graphs, monkeypatch):
    monkeypatch.setattr(learner_module, "RECORDED", 4)
    states = []
    for device in ("cpu", "cuda"):
        learner = case.build(runs=3, device=device, dtype=torch.float64)
        if device == "cuda" and not graphs:
            learner.record_with(None)
        learner.update(20)
        states.append({name: tensor.cpu() for name, tensor in learner.state_dict().items()})
    assert not graphs or learner._recordings.made > 0
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_graphs_agree_with_plain_updates_and_draw_new_numbers(case):
    plain, recorded = (case.build(runs=2, device="cuda", dtype=torch.float64) for _ in range(2))
    plain.record_with(None)
    for learner in (plain, recorded):
        learner.update(4 * learner_module.RECORDED + 5)
    assert recorded._recordings.made > 0
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(recorded.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    metrics = plain.metrics()
    for name, value in recorded.metrics().items():
        np.testing.assert_allclose(value, metrics[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_block_never_waits_for_the_host(case):
    """Recorded ones cannot; this is about plain ones, but for the second try that PRDC's may need."""
    learner = case.build(runs=2, device="cuda")
    learner.record_with(None)
    learner.update(4)
    block, search = learner._block, getattr(learner, "_search", None)

    def watched(count):
        again = search is not None and search.device_search.waits
        torch.cuda.set_sync_debug_mode("default" if again else "error")
        try:
            return block(count)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    learner._block = watched
    learner.update(4)
    assert all(np.isfinite(value).all() for value in learner.metrics().values())


def test_a_block_with_too_little_room_is_done_again_exactly(monkeypatch):
    case = next(case for case in CASES if case.name == "prdc")
    monkeypatch.setattr(case.kind, "_make_room", lambda self, search, needed: setattr(search, "capacity", 1))
    states = []
    for device in ("cpu", "cuda"):
        learner = case.build(runs=2, device=device, dtype=torch.float64, neighbours=4)
        learner.update(4 * learner_module.RECORDED)
        states.append({name: tensor.cpu() for name, tensor in learner.state_dict().items()})
    assert learner._recordings.made == 1
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_recorded_is_said_and_done_plainly():
    case = next(case for case in CASES if case.name == "td3bc")
    learner = case.build(runs=2, device="cuda")
    before = torch.cuda.current_stream()
    step = learner._step
    learner._step = lambda batch, noise: (step(batch, noise), batch.reward.sum().item())
    with pytest.warns(UserWarning, match="one by one from here on"):
        learner.update(3 * learner_module.RECORDED)
    assert torch.cuda.current_stream() == before
    assert learner.finite().all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_graphs_on_another_device_than_the_current_one():
    case = next(case for case in CASES if case.name == "td3bc")
    states = []
    for device in ("cuda:0", "cuda:1"):
        learner = case.build(runs=2, device=device, dtype=torch.float64)
        learner.update(4 * learner_module.RECORDED)
        assert learner._recordings.made == 1
        states.append({name: tensor.cpu() for name, tensor in learner.state_dict().items()})
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", AGENTS, ids=lambda case: case.name)
def test_recorded_agents_agree_with_plain_ones(case):
    small = {"hidden": (16, 16), "batch_size": 16, "capacity": 200, "dtype": torch.float64, "runs": 2}
    plain, recorded = (case.filled(130, device="cuda", **small) for _ in range(2))
    plain.record_with(None)
    for agent in (plain, recorded):
        play(agent, 14)
    assert recorded._recordings.made > 0
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(recorded.state_dict()[name], tensor, rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_saved_on_cuda_acts_on_the_cpu(case, tmp_path):
    learner = case.build(device="cuda")
    learner.update(4)
    learner.save(tmp_path / "checkpoint.safetensors")
    obs = np.zeros((4, learner.obs_dim), np.float32)
    np.testing.assert_allclose(
        case.kind.load(tmp_path / "checkpoint.safetensors").act(obs), learner.act(obs), atol=1e-5
    )
