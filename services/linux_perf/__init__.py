"""Linux's perf core and Arm PMUv3 driver, as of Linux 6.12, on one CPU's port.

Written once against `services.cpu.Cpu`; the host runs it at EL2, guests at EL1. Behaviour follows
kernel/events/core.c, drivers/perf/arm_pmu.c and drivers/perf/arm_pmuv3.c. Each module imports only those above it:

    attr  ring_buffer  event  bpf_maps  driver  shared  cpu_context  software  pmu  schedule  lifecycle  throttle
    sampling  swevent  reading  bperf  switch  inherit  kernel_counters  interrupts  cpu_pm  perf  tool  session

    perf = Perf(frequency_hz=3_000_000_000, hz=250, costs=costs)
    this_cpu = perf.add_cpu(PerfConfig(pmuver=6, hyp=False))
    await this_cpu.probe(cpu)
    event = this_cpu.open(EventAttr(event=0x11, disabled=True))
    await this_cpu.install(cpu, event, task=7)
    await this_cpu.enable(cpu, event)
    await this_cpu.settle(cpu)
"""

from services.linux_perf.attr import EventAttr, State
from services.linux_perf.event import Context, PerfEvent
from services.linux_perf.perf import Perf, PerfCpu
from services.linux_perf.ring_buffer import NOBODY, RECORDS_PAGE, RingBuffer
from services.linux_perf.session import Session
from services.linux_perf.shared import PerfConfig, Probed

__all__ = [
    "NOBODY",
    "RECORDS_PAGE",
    "Context",
    "EventAttr",
    "Perf",
    "PerfConfig",
    "PerfCpu",
    "PerfEvent",
    "Probed",
    "RingBuffer",
    "Session",
    "State",
]
