"""kvm's side of software that attends a CPU."""

from __future__ import annotations

from typing import Protocol

from services.cpu import Cpu, Entry, Executor, Software
from services.kvm.errors import ProtocolError


class Attendant(Protocol):
    """Software as kvm enters it: in this process (`LocalSoftware`) or at the end of a stream (`services.attend`)."""

    async def enter(self, executor: Executor, entry: Entry) -> bytes:
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

    async def enter(self, executor: Executor, entry: Entry) -> bytes:
        """As `Attendant`. The executor of a CPU stays the same."""
        cpu = self._cpu
        if cpu is None:
            cpu = self._cpu = Cpu(executor)
        cpu.now = entry.now
        await self.software.enter(cpu, entry)
        burst, answer = cpu.done()
        time = executor.execute(burst, answer)
        if not isinstance(time, int):
            await time
        return answer

    def refuse(self, who: str, problem: str) -> Exception:
        """As `Attendant`."""
        return ProtocolError(f"{who}: {problem}")
