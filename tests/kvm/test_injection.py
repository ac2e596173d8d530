"""A guest's handler is entered once for an interrupt, whichever path its accesses take."""

from __future__ import annotations

import pytest
import trio

from pmulab import scenario
from services import embedded


@pytest.mark.parametrize(
    "design", ["emulated", "partitioned", "partitioned,traps=slow-path", "partitioned,traps=fast-path"]
)
def test_a_handler_that_clears_its_flag_is_not_entered_again(design: str) -> None:
    # On the fast path nobody looks at the line when the flag is cleared, only after the handler.
    (experiment,) = scenario.load("quick", designs=[design], overrides=["guest.task.seconds=0.02"]).experiments
    plain = trio.run(embedded.run, experiment)
    handlers = plain["traps"]["PMOVSCLR_EL0:r"]  # each handler reads it once, nobody else does
    assert 20 < handlers <= plain["interrupts_injected"]
