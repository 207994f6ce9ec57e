"""The guard on speed: what it lets pass, what it fails on and what it says; its measurement, once and short."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.benchmarks import speed, speed_guard
from tests.experiments.test_speed import small_data

KEPT = Path(speed_guard.__file__).parent / "results" / "speed-guard.json"


def guard_file(tmp_path, **ratios):
    path = tmp_path / "kept.json"
    path.write_text(json.dumps({"ratios": {pair(name): ratio for name, ratio in ratios.items()}}))
    return path


def pair(name):
    """td3bc_x4 -> td3bc x4 / plain td3bc"""
    return f"{name.replace('_', ' ')} / plain {name.partition('_')[0]}"


@pytest.fixture
def measured(monkeypatch):
    """Sets what each measurement finds, one {name: ratio} a measurement, and notes their groups."""
    calls = []

    def set_to(*several):
        def measure(groups=("td3bc", "odice")):
            calls.append(list(groups))
            found = several[len(calls) - 1]
            return {pair(name): ratio for name, ratio in found.items() if name.partition("_")[0] in groups}

        monkeypatch.setattr(speed_guard, "measure", measure)
        return calls

    return set_to


def test_the_guard_passes_where_no_ratio_has_dropped_by_a_third(tmp_path, measured, capsys):
    calls = measured({"td3bc": 1.01, "odice": 9.0})
    speed.main(["--guard", str(guard_file(tmp_path, td3bc=1.5, odice=2.0))])
    assert "td3bc / plain td3bc: 1.01, was 1.50" in capsys.readouterr().out
    assert calls == [["td3bc", "odice"]]


def test_the_guard_fails_and_says_what_dropped_and_what_to_do(tmp_path, measured):
    measured({"td3bc": 0.98, "odice": 2.0}, {"td3bc": 0.99, "odice": 2.0})
    path = guard_file(tmp_path, td3bc=1.5, odice=2.0)
    with pytest.raises(SystemExit) as failed:
        speed.main(["--guard", str(path)])
    message = str(failed.value)
    assert "dropped by more than a third: td3bc / plain td3bc: 0.99, was 1.50; if that is meant" in message
    assert f"--keep {path}" in message
    assert "odice" not in message


def test_a_drop_has_to_be_seen_twice(tmp_path, measured):
    calls = measured({"td3bc": 0.5, "td3bc_x4": 1.5, "odice": 2.0}, {"td3bc": 1.4, "td3bc_x4": 0.5})
    speed.main(["--guard", str(guard_file(tmp_path, td3bc=1.5, td3bc_x4=1.5, odice=2.0))])
    assert calls == [["td3bc", "odice"], ["td3bc"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"ratios": {"dqn / plain dqn": 1.0}}', r"--guard: expected ratios that are measured .*, got dqn / plain dqn"),
        ('{"ratios": {}}', '--guard: expected a file with "ratios"'),
        ("[]", '--guard: expected a file with "ratios"'),
    ],
    ids=["unknown ratio", "no ratios", "a list"],
)
def test_a_file_that_says_nothing_is_an_error(tmp_path, measured, text, message):
    measured({"td3bc": 1.0})
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        speed.main(["--guard", str(path)])


def test_keep_writes_medians_that_guard_accepts(tmp_path, measured):
    path = tmp_path / "kept.json"
    measured({"td3bc": 1.0}, {"td3bc": 3.0}, {"td3bc": 1.25}, {"td3bc": 1.25})
    speed.main(["--keep", str(path)])
    facts = json.loads(path.read_text())
    assert facts["ratios"] == {"td3bc / plain td3bc": 1.25}
    assert {"machine", "versions", "command"} <= set(facts)
    speed.main(["--guard", str(path)])


def test_what_is_committed_is_what_is_measured(monkeypatch):
    """The ratios of CI's file, by a measurement too short to mean anything."""
    monkeypatch.setattr(speed_guard, "transitions", small_data)
    found = speed_guard.measure(settings=replace(speed_guard.SHORT, rows=2500, rounds=1, warm_up=1, length=0.01))
    assert all(ratio > 0 for ratio in found.values())
    kept = json.loads(KEPT.read_text())["ratios"]
    assert set(kept) == set(found)
    assert all(ratio > 0.9 for ratio in kept.values())
