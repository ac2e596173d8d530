"""kvm's side of software that attends a CPU."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from services.cpu import Cpu, Entry, EntryExecutor, Eventual, Software
from services.kvm.errors import ProtocolError


class Attendant(Protocol):
    """Software as kvm enters it: in this process (`LocalSoftware`) or at the end of a stream (`services.attend`)."""

    def enter(self, executor: EntryExecutor, entry: Entry) -> Eventual[bytes]:
        """Run the handler of `entry` to its end, executing its bursts on `executor`; its answer."""
        ...

    def refuse(self, who: str, problem: str) -> Exception:
        """The exception to raise: `who`, this software, has answered an entry wrongly, and is not entered again."""
        ...


class LocalSoftware:
    """Software in the same process: a direct call, never a checkpoint."""

    DERIVED = ("software", "_cpu")  # a Cpu holds nothing between entries
    __slots__ = DERIVED

    def __init__(self, software: Software) -> None:
        self.software = software
        self._cpu: Cpu | None = None

    def enter(self, executor: EntryExecutor, entry: Entry) -> Eventual[bytes]:
        """As `Attendant`. The executor of a CPU stays the same."""
        cpu = self._cpu
        if cpu is None:
            cpu = self._cpu = Cpu(executor)
        cpu.now = entry.now
        try:
            work = self.software.enter(cpu, entry)
            return cpu.done() if work is None else self._worked(cpu, work)
        except BaseException:
            self._cpu = None  # with what it had posted
            raise

    async def _worked(self, cpu: Cpu, work: Coroutine[Any, Any, object]) -> bytes:
        try:
            await work
            answer = cpu.done()
            return answer if isinstance(answer, bytes) else await answer
        except BaseException:
            self._cpu = None
            raise

    def refuse(self, who: str, problem: str) -> Exception:
        """As `Attendant`."""
        return ProtocolError(f"{who}: {problem}")
