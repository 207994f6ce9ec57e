"""The comparison of scores under float32 and bfloat16 products: paired by run, told with its commands."""

import pandas as pd

from experiments.benchmarks import matmul_scores


def test_differences_are_paired_by_run():
    rows = [
        {"problem": "p", "algorithm": "a", "run": run, "updates": 9, "matmul": matmul, "score": 10.0 * run + more}
        for matmul, more in (("bfloat16", 1.0), ("float32", 0.0))
        for run in ((2, 0, 1) if matmul == "float32" else (0, 1, 2))
    ]
    (line,) = matmul_scores.table(pd.DataFrame(rows))[2:]
    assert line == "| p | a | 9 | 3 | 10.0 [-14.8, 34.8] | 11.0 [-13.8, 35.8] | 1.0 [1.0, 1.0] |"


def test_both_trainings_and_their_commands(tmp_path):
    asked = ["--algos", "bc", "--runs", "2", "--steps", "4", "--eval-every", "4", "--eval-episodes", "1"]
    matmul_scores.main(["--out", str(tmp_path), *asked])
    table = pd.read_csv(tmp_path / "bfloat16.csv")
    assert table.groupby("matmul")["run"].agg(list).to_dict() == {"bfloat16": [0, 1], "float32": [0, 1]}
    assert table["updates"].unique().tolist() == [4]
    text = (tmp_path / "bfloat16.md").read_text()
    assert "--algos bc --runs 2 --steps 4" in text
    assert "--matmul bfloat16 --out OUT/bfloat16" in text
    assert str(tmp_path) not in text
