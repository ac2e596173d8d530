"""What a VMM asks of a vCPU's PMU: KVM_{GET,SET}_ONE_REG, the number-of-counters attribute, the event filter."""

from __future__ import annotations

import errno
from collections.abc import Coroutine
from typing import Any

from services import registers as r
from services._pmu import (
    NOTE_GET_ONE_REG,
    NOTE_SET_FILTER,
    NOTE_SET_NR_COUNTERS,
    NOTE_SET_ONE_REG,
    register_name,
)
from services.cpu import Eventual, begun
from services.kvm.guest_pmu import PMCR_RESETS, PMCR_WRITABLE, USERENR_ALL, counter_of, is_typer
from services.kvm.vcpu import VCpu
from services.kvm.vpmu import SetN

# KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG (include/uapi/linux/kvm.h, arch/arm64/include/uapi/asm/kvm.h);
# the low 16 bits are the register's encoding.
SYSREG = 0x6030_0000_0013_0000


def reg_id(register: int) -> int:
    """The ONE_REG id of a system register."""
    return SYSREG | register


def _register(reg: int, vcpu: VCpu) -> int:
    """pmu_visibility, and what memory has. PMSWINC_EL0 is RAZ/WI, for VMMs that have saved it."""
    register, pmu = reg & 0xFFFF, vcpu.pmu
    kept = register == r.PMSWINC_EL0 or pmu.read(register) is not None or counter_of(register, 0) is not None
    if reg != SYSREG | register or not kept:
        raise OSError(errno.ENOENT, f"ONE_REG id {reg:#x} names no PMU register of a vCPU")
    if not pmu.pmuver:
        raise OSError(errno.ENOENT, f"{vcpu.name} has no PMU (pmuver = 0), and no {register_name(register)}")
    if register in (r.PMXEVCNTR_EL0, r.PMXEVTYPER_EL0):
        raise OSError(errno.ENOENT, f"{register_name(register)} is a view of another register: it has no ONE_REG id")
    return register


def get_one_reg(vcpu: VCpu, reg: int) -> Eventual[int]:
    """KVM_GET_ONE_REG of a vCPU that is not loaded. Raises OSError: ENOENT for an unknown id."""
    register = _register(reg, vcpu)
    _not_loaded(vcpu)
    value = begun(_got(vcpu, register))
    if not isinstance(value, int):
        return _got_after(vcpu, register, value)
    _note(vcpu, NOTE_GET_ONE_REG, register, value)
    return value


async def _got_after(vcpu: VCpu, register: int, read: Coroutine[Any, Any, int]) -> int:
    value = await read
    _note(vcpu, NOTE_GET_ONE_REG, register, value)
    return value


def _note(vcpu: VCpu, code: int, number: int, value: int) -> None:
    """For whoever observes the machine: of a register, or of the first of some events."""
    vcpu.machine.note(vcpu.cpu, code, vcpu.context << 16 | number, value)


def _got(vcpu: VCpu, register: int) -> Eventual[int]:
    pmu = vcpu.pmu
    counter = counter_of(register, 0)
    if register == r.PMSWINC_EL0:
        return 0
    if register == r.PMCR_EL0:  # get_pmcr: P and C that a VMM has set, too
        return pmu.pmcr | pmu.counters << r.PMCR_N_SHIFT
    if counter is None:
        value = pmu.read(register)
        assert value is not None  # _register has seen to that
        return value
    if is_typer(register):
        return pmu.typer[counter]
    vcpu.pcpu.enter_kernel()  # the VMM's thread is there
    return vcpu.vpmu.user_read(counter)


def set_one_reg(vcpu: VCpu, reg: int, value: int) -> None:
    """KVM_SET_ONE_REG of a vCPU that is not loaded. Raises OSError: ENOENT for an unknown id.

    What becomes of PMCR_EL0.N is the design's (`Design.set_n`): until the VM has run it may be set up to what the CPU
    has; afterwards, or where N is set by attribute only or fixed, it is ignored.
    """
    register = _register(reg, vcpu)
    _not_loaded(vcpu)
    if register == r.PMSWINC_EL0:
        return
    _set(vcpu, register, value)
    _note(vcpu, NOTE_SET_ONE_REG, register, value)


