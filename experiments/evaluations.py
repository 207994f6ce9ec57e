"""The evaluations of one training: in its own process, or in workers while training goes on.

Either way they are computed on the CPU by one thread from the policy as it is at their step, so that the numbers are
the same. What goes wrong in a worker is said, and the evaluation is played again here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments.eval_workers import Setup, Task, Workers, copy_of, policy_of
from experiments.evaluate import Evaluator, Played, play

__all__ = ["Evaluations"]


class Evaluations:
    """One evaluation at a time: `begin`, then `collect`.

    Args:
        evaluator: closed by its owner.
        matmul: kernels of the training's matrix products.
        valued: whether the critic is judged as well; its rows are taken together, so that one worker plays all.
        portable: whether the learner can be copied. If not, it plays in this process, on its own device.
        workers: processes to play in, at most one a slot; 0 for this process.

    Attributes:
        waited: seconds that this process could not train for them, so far.
        cost: those of the latest evaluation.
    """

    def __init__(
        self, evaluator: Evaluator, matmul: Any, valued: bool = False, portable: bool = True, workers: int = 0
    ) -> None:
        self.evaluator, self.matmul, self.valued, self.portable = evaluator, matmul, valued, portable
        self.count = min(workers, 1 if valued else len(evaluator.slots)) if portable else 0
        self.waited = self.cost = 0.0
        self._workers: Workers | None = None
        self._task: Task | None = None
        self._played: Played | None = None
        self._here: Any = None

    def start(self) -> None:
        """Start the workers, if there are to be some."""
        if self.count:
            one = self.evaluator
            try:
                self._workers = Workers(Setup(one.env_id, one.run_ids, one.episodes, one.seed, self.matmul), self.count)
            except ChildProcessError as error:
                self._give_up(error)

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def begin(self, learner: Any, step: int, skip: Sequence[int]) -> None:
        """Evaluate the learner as it is now; returns when that is done, or, where workers do it, at once."""
        began, self.cost = time.perf_counter(), 0.0
        if self._workers is not None and len(skip) < len(self.evaluator.run_ids):
            self._task = Task(copy_of(learner), step, list(skip), self.valued)
            self._workers.begin(self._task)
        else:
            if self.portable and learner.device.type != "cpu":
                learner = self._copied(Task(copy_of(learner), step, list(skip), self.valued))
            self._played = play(self.evaluator, learner, step, skip, self.valued, self.matmul)
        self._count(began)

    def ready(self) -> bool:
        """Whether `collect` would not wait."""
        return self._workers is None or self._task is None or self._workers.ready()

    def collect(self) -> Played:
        """What was begun; waits for it. Says so where a worker has failed, and plays it here."""
        began = time.perf_counter()
        if self._task is not None and self._workers is not None:
            try:
                self._played = self._workers.collect()
            except ChildProcessError as error:
                self._give_up(error)
        if self._task is not None and self._played is None:
            task = self._task
            learner = self._copied(task)
            self._played = play(self.evaluator, learner, task.step, task.skip, self.valued, self.matmul)
        played = self._played
        assert played is not None
        self._task = self._played = None
        self._count(began)
        return played

    def _copied(self, task: Task) -> Any:
        self._here = policy_of(task.copy, self._here)
        return self._here

    def _give_up(self, error: ChildProcessError) -> None:
        self.close()
        self.count = 0
        print(f"evaluation worker failed: {error}. Evaluating in the training process from here on.", file=sys.stderr)

    def _count(self, began: float) -> None:
        spent = time.perf_counter() - began
        self.cost += spent
        self.waited += spent
