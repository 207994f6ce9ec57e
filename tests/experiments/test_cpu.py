"""Process settings: restored on exit, never changed by an import, float32 accuracy kept."""

import gc
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from experiments import cpu
from experiments.cpu import choose_matmul, cpu_settings
from experiments.train import train
from offline_rl.nearest import NearestRow
from offline_rl.neighbour_table import NeighbourTable, full_precision
from offline_rl.networks import mlp
from orbs import load_tensors
from tests.experiments.training import options


def test_settings_are_restored():
    threads, precision = torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision
    with cpu_settings("bf16", threads=1):
        assert torch.get_num_threads() == 1
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    assert torch.get_num_threads() == threads
    assert torch.backends.mkldnn.matmul.fp32_precision == precision


def test_chosen_kernels_keep_float32_accuracy():
    with cpu_settings(choose_matmul("auto")):
        a, b = torch.randn(256, 256), torch.randn(256, 256)
        error = (a @ b).double() - a.double() @ b.double()
    assert float(error.abs().max()) < 2e-4


@pytest.mark.parametrize(
    ("flags", "error", "wanted", "expected"),
    [
        ({"avx512_bf16"}, 5e-5, "auto", "bf16"),
        ({"avx512_bf16", "amx_tile"}, 5e-5, "auto", "float32"),
        ({"avx512_bf16"}, 1e-2, "auto", "float32"),
        ({"avx2"}, 5e-5, "auto", "float32"),
        ({"avx512_bf16"}, 5e-5, "float32", "float32"),
    ],
)
def test_choice_by_flags_and_measured_error(monkeypatch, flags, error, wanted, expected):
    monkeypatch.setattr("experiments.cpu._cpu_flags", lambda: flags)
    monkeypatch.setattr("experiments.cpu._error_of_bf16", lambda: error)
    assert choose_matmul(wanted) == expected


def test_asking_for_kernels_that_round_is_an_error(monkeypatch):
    monkeypatch.setattr("experiments.cpu._cpu_flags", lambda: {"avx512_bf16", "amx_tile"})
    monkeypatch.setattr("experiments.cpu._error_of_bf16", lambda: 1e-2)
    with pytest.raises(ValueError, match="matmul"):
        choose_matmul("bf16")


