"""Published scores: the table, how names are found, and what is said of names that are not there."""

from __future__ import annotations

import pytest

from experiments import published
from experiments.cli import main


def test_every_number_has_a_source() -> None:
    found = published.scores()
    assert len(found) == 631
    assert all(one.source and one.algorithm and one.dataset for one in found)
    assert all(-20 < one.mean < 200 and (one.std is None or one.std >= 0) for one in found)


def test_known_numbers() -> None:
    (one,) = published.find("prdc", "hopper-medium-v2")
    assert (one.algorithm, one.mean, one.std) == ("PRDC", 100.3, 0.2)
    assert "2306.06569" in one.source
    last, *_ = published.find("BC", "halfcheetah-medium-v2")
    assert (last.mean, last.std) == (42.4, 0.19)
    assert "Last Scores" in last.source


@pytest.mark.parametrize("spelling", ["TD3+BC", "td3bc", "td3-bc", "Td3_BC"])
def test_any_spelling(spelling: str) -> None:
    assert len(published.find(spelling)) == 122


def test_beginnings_and_everything() -> None:
    names = {one.dataset for one in published.find("IQL", "antmaze-large")}
    assert names == {"antmaze-large-diverse-v2", "antmaze-large-play-v2"}
    assert len(published.find()) == 631


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["published", "PRDC", "hopper-medium-v2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("PRDC ")
    assert "100.3 ± 0.2" in out
    assert main(["published", "PRDCC"]) == 2
    assert "did you mean 'PRDC'?" in capsys.readouterr().err
    assert main(["published", "PRDC", "hoper-medium-v2"]) == 2
    assert "did you mean 'hopper-medium-v2'?" in capsys.readouterr().err
