"""Mutants of what a trapped access does."""

from __future__ import annotations

from typing import ClassVar

from services import registers as r
from services.kvm.designs.partitioned.accesses import (
    OVERFLOWS_IN_MEMORY,
    Accesses,
    apply_enables,
    by_counter,
    by_register,
    by_type,
    read_overflows_in_memory,
    read_register,
    reset_counters,
    selected_read,
    selected_write,
    write_type,
)
from services.kvm.designs.partitioned.accessors import software_increment
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.reviewed import Partitioned, PartitionedPmu
from services.kvm.designs.partitioned.swap import enforced
from services.kvm.designs.partitioned.write_through import UNCHECKED
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import PMCR_RESETS, PMCR_WRITABLE
from services.registers import CYCLE_COUNTER


class Otherwise(PartitionedPmu):
    """One whose trapped accesses are those of `partitioned` but for these."""

    otherwise: ClassVar[Accesses]

    def derive(self) -> None:
        super().derive()
        self.trapped |= self.otherwise


def physical(context: PmuContext, n: int) -> None:
    if n != CYCLE_COUNTER and n >= context.on.cpu.counters:
        raise InjectUndef


async def b5_read_counter(context: PmuContext, n: int) -> int:
    physical(context, n)
    return await context.read(r.counter_register(n))


async def b5_write_counter(context: PmuContext, n: int, value: int) -> None:
    physical(context, n)
    await context.write(r.counter_register(n), value)


async def b5_read_type(context: PmuContext, n: int) -> int:
    physical(context, n)
    return context.pmu.typer[n]


async def b5_write_type(context: PmuContext, n: int, value: int) -> None:
    physical(context, n)
    context.pmu.typer[n] = value & context.pmu.event_mask
    await context.write(r.type_register(n), enforced(context.pmu, n))


class B5Pmu(Otherwise):
    otherwise = Accesses(
        reads={
            **by_counter(b5_read_counter),
            **by_type(b5_read_type),
            r.PMXEVCNTR_EL0: selected_read(b5_read_counter),
            r.PMXEVTYPER_EL0: selected_read(b5_read_type),
        },
        writes={
            **by_counter(b5_write_counter),
            **by_type(b5_write_type),
            r.PMXEVCNTR_EL0: selected_write(b5_write_counter),
            r.PMXEVTYPER_EL0: selected_write(b5_write_type),
        },
    )


class B5(Partitioned):
    name = "B5"
    why = "v1: an index is held against PMCR_EL0.N as EL2 reads it, which is all counters, the host's among them"
    of_vcpu = B5Pmu


class B23Pmu(Otherwise):
    otherwise = UNCHECKED


class B23(Partitioned):
    name = "B23"
    why = "v4: what traps for want of FEAT_FGT is completed unchecked: any counter, and all counters' bits of a mask"
    of_vcpu = B23Pmu


class B27Pmu(PartitionedPmu):
    async def access(self, register: int, write: bool, value: int) -> int:
        if self.context.owned or not write or register not in (r.PMOVSSET_EL0, r.PMOVSCLR_EL0):
            return await super().access(register, write, value)
        self.pmu.write(register, value)
        await self.vcpu.write(register, value & self.pmu.mask)
        return value


class B27(Partitioned):
    name = "B27"
    why = "v5: PMOVS is written to memory and to the CPU, where another's flags are while the vCPU is FREE"
    of_vcpu = B27Pmu


class B29Pmu(PartitionedPmu):
    userenr_in_memory = True


class B29(Partitioned):
    name = "B29"
    why = "v5: whether EL0 may is asked of PMUSERENR_EL0 in memory, while what the guest has written is on the CPU"
    of_vcpu = B29Pmu


class B61Pmu(PartitionedPmu):
    async def access(self, register: int, write: bool, value: int) -> int:
        context, vcpu = self.context, self.vcpu
        if not context.owned:
            before, vcpu.preemptible = vcpu.preemptible, False
            await self._first_access(0)
            vcpu.preemptible = before
        return await self.trapped.perform(context, register, write, value)


class B61(Partitioned):
    name = "B61"
    why = "v7: a trapped access is preemptible, and goes on by the registers and the state of another CPU"
    of_vcpu = B61Pmu


class B62Pmu(Otherwise):
    otherwise = Accesses(reads=by_register(read_register, r.PMCR_EL0))


class B62(Partitioned):
    name = "B62"
    why = "v7: a read of PMCR_EL0 that traps finds N as EL2 does: all counters of the CPU"
    of_vcpu = B62Pmu


async def b63_clear(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & context.on.mask)
    await context.change_overflows(lambda flags: flags & ~value)


class B63Pmu(Otherwise):
    otherwise = Accesses(writes=by_register(b63_clear, r.PMOVSCLR_EL0))


class B63(Partitioned):
    name = "B63"
    why = "v7: a write of PMOVSCLR_EL0 loads the flags from memory and stores them again, with interrupts on"
    of_vcpu = B63Pmu


async def n24_clear(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & context.on.mask)
    await context.change_overflows_irqs_off(lambda flags: flags & ~value)


class N24Pmu(Otherwise):
    otherwise = Accesses(writes=by_register(n24_clear, r.PMOVSCLR_EL0))


class N24(Partitioned):
    name = "N24"
    why = "v8: the same with local_irq_save(), which leaves the PMU's interrupt where that is a pseudo-NMI"
    of_vcpu = N24Pmu


async def n7_write_pmcr(context: PmuContext, register: int, value: int) -> None:
    context.pmu.pmcr = value & PMCR_WRITABLE
    await apply_enables(context)
    await context.write(register, value & ~PMCR_RESETS)
    await reset_counters(context, value)


class N7Pmu(PartitionedPmu):
    def derive(self) -> None:
        super().derive()
        if not self.context.on.split:
            self.trapped |= Accesses(writes=by_register(n7_write_pmcr, r.PMCR_EL0))


class N7(Partitioned):
    name = "N7"
    why = "v8: where HPMN stays N a guest's trapped write of PMCR_EL0 reaches the CPU, and stops the host's counters"
    of_vcpu = N7Pmu


class N38Pmu(Otherwise):
    otherwise = Accesses(reads=by_register(read_overflows_in_memory, r.PMOVSSET_EL0, r.PMOVSCLR_EL0))


class N38(Partitioned):
    name = "N38"
    why = "v9: PMOVS reads as memory has it, and is cleared on the CPU too: a flag goes that the guest was never shown"
    of_vcpu = N38Pmu


class N10Pmu(Otherwise):
    otherwise = Accesses(writes={**by_type(write_type), r.PMXEVTYPER_EL0: selected_write(write_type)})


class N10(Partitioned):
    name = "N10"
    why = "v6: a write of PMEVTYPER<n>_EL0 goes to memory alone, and takes effect at the next load"
    of_vcpu = N10Pmu


class N11Pmu(Otherwise):
    otherwise = OVERFLOWS_IN_MEMORY


class N11(Partitioned):
    name = "N11"
    why = "v8: PMOVS is read and cleared in memory alone: a polling guest sees no flag, and a cleared one comes back"
    of_vcpu = N11Pmu


class N22Pmu(Otherwise):
    otherwise = Accesses(writes=by_register(software_increment, r.PMSWINC_EL0))


class N22(Partitioned):
    name = "N22"
    why = "v8: PMSWINC_EL0 that traps increments the counter in memory, and the next put writes over it"
    of_vcpu = N22Pmu
