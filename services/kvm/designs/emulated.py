"""`emulated`: every access traps, and the host's perf counts in the guest's stead (arch/arm64/kvm/pmu-emul.c, 6.12)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from services import registers as r
from services.boot import HostPolicy
from services.cpu import COUNTER_SHIFT, Call, CounterFlag, Eventual, Row, awaited
from services.experiment import CpuSpec
from services.kvm.declared import Declared
from services.kvm.designs.limits import LIMITS, UNRESTORED
from services.kvm.errors import InjectUndef, ProtocolError
from services.kvm.guest_pmu import OF_COUNTERS, PMCR_WRITABLE
from services.kvm.trap_setup import HostTraps
from services.kvm.vpmu import Access, Design, DesignError, KvmVcpu, SetN, Vpmu, axis
from services.registers import (
    CYCLE_BIT,
    CYCLE_COUNTER,
    MASK32,
    MASK64,
    PMEVTYPER_EVTCOUNT,
    PMUVER_P5,
    bits,
    counter_mask,
)
from services.state import derived

# As plain integers, for speed.
CREATE, RELEASE, ENABLE, DISABLE, READ, EL0_FILTER, _, LONG_OVERFLOW, _ = map(int, Call)
EXCLUDE_USER, EXCLUDE_KERNEL, LONG, DISABLED, OVERFLOWS_LONG = (int(flag) for flag in CounterFlag)


IN_MEMORY = (r.SW_INCR, r.CHAIN)  # events that KVM counts itself


class Kernel(Enum):
    """Whose emulation: the kernel's version."""

    LINUX_6_12_117 = "6.12.117"
    LINUX_6_12_0 = "6.12.0"
    LINUX_6_15 = "6.15"
    LINUX_7_3 = "7.3"


class Strict(Enum):
    """KVM_ARM_VCPU_PMU_V3_STRICT, a feature of vCPUs that 7.3 offers."""

    NO = "no"
    YES = "yes"


class Counters(Enum):
    """Which counters a guest has."""

    PMU = "pmu"
    FIXED = "fixed"


KERNEL = (
    "in 6.12 each PMCR_EL0 write acts on all enabled counters, and the VMM's registers take effect at the first run; "
    "in 6.12.0 a flag interrupts only while its counter is enabled; in 6.15 a change of PMCR_EL0.E acts, and each "
    "register that the VMM writes; 7.3: as 6.15, but for the order of the trap set-up and its fine-grained traps"
)
STRICT = (
    "KVM_ARM_VCPU_PMU_V3_STRICT (kernel=7.3): no default PMU, PMCR_EL0.N is set by attribute alone, PMMIR_EL1.SLOTS "
    "and STALL_SLOT* are the guest's, too"
)
WITH_STRICT = "write emulated,kernel=7.3,strict=yes"
COUNTERS = (
    "those that userspace asks for, on the CPUs of the VM's PMU; or the cycle counter alone, on the CPUs of any "
    "(KVM_ARM_VCPU_PMU_V3_FIXED_COUNTERS_ONLY, proposed)"
)


