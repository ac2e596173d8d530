"""A guest's handler is entered once for an interrupt, whichever path its accesses take."""

from __future__ import annotations

import pytest
import trio

from pmulab import scenario
from services import embedded
from services.cpu import Cpu
from services.linux_perf.perf import PerfCpu


@pytest.mark.parametrize(
    "design", ["emulated", "partitioned", "partitioned,traps=slow-path", "partitioned,traps=fast-path"]
)
def test_a_handler_that_clears_its_flag_is_not_entered_again(monkeypatch: pytest.MonkeyPatch, design: str) -> None:
    """Else it finds no flag (IRQ_NONE). On the fast path nobody looks at the line when the flag is cleared, only after
    the handler."""
    handlers = 0
    handle_irq = PerfCpu.handle_irq

    async def recorded(perf: PerfCpu, cpu: Cpu) -> bool:
        nonlocal handlers
        handlers += 1
        assert await handle_irq(perf, cpu)
        return True

    monkeypatch.setattr(PerfCpu, "handle_irq", recorded)
    (experiment,) = scenario.load("quick", designs=[design], overrides=["guest.task.seconds=0.02"]).experiments
    plain = trio.run(embedded.run, experiment)
    assert handlers > 20 < plain["interrupts_injected"]
