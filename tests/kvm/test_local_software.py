"""Software in kvm's own process."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from services._pmu import OP_DONE, OP_ISB, Burst
from services.cpu import Cpu, Entry, EntryKind
from services.kvm.attendant import LocalSoftware


class Recorder:
    """An executor that notes the operations of each burst."""

    def __init__(self) -> None:
        self.bursts: list[list[int]] = []

    def execute(self, burst: Burst) -> int:
        self.bursts.append([code >> 24 for code in burst.arrays()[0]])
        return 0

    def finish(self, burst: Burst, answer: bytes) -> int:
        burst.done()
        self.execute(burst)
        burst.take()
        return 0


class FailsOnce:
    """A handler that posts an ISB, and fails the first time: at once, or after it has waited."""

    def __init__(self, *, waits: bool) -> None:
        self.waits = waits
        self.failed = False

    def enter(self, cpu: Cpu, entry: Entry) -> Coroutine[Any, Any, None] | None:
        if self.waits:
            return self._waits(cpu)
        self._posts(cpu)
        return None

    async def _waits(self, cpu: Cpu) -> None:
        await cpu.wait()
        self._posts(cpu)

    def _posts(self, cpu: Cpu) -> None:
        cpu.burst.isb()
        if not self.failed:
            self.failed = True
            raise RuntimeError("the handler failed")


async def _enter(software: LocalSoftware, executor: Recorder) -> None:
    work = software.enter(executor, Entry(EntryKind.TIMER, 0))
    if not isinstance(work, bytes):
        await work


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_failed_handler_has_posted_is_not_executed_in_the_next_entry(waits: bool) -> None:
    executor, software = Recorder(), LocalSoftware(FailsOnce(waits=waits))
    with pytest.raises(RuntimeError):
        await _enter(software, executor)
    executor.bursts.clear()
    await _enter(software, executor)
    assert executor.bursts == [*([[]] if waits else []), [OP_ISB, OP_DONE]]