def test_import_changes_nothing():
    code = (
        "import torch; before = (torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision);"
        "import experiments.cpu, experiments.train, offline_rl, orbs;"
        "assert before == (torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def relative_error(found, exact):
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


ROUNDED, EXACT = (1e-3, 6e-3), (0.0, 1e-5)  # of bfloat16's 8 bits; of float32


def products(dtype=torch.float32):
    """Two layers, forward and backward, of what every network is made of: {name: tensor}."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 256, 128, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    sizes = [(128, 128), (1, 128), (128, 128), (1, 128)]
    weights = [torch.randn(2, *size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
    out = mlp(x, [weight.requires_grad_() for weight in weights])
    grads = torch.autograd.grad(out.square().sum(), [x, weights[0], weights[2]])
    return dict(zip(("output", "gradient of x", "first weights", "last weights"), (out, *grads), strict=True))


def modules(dtype=torch.float32):
    """The same of PyTorch's own modules, whose backward is not Python's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 128, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    torch.manual_seed(0)
    layer = torch.nn.Linear(128, 128).to(dtype)
    out = layer(x)
    grads = torch.autograd.grad(out.square().sum(), [x, layer.weight])
    return dict(zip(("output", "gradient of x", "weights"), (out, *grads), strict=True))


@pytest.mark.parametrize("network", [products, modules])
def test_bfloat16_rounds_products_forward_and_backward_and_is_off_afterwards(network):
    exact = network(torch.float64)
    with cpu_settings("bfloat16"):
        rounded = network()
    after = network()
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        assert ROUNDED[0] < relative_error(rounded[name], value) < 10 * ROUNDED[1], name  # some units switch
        assert relative_error(after[name], value) < EXACT[1], name


@pytest.mark.parametrize("side", ["gradient", "activations"])
def test_bfloat16_rounds_both_factors_of_a_backward_product(side):
    """One factor is exact in bfloat16, so what error there is comes from the other."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(1, 64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    if side == "gradient":
        x = x.to(torch.bfloat16).double()
    else:
        grad = grad.to(torch.bfloat16).double()
    weight = torch.zeros(1, 64, 64, requires_grad=True)
    with cpu_settings("bfloat16"):
        out = mlp(x.float(), [weight, torch.zeros(1, 1, 64)])
        (found,) = torch.autograd.grad(out, weight, grad.float())
    assert ROUNDED[0] < relative_error(found, x.transpose(1, 2) @ grad) < ROUNDED[1]


def test_bfloat16_multiplies_exactly_what_it_rounded_to():
    a, b = (torch.randn(64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    with cpu_settings("bfloat16"):
        found, sum_of = a @ b, torch.addmm(a, a, b)
    exact = a.bfloat16().double() @ b.bfloat16().double()
    assert relative_error(found, exact) < EXACT[1]
    assert relative_error(sum_of, a.double() + exact) < EXACT[1]  # what is added is not rounded


def test_bfloat16_leaves_exact_products_exact():
    a, b = (torch.randn(64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    with cpu_settings("bfloat16"):
        with full_precision():
            exact = a @ b
        rounded = a @ b
        double = a.double() @ b.double()
    assert relative_error(exact, double) < EXACT[1]
    assert relative_error(rounded, double) > ROUNDED[0]
    assert torch.equal(double, a.double() @ b.double())


def test_the_nearest_rows_are_the_same_under_bfloat16():
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(3000, 8)).astype(np.float32), rng.uniform(-1, 1, (3000, 3)).astype(np.float32)
    index, policy = torch.arange(0, 3000, 30)[None], torch.as_tensor(rng.uniform(-1, 1, (1, 100, 3)).astype(np.float32))

    def nearest():
        table = NeighbourTable.build(states, 16)
        search = NearestRow(torch.as_tensor(states), torch.as_tensor(actions), 2.0, table=table)
        return table, search.query(index, policy)

    table, (rows, certified) = nearest()
    with cpu_settings("bfloat16"):
        table_there, (rows_there, certified_there) = nearest()
    np.testing.assert_array_equal(table_there.neighbours, table.neighbours)
    np.testing.assert_array_equal(table_there.radius, table.radius)
    assert torch.equal(rows_there, rows)
    assert torch.equal(certified_there, certified)


def test_bfloat16_is_taken_on_every_chip_and_only_where_it_is_asked_for(monkeypatch):
    for flags, error in (({"avx2"}, 5e-5), ({"avx512_bf16"}, 5e-5), ({"avx512_bf16", "amx_tile"}, 1e-2)):
        monkeypatch.setattr("experiments.cpu._cpu_flags", lambda flags=flags: flags)
        monkeypatch.setattr("experiments.cpu._error_of_bf16", lambda error=error: error)
        assert choose_matmul("bfloat16") == "bfloat16"
        assert choose_matmul("auto") != "bfloat16"


def test_a_chip_that_rounds_does_it_itself(monkeypatch):
    """No rounding in software then: only the setting of the kernels, as "bf16" has it."""
    monkeypatch.setattr("experiments.cpu._error_of_bf16", lambda: 1e-2)
    monkeypatch.setattr(cpu, "_rounded", lambda x: pytest.fail("rounded in software"))
    before = torch.backends.mkldnn.matmul.fp32_precision
    with cpu_settings("bfloat16"):
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_a_run_says_bfloat16_and_a_resume_keeps_it(tmp_path, capsys):
    def trained(out, steps, **more):
        (folder,) = train(options(out, algos=("bc",), steps=steps, **more))
        return load_tensors(folder / "checkpoint.safetensors")[0], json.loads((folder / "config.json").read_text())

    straight, config = trained(tmp_path / "straight", 20, matmul="bfloat16")
    assert config["matmul"] == "bfloat16"
    trained(tmp_path / "halves", 10, matmul="bfloat16")
    resumed, config = trained(tmp_path / "halves", 20, resume=True)
    assert config["matmul"] == "bfloat16"
    assert "not the same bits" not in capsys.readouterr().out
    plain, config = trained(tmp_path / "plain", 20, matmul="float32")
    weights = [name for name in straight if straight[name].is_floating_point()]
    assert all(torch.equal(straight[name], resumed[name]) for name in weights)
    assert any(not torch.equal(straight[name], plain[name]) for name in weights)


def test_bfloat16_is_for_the_cpu(tmp_path):
    with pytest.raises(ValueError, match=r"--matmul: expected bfloat16 on a CPU, got --device cuda"):
        train(options(tmp_path, algos=("bc",), matmul="bfloat16", device="cuda"))


def test_what_was_there_is_no_garbage_to_look_through_until_the_outermost_settings_end():
    assert gc.get_freeze_count() == 0
    with cpu_settings():
        assert gc.get_freeze_count() > 10_000
        with cpu_settings():
            pass
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0
