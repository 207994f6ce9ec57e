"""Every named learner against plain loops for one run."""

import numpy as np
import pytest

from tests.bandits.online_learning import reference_online
from tests.bandits.online_learning.problems import HOMES, VARIANTS, built, play, sequence

ROUNDS, RUNS = 50, 2


@pytest.mark.parametrize("kind", ["random", "adversarial", "burst"])
@pytest.mark.parametrize(("name", "given"), VARIANTS, ids=lambda value: str(value))
def test_points(name, given, kind):
    # The root of a singular matrix magnifies its rounding, 1e-16, to 1e-8.
    tolerance = 1e-7 if given.get("matrix") else 2e-10
    points, seen = play(built(name, given, RUNS), sequence(kind, HOMES[name], ROUNDS, RUNS), ROUNDS)
    for run in range(RUNS):
        right = reference_online.play(name, seen[:, run].numpy(), given, {**HOMES[name], "run": run})
        np.testing.assert_allclose(points[:, run].numpy(), np.array(right), rtol=0, atol=tolerance)
