"""How cost grows: which cells, what a cell measures, and the verdict on memory."""

import numpy as np
import pandas as pd

from experiments.benchmarks import growth


def test_cells():
    assert growth.cells([10, 20], [1, 4, 16], [64, 256, 1024]) == [
        (10, 1, 256), (10, 4, 256), (10, 16, 256), (20, 1, 256), (20, 4, 256), (10, 1, 64), (10, 1, 1024),
    ]  # fmt: skip


def test_a_cell_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "LARGE", 3000)
    growth.main(["--out", str(tmp_path), "--rows", "3000", "--runs", "2", "--batches", "16", "--seconds", "0.1"])
    table = pd.read_csv(tmp_path / "growth.csv")
    assert table["runs"].tolist() == [2]
    np.testing.assert_allclose(table["arrays_mb"], 3000 * (17 + 6 + 1 + 17 + 1 + 1) * 4 / 1e6)
    assert (table["run_updates_per_s"] > 0).all()
    assert (table["above_mb"] < 2000).all()
    text = (tmp_path / "growth.md").read_text()
    assert "| td3bc | 3000 | 2 | 16 |" in text
    assert "- 3000 rows, 2 runs: " in text


def test_the_verdict_is_on_the_largest_memory_of_large_datasets():
    def line(rows, runs, above):
        return {"rows": rows, "runs": runs, "above_mb": above, "arrays_mb": 344.0}

    small = line(1_000_000, 1, 9000.0)
    assert growth.verdicts([small]) == []
    assert growth.verdicts([small, line(2_000_000, 1, 700.4), line(2_000_000, 4, 3999.0)]) == [
        "- 2000000 rows, 4 runs: 3999 MB above the data's arrays (344 MB), within 4000 MB."
    ]
    (broken,) = growth.verdicts([line(2_000_000, 1, 4001.0)])
    assert broken.endswith("MORE THAN 4000 MB.")
