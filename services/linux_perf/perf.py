"""What a kernel's perf has once, for all its CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.costs import Cost
from services.linux_perf.context import Context
from services.linux_perf.event import PerfEvent
from services.linux_perf.perf_cpu import PerfCpu
from services.linux_perf.sampling import SampleLimits
from services.linux_perf.state import load, save


@dataclass(frozen=True, slots=True)
class PerfConfig:
    """What one CPU's driver knows before it probes."""

    pmuver: int  # ID_AA64DFR0_EL1.PMUVer as this kernel reads it
    hyp: bool = False  # is_kernel_in_hyp_mode(): a VHE host
    cpu: int = 0  # this CPU's number, where its irq_work IPI goes
    icntr: bool = False  # FEAT_PMUv3_ICNTR
    high_to_low: bool = False  # allocate event counters from the highest index (partitioned v8 hosts)
    mux_interval: int = 0  # cycles; 0: perf_event_mux_interval_ms' default, 1000/HZ ms
    record_bytes: int = 48  # of one sample's record: header, ip, tid, time, id, period
    watermark_bytes: int = 256 * 1024  # of the ring buffer, at which its reader is woken: half of perf record's 512 KiB


class Perf:
    """One kernel's perf: the contexts of its tasks, which move between CPUs, and its limits on sampling."""

    def __init__(self, *, frequency_hz: int, hz: int, costs: Mapping[str, int]) -> None:
        """`costs`: cycles by lower-case name of `services.costs.Cost`, as an actor gets them in its BOOT payload."""
        self.frequency_hz = frequency_hz
        self.hz = hz
        self.costs = {cost: costs.get(cost.name.lower(), 0) for cost in Cost}
        self.tick_ns = (10**9 + hz // 2) // hz  # TICK_NSEC
        self.limits = SampleLimits(hz)
        self.cpus: list[PerfCpu] = []
        self.tasks: dict[int, Context] = {}
        self.events: dict[int, PerfEvent] = {}  # open ones, by id
        self.opened = 0

    def add_cpu(self, config: PerfConfig) -> PerfCpu:
        cpu = PerfCpu(self, config)
        self.cpus.append(cpu)
        return cpu

    def cpu(self, number: int) -> PerfCpu:
        """The CPU with this number in its configuration. Raises KeyError."""
        for cpu in self.cpus:
            if cpu.config.cpu == number:
                return cpu
        raise KeyError(f"perf has no CPU {number}")

    def state(self) -> dict[str, Any]:
        """All of it between two entries, JSON-able."""
        return save(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Perf:
        """The perf that `state()` was taken of."""
        perf = cls(frequency_hz=state["frequency_hz"], hz=state["hz"], costs=state["costs"])
        for config in state["configs"]:
            perf.add_cpu(PerfConfig(**config))
        load(perf, state)
        return perf
