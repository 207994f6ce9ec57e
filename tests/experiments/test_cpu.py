"""Process settings: restored on exit, never changed by an import, float32 accuracy kept."""

import subprocess
import sys

import pytest
import torch

from experiments.cpu import choose_matmul, cpu_settings


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