@dataclass(eq=False)
class EmulatedPmu(Vpmu):
    """A vCPU's PMU in memory, each counter backed by a kernel counter of the vCPU's thread."""

    userenr_in_memory: ClassVar[bool] = True
    loads_flags: ClassVar[frozenset[int]] = frozenset((r.PMOVSSET_EL0, r.PMOVSCLR_EL0, r.PMSWINC_EL0))

    design: Emulated = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    backed: int = 0  # counters that have a perf event, one bit each
    rewritten: int = 0  # those of them whose value the VMM has written, so that their events are of no use any more
    made_on: int = 0  # with counters=fixed: the host's PMU that the backing event is of
    fixed: bool = derived(init=False)  # counters=fixed
    reprograms: bool = derived(init=False)  # kvm_pmu_reprogram_counter_mask (6.15)
    interrupts_if_enabled: bool = derived(init=False)
    rows: list[Row] = derived(default_factory=list)  # what the access under way asks of the host's perf
    calls: int = derived(default=0)  # how many of its functions that calls
    base: int = derived(init=False)  # the handle of counter 0
    long_counters: bool = derived(init=False)
    widths: list[int] = derived(init=False)  # of the counters, as masks
    # compute_period: by counter, the bit of PMCR_EL0 with which one of 64 bits (kvm_pmc_is_64bit) overflows at 64, too.
    overflows_long: list[int] = derived(init=False)

    def derive(self) -> None:
        super().derive()
        self.fixed = self.design.counters is Counters.FIXED
        if self.fixed:
            self.pmu.set_counters(0)
        self.reprograms = self.design.reprograms
        self.interrupts_if_enabled = self.design.kernel is Kernel.LINUX_6_12_0
        self.base = self.vcpu.id << COUNTER_SHIFT
        self.long_counters = self.pmu.pmuver >= PMUVER_P5
        self.widths = [MASK64 if self.long_counters else MASK32] * CYCLE_COUNTER + [MASK64]
        self.overflows_long = [r.PMCR_LP if self.long_counters else 0] * CYCLE_COUNTER + [r.PMCR_LC]

    def activate_traps(self) -> Eventual[None]:
        mdcr = r.PMU_TRAPS | self.vcpu.spec.counters  # nothing is partitioned
        if self.design.per_vcpu_traps:
            return self.host.load_2026(self.vcpu, mdcr)
        return self.host.load_6_12(self.vcpu, mdcr)

    async def load(self) -> None:
        """The guest's PMU is in memory. With counters=fixed the backing event has to be one of this CPU's PMU."""
        if self.fixed and self.backed and self.made_on != self.vcpu.arm_pmu:
            self.pmu.counter[CYCLE_COUNTER] = await awaited(self._value(CYCLE_COUNTER))
            self._recreate(CYCLE_COUNTER)
            await awaited(self._perf(0))

    def deactivate_traps(self) -> Eventual[None]:
        if self.design.per_vcpu_traps:
            return self.host.put_2026(self.vcpu)
        return self.host.put_6_12(self.vcpu)

    async def put(self) -> None:
        """Nor here."""

    def reload(self) -> Access:
        """kvm_vcpu_reload_pmu; in 6.12 kvm_pmu_handle_pmcr."""
        if self.reprograms:
            self._reload_rewritten()
            self._reprogram(self.pmu.mask)
        else:
            self._write_pmcr(self.pmu.pmcr)
        return self._perf(0) if self.rows else 0

    def _reload_rewritten(self) -> None:
        for n in bits(self.rewritten):
            self._release(n)
        self.rewritten = 0

    def level(self) -> bool:
        """kvm_pmu_overflow_status."""
        pmu = self.pmu
        pending = pmu.ovs & pmu.inten & pmu.mask
        return bool(pmu.pmcr & r.PMCR_E and (pending & pmu.cnten if self.interrupts_if_enabled else pending))

    # What the VMM does, while the vCPU is not loaded.

    def user_read(self, n: int) -> Access:
        return self._value(n)

    def user_wrote(self, n: int) -> None:
        """kvm_pmu_set_counter_value_user (6.15); 6.12 leaves the event as it is."""
        if self.reprograms:
            self.rewritten |= self.backed & 1 << n

    def counter_overflow(self, counter: int) -> None:
        """kvm_pmu_perf_overflow: the flag, and the CHAIN event of the counter above."""
        if not self.backed >> counter & 1:
            raise ProtocolError(f"no kernel counter backs counter {counter} of the guest")
        self.pmu.ovs |= 1 << counter
        if self.pmu.can_chain(counter):
            self.pmu.increment(1 << (counter + 1), r.CHAIN)
        if self.level():  # kvm_pmu_overflow_status
            self.vcpu.kick()

    # What a guest's access does (section by section as in access_pmcr() ... access_pmuserenr()).

    def access(self, register: int, write: bool, value: int) -> Access:
        of_counter = OF_COUNTERS.get(register)
        if of_counter is not None:
            n, is_type = of_counter
            if n is None:
                n = self.pmu.selr
            if n != CYCLE_COUNTER and n >= self.pmu.counters:
                raise InjectUndef
            if is_type:
                return self._write_type(n, value) if write else self.pmu.typer[n]
            if not write:
                return self._value(n)
            self.pmu.counter[n] = value & self.widths[n]
            self._recreate(n)
        elif write:
            writes = WRITES.get(register)
            if writes is not None:
                writes(self, value)
            elif not self.pmu.write(register, value) and register != r.PMMIR_EL1:
                raise InjectUndef
        else:
            return self._read(register)
        return self._perf(value) if self.rows else value

    def _write_type(self, n: int, value: int) -> Access:
        self.pmu.typer[n] = value & self.pmu.event_mask
        counted = self._value(n)  # the new event goes on from what the old one has counted
        return self._new_event(n, counted) if isinstance(counted, int) else self._new_event_after(n, counted)

    async def _new_event_after(self, n: int, counted: Coroutine[Any, Any, int]) -> int:
        return await awaited(self._new_event(n, await counted))

    def _new_event(self, n: int, counted: int) -> Access:
        self.pmu.counter[n] = counted
        self._recreate(n)
        self._restore_guest()
        return self._perf(counted) if self.rows else counted

    def _read(self, register: int) -> Access:
        value = self.pmu.read(register)
        return self._identification(register) if value is None else value

    async def _identification(self, register: int) -> int:
        match register:
            case r.PMCEID0_EL0:
                return self.pmu.pmceid(0, await self.vcpu.read(r.PMCEID0_EL0))
            case r.PMCEID1_EL0:
                return self.pmu.pmceid(1, await self.vcpu.read(r.PMCEID1_EL0), slots=self.design.one_pmu)
            case r.PMMIR_EL1:
                return await self.vcpu.read(r.PMMIR_EL1) & r.PMMIR_SLOTS if self.design.one_pmu else 0
        raise InjectUndef

    def _write_pmcntenset(self, value: int) -> None:
        pmu = self.pmu
        counters = value & pmu.mask
        pmu.cnten |= counters
        if self.reprograms:
            self._reprogram(counters)
        else:
            self._enable(counters)
            self._restore_guest()

    def _write_pmcntenclr(self, value: int) -> None:
        pmu = self.pmu
        counters = value & pmu.mask
        pmu.cnten &= ~counters
        if self.reprograms:
            self._reprogram(counters)
        else:
            self._ask(DISABLE, counters & self.backed)

    def _write_pmovsset(self, value: int) -> None:
        self.pmu.ovs = self._flags() | value & self.pmu.mask

    def _write_pmovsclr(self, value: int) -> None:
        self.pmu.ovs = self._flags() & ~(value & self.pmu.mask)

    def _write_pmswinc(self, value: int) -> None:
        pmu = self.pmu
        before = pmu.ovs
        pmu.increment(value, r.SW_INCR)
        if pmu.ovs != before:
            pmu.ovs = self._flags() | pmu.ovs & ~before

    def _flags(self) -> int:
        """PMOVSSET_EL0 as the handler has loaded it, which kvm_pmu_perf_overflow may have changed since."""
        return self.pmu.ovs if self.flags_loaded is None else self.flags_loaded

    def _write_pmcr(self, value: int) -> None:
        """kvm_pmu_handle_pmcr: P and C are not kept, LP only from PMUv3p5 on."""
        pmu = self.pmu
        if pmu.pmuver < PMUVER_P5:
            value &= ~r.PMCR_LP
        changed = pmu.pmcr ^ value
        pmu.pmcr = value & PMCR_WRITABLE
        if changed & (r.PMCR_LC | r.PMCR_LP) and self.backed:  # compute_period goes by them at each overflow
            wide = sum(1 << n for n in bits(self.backed) if value & self.overflows_long[n])
            self.rows.append((LONG_OVERFLOW, self.base, self.backed, wide, 0))
            self.calls += 1
        if not self.reprograms:
            if value & r.PMCR_E:
                self._enable(pmu.cnten)
            else:
                self._ask(DISABLE, pmu.cnten & self.backed)
        if value & (r.PMCR_C | r.PMCR_P):
            reset = (CYCLE_BIT if value & r.PMCR_C else 0) | (pmu.mask & ~CYCLE_BIT if value & r.PMCR_P else 0)
            for n in bits(reset):
                pmu.counter[n] = 0
                self._recreate(n)
        if not self.reprograms:
            self._restore_guest()
        elif changed & r.PMCR_E:  # by KVM_REQ_RELOAD_PMU, on the way back into the guest
            self._reprogram(pmu.mask)

    def destroy(self) -> Access:
        """kvm_pmu_release_perf_event of each counter."""
        for n in bits(self.backed):
            self._release(n)
        return self._perf(0) if self.rows else 0

    # The backing events.

    def _enable(self, mask: int) -> None:
        """kvm_pmu_enable_counter_mask: nothing while PMCR_EL0.E is clear."""
        if not self.pmu.pmcr & r.PMCR_E:
            return
        missing = mask & ~self.backed
        if not missing:
            self._ask(ENABLE, mask)
            return
        for n in bits(mask):
            if missing >> n & 1:
                self._recreate(n)
            else:
                self._ask(ENABLE, 1 << n)

    def _reprogram(self, mask: int) -> None:
        """kvm_pmu_reprogram_counter_mask: enable or disable each counter in `mask` as the registers now have it."""
        if not mask:
            return
        enabled = mask & self.pmu.cnten if self.pmu.pmcr & r.PMCR_E else 0
        self._ask(DISABLE, mask & ~enabled & self.backed)
        self._enable(enabled)
        self._restore_guest()

    def _ask(self, call: int, mask: int) -> None:
        """`call` of each kernel counter in `mask`."""
        if mask:
            self.rows.append((call, self.base, mask, 0, 0))
            self.calls += mask.bit_count()

    def _recreate(self, n: int) -> None:
        """kvm_pmu_create_perf_event: release the backing event, and create one from the counter's saved value."""
        pmu, bit = self.pmu, 1 << n
        typer, pmcr = pmu.typer[n], pmu.pmcr
        had = self.backed & bit
        if n == CYCLE_COUNTER:
            event, flags = r.CPU_CYCLES, LONG
        else:
            event = typer & pmu.event_mask & PMEVTYPER_EVTCOUNT
            flags = LONG if self.long_counters else 0
        if event in pmu.denied or (event in IN_MEMORY and n != CYCLE_COUNTER):
            if had:
                self._release(n)
            return
        # In Non-secure state NSU and NSK turn U and P round.
        if bool(typer & r.PMEVTYPER_U) is not bool(typer & r.PMEVTYPER_NSU):
            flags |= EXCLUDE_USER
        if bool(typer & r.PMEVTYPER_P) is not bool(typer & r.PMEVTYPER_NSK):
            flags |= EXCLUDE_KERNEL
        if not (pmcr & r.PMCR_E and pmu.cnten & bit):
            flags |= DISABLED
        wide = pmcr & self.overflows_long[n]
        if wide:
            flags |= OVERFLOWS_LONG
        self.rows.append((CREATE, self.base + n, event, flags, -pmu.counter[n] & (MASK64 if wide else MASK32)))
        self.calls += 2 if had else 1
        self.backed |= bit
        if self.fixed:
            self.made_on = self.vcpu.arm_pmu

    def _release(self, n: int) -> None:
        """kvm_pmu_release_perf_event."""
        self.rows.append((RELEASE, self.base + n, 0, 0, 0))
        self.calls += 1
        self.backed ^= 1 << n

    def _value(self, n: int) -> Access:
        """kvm_pmu_get_counter_value: what is saved plus what the backing event has counted."""
        counted: Eventual[list[int]] = [0]
        if (self.backed & ~self.rewritten) >> n & 1:
            counted = self.vcpu.call([(READ, self.base + n, 0, 0, 0)], reads=1)
        if isinstance(counted, list):
            return self.pmu.counter[n] + counted[0] & self.widths[n]
        return self._value_after(n, counted)

    async def _value_after(self, n: int, counted: Coroutine[Any, Any, list[int]]) -> int:
        return self.pmu.counter[n] + (await counted)[0] & self.widths[n]

    def el0_switched(self) -> bool:
        """Backing events exclude the host, so theirs has: at EL0 the hardware cannot tell host from guest."""
        return bool(self.backed) or super().el0_switched()

    def _restore_guest(self) -> None:
        """kvm_vcpu_pmu_restore_guest, within the entry that does the rest of the access."""
        if self.backed or self.vcpu.host_has_events:
            self.rows.append((EL0_FILTER, 1, 0, 0, 0))
            self.calls += 1

    def _perf(self, value: int) -> Access:
        """Have the host's perf do what the access of `value` asks of it, in one entry."""
        rows, calls = self.rows, self.calls
        self.rows, self.calls = [], 0
        done = self.vcpu.call(rows, calls=calls)
        return value if isinstance(done, list) else _after(done, value)