def _set(vcpu: VCpu, register: int, value: int) -> None:
    pmu, design = vcpu.pmu, vcpu.vpmu.design
    vcpu.reload_due |= design.reloads_on_user_write
    counter = counter_of(register, 0)
    if counter is not None:
        if is_typer(register):
            pmu.typer[counter] = value & pmu.event_mask
        else:
            pmu.counter[counter] = value & r.MASK64
            vcpu.vpmu.user_wrote(counter)
        return
    match register:
        case r.PMCR_EL0:
            wanted = (value & r.PMCR_N) >> r.PMCR_N_SHIFT
            if design.set_n is SetN.SETTABLE and not vcpu.ran and wanted <= _limit(vcpu):
                _set_counters(vcpu, wanted)
            pmu.pmcr = value & (PMCR_WRITABLE | PMCR_RESETS)
        case r.PMSELR_EL0:
            pmu.selr = value & 0x1F
        case r.PMUSERENR_EL0:
            pmu.userenr = value & USERENR_ALL
        case _ if not design.user_views_assign:
            pmu.write(register, value)
        case r.PMCNTENSET_EL0 | r.PMCNTENCLR_EL0:
            pmu.cnten = value & pmu.mask
        case r.PMINTENSET_EL1 | r.PMINTENCLR_EL1:
            pmu.inten = value & pmu.mask
        case _:
            pmu.ovs = value & pmu.mask


def set_nr_counters(vcpu: VCpu, counters: int) -> None:
    """KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS.

    Raises OSError: ENODEV without a PMU, EBUSY once the VM has run, EINVAL above what it may have.
    """
    _has_pmu(vcpu)
    if vcpu.ran:
        raise OSError(errno.EBUSY, "the VM has run: its number of counters is fixed")
    if counters and vcpu.vpmu.design.any_pmu:
        raise OSError(errno.EINVAL, f"{counters} event counters; a PMU with fixed counters only has none")
    if not 0 <= counters <= _limit(vcpu):
        raise OSError(errno.EINVAL, f"{counters} event counters; a guest may have {_limit(vcpu)}")
    _set_counters(vcpu, counters)


def _set_counters(vcpu: VCpu, counters: int) -> None:
    vcpu.pmu.set_counters(counters)
    vcpu.machine.note(vcpu.cpu, NOTE_SET_NR_COUNTERS, vcpu.context, counters)


def set_filter(vcpu: VCpu, base: int, count: int, *, deny: bool) -> None:
    """KVM_ARM_VCPU_PMU_V3_FILTER for events from `base` on. What the first filter does not name is as it says not.

    Raises OSError: ENODEV without a PMU, EBUSY once the VM has run, EINVAL.
    """
    _has_pmu(vcpu)
    bits = 16 if min(pcpu.spec.pmuver for pcpu in vcpu.pcpus) >= r.PMUVER_P1 else 10
    if base < 0 or count < 0 or base + count > 1 << bits:
        raise OSError(errno.EINVAL, f"{count} events from {base:#x} on: the host's event numbers have {bits} bits")
    if vcpu.ran:
        raise OSError(errno.EBUSY, "the VM has run: its event filter is fixed")
    pmu, events = vcpu.pmu, range(base, base + count)
    denied = set(pmu.denied)
    if not deny and not denied:
        denied.update(range(1 << bits))
    pmu.denied = sorted(denied.union(events) if deny else denied.difference(events))
    _note(vcpu, NOTE_SET_FILTER, base, count << 1 | int(deny))


def _has_pmu(vcpu: VCpu) -> None:
    if not vcpu.pmu.pmuver:
        raise OSError(errno.ENODEV, f"{vcpu.name} has no PMU (pmuver = 0)")


def _limit(vcpu: VCpu) -> int:
    cpus = [pcpu.spec for pcpu in vcpu.pcpus]
    return vcpu.vpmu.design.nr_counters(cpus, min(cpu.counters for cpu in cpus))


def _not_loaded(vcpu: VCpu) -> None:
    if vcpu.pcpu.rq.current is vcpu:
        raise OSError(errno.EBUSY, f"{vcpu.name}: vCPU {vcpu.index} is running")
