"""A thread is preempted in the midst of an interaction (preempt_schedule_irq): the rest of it waits for its next turn.

The rest is a coroutine, no data: as long as there is one, `Simulation.entered` says that no state can be taken.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

from services.cpu import going_on

Work = Coroutine[Any, Any, object]


class Preempted:
    """What is left of the interaction in which a thread has been preempted, if it has been."""

    DERIVED = ("work",)  # None wherever a state is taken
    __slots__ = DERIVED

    def __init__(self) -> None:
        self.work: Work | None = None

    @coroutine
    def here(self) -> Generator[Preempted, None, None]:
        """The interaction ends; who awaits this goes on when its thread has its next turn."""
        yield self

    def resume(self) -> Work:
        """The rest."""
        assert self.work is not None
        work, self.work = self.work, None
        return work

    def forget(self) -> None:
        """There is another past."""
        if self.work is not None:
            self.resume().close()


async def rest(work: Work, trap: object) -> None:
    """Of an interaction that waits for `trap`: up to its end, or to where its thread is preempted."""
    end = await going_on(work, trap, Preempted)
    if isinstance(end, Preempted):
        end.work = work