# Of the registers that are not counters', those whose writing does more than to be kept.
WRITES: dict[int, Callable[[EmulatedPmu, int], None]] = {
    r.PMCR_EL0: EmulatedPmu._write_pmcr,
    r.PMCNTENSET_EL0: EmulatedPmu._write_pmcntenset,
    r.PMCNTENCLR_EL0: EmulatedPmu._write_pmcntenclr,
    r.PMOVSSET_EL0: EmulatedPmu._write_pmovsset,
    r.PMOVSCLR_EL0: EmulatedPmu._write_pmovsclr,
    r.PMSWINC_EL0: EmulatedPmu._write_pmswinc,
}


async def _after(done: Coroutine[Any, Any, list[int]], value: int) -> int:
    await done
    return value


@dataclass(frozen=True, kw_only=True)
class Emulated(Design):
    """perf-backed emulation, as in Linux 6.12.117."""

    name = "emulated"
    why = "today's vPMU (6.12.117): every access traps, each counter is faked by a perf event of the host"

    kernel: Kernel = axis(Kernel.LINUX_6_12_117, KERNEL)
    strict: Strict = axis(Strict.NO, STRICT)
    counters: Counters = axis(Counters.PMU, COUNTERS)

    @classmethod
    def _refused(cls, axis: str, text: str) -> tuple[str, str]:
        problem, remedy = super()._refused(axis, text)
        return problem, WITH_STRICT if (axis, text) == ("strict", Strict.YES.value) else remedy

    @property
    def declared(self) -> tuple[Declared, ...]:
        return LIMITS + (UNRESTORED if self.reprograms else ())

    @property
    def reprograms(self) -> bool:
        """Is it of a kernel with kvm_pmu_reprogram_counter_mask()?"""
        return self.kernel in (Kernel.LINUX_6_15, Kernel.LINUX_7_3)

    @property
    def per_vcpu_traps(self) -> bool:
        return self.kernel is Kernel.LINUX_7_3

    @property
    def any_pmu(self) -> bool:
        return self.counters is Counters.FIXED

    @property
    def one_pmu(self) -> bool:
        return self.strict is Strict.YES

    @property
    def set_n(self) -> SetN:
        if self.any_pmu:
            return SetN.FIXED
        return SetN.ATTRIBUTE if self.one_pmu else SetN.SETTABLE

    @property
    def user_views_assign(self) -> bool:
        return self.reprograms

    @property
    def reloads_on_user_write(self) -> bool:
        return self.reprograms

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if counters > cpu.counters:
            raise DesignError(
                f"a guest with {counters} event counters on a CPU that has {cpu.counters}",
                f"give the guest at most {cpu.counters} counters",
            )
        if self.any_pmu and self.one_pmu:
            raise DesignError(
                "strict=yes has the VMM name a PMU, counters=fixed counts on all", "leave one of them out"
            )
        if self.one_pmu and self.kernel is not Kernel.LINUX_7_3:
            raise DesignError(
                f"strict=yes is a feature of vCPUs that Linux {self.kernel.value} does not have",
                WITH_STRICT,
            )
        return ["counters=fixed: PMCR_EL0.N is 0"] if self.any_pmu and counters else []

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """Every counter is the host's."""
        return HostPolicy(counter_mask(cpu.counters) | (r.INSTRUCTION_BIT if cpu.icntr else 0), guest_flags=0)

    def vpmu(self, vcpu: KvmVcpu) -> EmulatedPmu:
        return EmulatedPmu(self, vcpu)


@dataclass(frozen=True, kw_only=True)
class Emulated6120(Emulated):
    """The first 6.12."""

    name = "emulated-6.12.0"
    why = "Linux 6.12.0: as 6.12.117, but an overflow interrupts only while its counter is enabled (PMCNTENSET_EL0)"

    kernel: Kernel = axis(Kernel.LINUX_6_12_0, KERNEL, values=(Kernel.LINUX_6_12_0,))
    strict: Strict = axis(Strict.NO, STRICT, values=(Strict.NO,))


@dataclass(frozen=True, kw_only=True)
class Emulated615(Emulated):
    """The kernel that the published numbers were taken on, or one near it."""

    name = "emulated-6.15"
    why = (
        "Linux 6.15: PMCR_EL0 acts when E changes, at the next entry; PMCNTENCLR_EL0 flips the EL0 filters of host "
        "events, too; what the VMM writes has the backing events made anew, and all views of a register assign"
    )

    kernel: Kernel = axis(Kernel.LINUX_6_15, KERNEL, values=(Kernel.LINUX_6_15,))
    strict: Strict = axis(Strict.NO, STRICT, values=(Strict.NO,))


VERSIONS = (Emulated6120, Emulated615)
