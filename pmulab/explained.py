"""A vCPU of a design, alone on a CPU that counts nothing: what its load leaves there, and what KVM does at a trap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pmulab import effect
from services import _pmu
from services import registers as r
from services._pmu import OP_MRS, Burst, Machine, Stop
from services.costs import Cost
from services.cpu import Call, Row, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.errors import InjectUndef, RetryAccess
from services.kvm.guest_pmu import GuestPmu, counter_of, is_typer
from services.kvm.irqs import Irqs
from services.kvm.vpmu import Design, Vpmu
from services.registers import bits

_CALLS = {
    Call.CREATE: "perf_event_create_kernel_counter",
    Call.RELEASE: "perf_event_release_kernel",
    Call.ENABLE: "perf_event_enable",
    Call.DISABLE: "perf_event_disable",
    Call.READ: "perf_event_read_value",
    Call.EL0_FILTER: "kvm_vcpu_pmu_restore_guest",
    Call.GUEST_COUNTERS: "kvm_pmu_set_guest_counters",
    Call.LONG_OVERFLOW: "",  # its period, at its next overflow
}


class ToldVcpu:
    """`services.kvm.vpmu.KvmVcpu`. `told`: what KVM does, a line each."""

    def __init__(self, spec: CpuSpec, counters: int, pmuver: int, machine: Machine) -> None:
        self.id = 0
        self.arm_pmu = 0
        self.spec = spec
        self.pmu = GuestPmu(counters, pmuver)
        self.machine = machine
        self.host_has_events = False
        self.host_userenr = 0
        self.preemptible = True
        self.irqs = Irqs.ON
        self.backed: set[int] = set()  # the counters that have a kernel counter
        self.told: list[str] = []

    def kvm(self, burst: Burst, again: Callable[[], Burst] | None = None) -> list[int]:
        stop = self.machine.execute(0, burst, 0, False)
        while isinstance(stop, Stop):  # an oops, behind which KVM's list goes on, as in PCpu.oops
            stop = self.machine.execute(0, burst, stop.index + 1, False)
        values = burst.values()
        read, (codes, operands) = iter(values), burst.arrays()
        written = iter(operands)
        for code in codes:
            name = _pmu.register_name(code & 0xFFFF)
            self.told.append(f"{name}: {next(read):#x}" if code >> 24 == OP_MRS else f"{name} <- {next(written):#x}")
        return values

    kvm_irqs_off = kvm

    async def read(self, register: int) -> int:
        value = self.machine.read(0, register)
        self.told.append(f"{_pmu.register_name(register)}: {value:#x}")
        return value

    async def write(self, register: int, value: int) -> None:
        self.told.append(f"{_pmu.register_name(register)} <- {value:#x}")
        self.machine.write(0, register, value)

    def peek(self, register: int) -> int:
        return self.machine.peek(0, register)

    async def charge(self, cost: Cost) -> None:
        """Software time takes none here."""

    def local_irq_save(self) -> Irqs:
        return self.irqs

    def call(self, rows: list[Row], account: Account = Account.PERF, *, calls: int = 0, reads: int = 0) -> list[int]:
        for code, first, *operands in rows:
            if code in (Call.ENABLE, Call.DISABLE):
                self.told += [f"{_CALLS[Call(code)]}(counter {n})" for n in bits(operands[0])]
            elif code in (Call.CREATE, Call.RELEASE):
                if first in self.backed:  # Call.CREATE takes the place of one that there is
                    self.told.append(f"{_CALLS[Call.RELEASE]}(counter {first})")
                self.backed.discard(first)
                if code == Call.CREATE:
                    self.told.append(f"{_CALLS[Call.CREATE]}(counter {first})")
                    self.backed.add(first)
            elif code == Call.READ:
                self.told.append(f"{_CALLS[Call.READ]}(counter {first})")
            elif _CALLS[Call(code)]:
                self.told.append(f"{_CALLS[Call(code)]}()")
        return [0] * reads

    def set_account(self, account: Account) -> int:
        return self.machine.set_account(0, account)

    def deactivate_interrupt(self) -> None:
        """None is active."""

    def kick(self) -> None:
        """Nothing waits."""


@dataclass(slots=True)
class Emulated:
    """What comes of an access that has trapped."""

    told: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # in memory
    value: int | None = None  # None: KVM injects an UNDEFINED exception


class Explained:
    """`design`'s vCPU, loaded, on a CPU with `spec`. `features` are the CPU's, as `_pmu.explain` takes them."""

    def __init__(self, design: Design, spec: CpuSpec, counters: int, features: Mapping[str, int]) -> None:
        self.machine = Machine([dict(features)], [], mrs_cycles=0, msr_cycles=0, isb_cycles=0)
        machine = self.machine
        self.host, self.guest = machine.add_context(False), machine.add_context(True)
        self.profile = machine.add_profile([])
        machine.set_running(0, self.host, 2, self.profile)
        self.vcpu = ToldVcpu(spec, counters, min(spec.pmuver, r.PMUVER_P5), machine)
        self.vpmu: Vpmu = design.vpmu(self.vcpu)
        self.at_entry = design.at_entry

    def has(self, name: str) -> bool:
        """Is it a register of the guest's PMU that memory keeps?"""
        register = _pmu.register_encoding(name)
        return self.vcpu.pmu.read(register) is not None or counter_of(register, 0) is not None

    async def load(self, *, used: bool, saved: Mapping[str, int]) -> None:
        """With `saved` in the guest's registers; `used`: after a first access and a put."""
        if used:
            await self._load()
            with suppress(InjectUndef, RetryAccess):  # of a design under which nothing of a PMU traps, or no longer
                await awaited(self.vpmu.access(r.PMCR_EL0, True, self.vcpu.pmu.pmcr))
            self.vpmu.deactivate_traps()
            await self.vpmu.put()
        pmu = self.vcpu.pmu
        for name, value in saved.items():
            register = _pmu.register_encoding(name)
            counter = counter_of(register, 0)
            if counter is None:
                pmu.write(register, value)
            elif is_typer(register):
                pmu.typer[counter] = value
            else:
                pmu.counter[counter] = value
        await self._load()
        await awaited(self.vpmu.reload())
        if self.at_entry:
            await self.vpmu.enter()
        self.vcpu.told.clear()

    async def _load(self) -> None:
        self.vpmu.activate_traps()
        await self.vpmu.load()

    def settings(self) -> dict[str, int]:
        """The CPU's registers, as the guest meets them."""
        self.machine.set_running(0, self.guest, 1, self.profile)
        found = {name: self.machine.peek(0, _pmu.register_encoding(name)) for name in _pmu.register_names()}
        self.machine.set_running(0, self.host, 2, self.profile)
        for view in ("PMCNTENCLR_EL0", "PMINTENCLR_EL1", "PMOVSCLR_EL0"):  # written, they would clear it all
            del found[view]
        return found

    def fast(self, name: str, write: bool) -> bool:
        """Is the access, which has trapped, completed in the hypervisor's own code?"""
        return self.vpmu.fast_path and self.vpmu.fast(_pmu.register_encoding(name), write)

    def el0_disabled(self, name: str, write: bool) -> bool:
        """Does KVM find that the guest's PMUSERENR_EL0 does not let EL0 make the access, which has trapped?"""
        return self.vpmu.el0_disabled(_pmu.register_encoding(name), write)

    async def trapped(self, name: str, write: bool, value: int) -> Emulated:
        """The access at EL2, with what an exit and an entry around it take."""
        emulated = Emulated(self.vcpu.told)
        exits = self.at_entry and not self.fast(name, write)
        if exits:
            await self.vpmu.leave()
        counters = self.vcpu.pmu.counter
        if write:
            counters[:] = [count or effect.start(name, value) for count in counters]
        before = self._memory()
        try:
            emulated.value = await awaited(self.vpmu.access(_pmu.register_encoding(name), write, value))
        except InjectUndef:
            pass
        except RetryAccess:
            emulated.value = self._again(name, write, value)
        others = (_pmu.register_name(n) for n in (*map(r.PMEVCNTR, range(r.EVENT_COUNTERS)), r.PMCCNTR_EL0))
        emulated.changed = effect.changes(before, self._memory(), [one for one in others if one != name])
        if exits:
            await self.vpmu.enter()
        return emulated

    def _again(self, name: str, write: bool, value: int) -> int | None:
        """The guest makes the access once more, and it does not trap; None if it is UNDEFINED."""
        self.vcpu.told.append("the access is executed again")
        burst, encoding = Burst(), _pmu.register_encoding(name)
        if write:
            burst.msr(encoding, value)
        else:
            burst.mrs(encoding)
        self.machine.set_running(0, self.guest, 1, self.profile)
        stop = self.machine.execute(0, burst, 0, False)
        self.machine.set_running(0, self.host, 2, self.profile)
        return None if isinstance(stop, Stop) else (value if write else burst.values()[0])

    def _memory(self) -> dict[str, int]:
        """The guest's registers as KVM has them, each once."""
        pmu = self.vcpu.pmu
        found = {_pmu.register_name(r.counter_register(n)): count for n, count in enumerate(pmu.counter)}
        found |= {_pmu.register_name(r.type_register(n)): value for n, value in enumerate(pmu.typer)}
        kept = (r.PMCR_EL0, r.PMCNTENSET_EL0, r.PMINTENSET_EL1, r.PMOVSSET_EL0, r.PMSELR_EL0, r.PMUSERENR_EL0)
        return found | {_pmu.register_name(one): pmu.read(one) or 0 for one in kept}
