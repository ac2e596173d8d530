"""A vCPU that is nothing but what a design may ask of it, on a machine of one CPU; what the design does is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services._pmu import OP_MRS, Burst, Machine, Stop, register_name
from services.costs import Cost
from services.cpu import Call, Row
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.errors import InjectUndef, RetryAccess
from services.kvm.guest_pmu import GuestPmu
from services.kvm.irqs import Irqs


class StubVcpu:
    """`services.kvm.vpmu.KvmVcpu`. `told`: accesses as ("r" or "w", register), calls of the host's perf as words."""

    def __init__(self, spec: CpuSpec, counters: int) -> None:
        self.id = 0
        self.spec = spec
        self.pmu = GuestPmu(counters, spec.pmuver)
        self.host_has_events = False
        self.host_userenr = 0
        self.arm_pmu = 0
        self.told: list[str] = []
        self.kicks = 0
        self.preemptible = True
        self.irqs = Irqs.ON
        features = {"counters": spec.counters, "pmuver": spec.pmuver, "fgt": spec.fgt}
        features |= {"hpmn0": int(spec.hpmn0), "icntr": int(spec.icntr)}
        self.machine = Machine([features], [], mrs_cycles=1, msr_cycles=1, isb_cycles=1)
        self.host, self.guest = self.machine.add_context(False), self.machine.add_context(True)
        self.machine.add_profile([])
        self.machine.set_running(0, self.host, 2, 0)

    def kvm(self, burst: Burst, again: Callable[[], Burst] | None = None) -> list[int]:
        stop = self.machine.execute(0, burst, 0, False)
        while isinstance(stop, Stop):  # what is UNDEFINED, as in PCpu.kvm
            stop = self.machine.execute(0, burst, stop.index + 1, False)
        for code in burst.arrays()[0]:
            self.told.append(f"{ {OP_MRS: 'r'}.get(code >> 24, 'w') } {register_name(code & 0xFFFF)}")
        return burst.values()

    kvm_irqs_off = kvm

    async def read(self, register: int) -> int:
        self.told.append(f"r {register_name(register)}")
        return self.machine.read(0, register)

    async def write(self, register: int, value: int) -> None:
        self.told.append(f"w {register_name(register)}")
        self.machine.write(0, register, value)

    async def charge(self, cost: Cost) -> None:
        """It takes none."""

    def local_irq_save(self) -> Irqs:
        return self.irqs

    def call(self, rows: list[Row], account: Account = Account.PERF, *, calls: int = 0, reads: int = 0) -> list[int]:
        for code, first, *_ in rows:
            self.told.append(f"{Call(code).name} {first:#x}")
        return []

    def set_account(self, account: Account) -> int:
        return self.machine.set_account(0, account)

    def deactivate_interrupt(self) -> None:
        if self.machine.deactivate(0):
            self.told.append("deactivate")

    def kick(self) -> None:
        self.kicks += 1

    def by_guest(self, register: int, write: bool, value: int) -> int:
        """The guest's own access, at EL1, which does not trap. Raises InjectUndef."""
        burst = Burst()
        if write:
            burst.msr(register, value)
        else:
            burst.mrs(register)
        self.machine.set_running(0, self.guest, 1, 0)
        stop = self.machine.execute(0, burst, 0, False)
        self.machine.set_running(0, self.host, 2, 0)
        if isinstance(stop, Stop):
            assert stop.reason == Stop.EXCEPTION, stop
            raise InjectUndef
        return value if write else burst.values()[0]

    def peek(self, register: int) -> int:
        """A register of the CPU, without an access."""
        return self.machine.peek(0, register)

    def tell(self) -> list[str]:
        """What was done since the last time."""
        told, self.told = self.told, []
        return told


async def access(vpmu: Any, register: int, write: bool, value: int) -> int:
    """The value read by an access that the vPMU performs at once or when it is awaited, or has the guest make again;
    or by one that does not trap."""
    if getattr(vpmu, "resident", False):  # under gunyah the first access of a load has had the traps removed
        found: int = vpmu.vcpu.by_guest(register, write, value)
        return found
    try:
        performed = vpmu.access(register, write, value)
        result: int = performed if isinstance(performed, int) else await performed
    except RetryAccess:
        result = vpmu.vcpu.by_guest(register, write, value)
    return result


async def vcpu_load(vpmu: Any) -> None:
    """What a vCPU has its PMU do at vcpu_load."""
    vpmu.activate_traps()
    await vpmu.load()


async def vcpu_put(vpmu: Any) -> None:
    """Likewise at vcpu_put."""
    vpmu.deactivate_traps()
    await vpmu.put()
