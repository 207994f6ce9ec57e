"""A recorder for machines without a GPU: what a CUDA graph does, with the CPU's operations.

The operations of a piece of work are written down with the tensors they were given; a replay does them again on the
same memory and runs no Python of the work. As with a graph, numbers that Python computed are burnt in, and whoever asks
the device for a number while recording gets an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result the host waits for, or whose shape depends on numbers.
FORBIDDEN = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::equal",
    "aten::is_nonzero",
    "aten::repeat_interleave.Tensor",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::lift_fresh",  # a tensor of numbers that Python holds: copied from the host
}


class Tape:
    """`offline_rl.recording.Recorder`; `recorded` counts the operations of the latest recording."""

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        mode = _Writing()
        try:
            with mode:
                work()
        finally:
            mode.undo()
        self.recorded = len(mode.done)

        def replay() -> None:
            with torch.no_grad():
                for function, given, named, _, kept in mode.done:
                    again = tree_leaves(function(*given, **named))
                    for old, new in zip(kept, again, strict=True):
                        if old is not None:
                            old.copy_(new)

        return replay


class _Writing(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[Any] = []
        self._own: set[int] = set()  # memory that the work itself took
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        name = function.name()
        masked = name.startswith(("aten::index.", "aten::index_put", "aten::_index_put")) and any(
            map(_is_mask, args[1])
        )
        if name in FORBIDDEN or masked:
            raise RuntimeError(f"{name} would wait for the host while a block is recorded")
        given = [x for x in tree_leaves((args, named)) if isinstance(x, Tensor)]
        if function._schema.is_mutable:
            for x in given:
                self._remember(x)
        answer = function(*args, **named)
        memory = {x.untyped_storage().data_ptr() for x in given}
        kept: list[Tensor | None] = []
        for x in tree_leaves(answer):
            fresh = isinstance(x, Tensor) and x.numel() > 0 and x.untyped_storage().data_ptr() not in memory
            if fresh:
                self._own.add(x.untyped_storage().data_ptr())
            kept.append(x.detach() if fresh else None)
        # The answer is kept, so that no memory is given to another tensor of the work.
        self.done.append((function, args, named, answer, kept))
        return answer

    def _remember(self, x: Tensor) -> None:
        place = x.untyped_storage().data_ptr()
        if x.numel() and place not in self._own and place not in self._before:
            whole = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())  # type: ignore[call-overload]
            self._before[place] = (whole, whole.clone())

    def undo(self) -> None:
        """Put back what was there before, as if the work had been written down alone."""
        for whole, old in self._before.values():
            whole.copy_(old)


def _is_mask(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)
