"""perf_pmu_resched_update() of v7 takes the lock of perf's contexts with interrupts on, v8 with interrupts off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.cpu import Software, Timer
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from tests.kvm.scripted import Scripted, experiment, simulation
from tests.kvm.test_designs import INSTRUCTIONS, with_host
from tests.kvm.test_kvm_steps import Opening

MULTIPLEXED = [INSTRUCTIONS] * 12  # on ten counters
DELAYS = range(0, 60_000, 2_000)  # cycles from before the switch to a vCPU: up to behind its load


async def load(design: str, delay: int, host: Software) -> str:
    """A vCPU that owns its range is loaded, and the host's mux timer is due `delay` from before that on: how it hangs,
    or nothing."""
    made = simulation(with_host(experiment(design), *MULTIPLEXED), Scripted())
    made.attend_host(0, LocalSoftware(host))
    await made.step()  # boots
    (pcpu,), (vcpu,) = made.pcpus, made.vcpus
    vcpu.vpmu.context.owned = True  # type: ignore[attr-defined]
    pcpu.timers[Timer.MUX] = pcpu.now + delay
    pcpu.rearm()
    while pcpu.rq.current is not vcpu and not made.hung:
        await made.step()
    return made.hung


async def ends(design: str, attending: Callable[[], Software]) -> set[str]:
    """How the loads end, wherever the timer expires: what the deadlock is said to be, or nothing."""
    return {(await load(design, delay, attending())).partition(": ")[2] for delay in DELAYS}


DEADLOCK = (
    "{} waits for the lock of perf's contexts, which perf_pmu_resched_update() holds on this CPU with interrupts on: "
    "a deadlock (I12)"
)


@pytest.mark.parametrize(
    ("attending", "who"),
    [
        (lambda: HostPerf().attend(0), "the mux timer (perf_rotate_context)"),
        (Opening, "an IPI (event_function)"),  # in the timer's place a user opens an event on that CPU
    ],
)
async def test_an_interrupt_s_handler_spins_on_the_lock_that_v7_s_load_holds(
    attending: Callable[[], Software], who: str
) -> None:
    """B56: a deadlock of the CPU with itself, where the interrupt comes while the host's events are rescheduled."""
    assert await ends("partitioned-v7", attending) == {"", DEADLOCK.format(who)}
    for design in ("partitioned-v8", "partitioned"):
        assert await ends(design, attending) == {""}
