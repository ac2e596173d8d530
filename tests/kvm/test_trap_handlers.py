"""An interrupt between two operations of a trap handler, which has interrupts on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services import registers as r
from services.costs import Cost, load
from services.cpu import Cpu, Entry
from services.experiment import CpuSpec
from services.registers import MASK32
from tests.kvm.scripted import HZ, INST_RETIRED, Scripted, experiment, simulation
from tests.kvm.test_kvm_steps import Host

COSTS = load("altra-n1-vhe").cycles(HZ)
AXES = {"partitioned": {"swap": "eager"}}
OVERFLOWS, CLEARED = 0b01, 0b10  # the flag that comes; the one that the guest's write is of
# Cycles from the overflow to its interrupt: it arrives from within the write's exit up to the way back into the guest.
DELAYS = range(COSTS["exit_full_sysreg"] // 2, COSTS["exit_full_sysreg"] * 3 // 2, COSTS["mrs"] // 2)


async def flags(
    design: str, delay: int, *, nmi: bool, register: int = r.PMOVSCLR_EL0, value: int = CLEARED
) -> tuple[int, int]:
    """Counter 0 overflows, and the guest, whose registers are on the CPU, writes a flag, another's if nothing is said:
    which flags it has when the host's handler has run, and how often it has."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.charge(Cost.TICK, 1000)
        cpu.burst.msr(register, value)
        cpu.burst.wfi()

    cpu = CpuSpec(model="test", counters=10, pmuver=6, fgt=1, pmi_delay=delay)
    of = experiment(design, axes=AXES.get(design), cpu=cpu)
    host = Host()
    made = simulation(replace(of, host=replace(of.host, pseudo_nmi=nmi)), Scripted(boot=boot), host)
    (vcpu,) = made.vcpus
    vcpu.vpmu.context.owned = True  # type: ignore[attr-defined]
    pmu = vcpu.pmu
    pmu.pmcr, pmu.cnten, pmu.inten = r.PMCR_E, OVERFLOWS, OVERFLOWS
    pmu.typer[0], pmu.counter[0] = INST_RETIRED, MASK32 - 490  # half an instruction a cycle
    pmu.ovs = CLEARED if register == r.PMOVSCLR_EL0 else 0
    made.board.machine.poke(0, r.PMEVTYPER(0), INST_RETIRED)  # which v1 does not swap
    while not vcpu.wfi:
        await made.step()
    await made.step()  # by whose end any interrupt has come
    quiet = made.board.machine.peek(0, r.PMOVSSET_EL0) & CLEARED  # where the plain one keeps what does not interrupt
    return pmu.ovs | quiet, len(host.at)


async def lost(design: str, *, nmi: bool = False, register: int = r.PMOVSCLR_EL0) -> set[bool]:
    """Is the flag lost, wherever in the write's trap its interrupt comes?"""
    kept = 0 if register == r.PMOVSCLR_EL0 else CLEARED
    seen = set()
    for delay in DELAYS:
        now, handled = await flags(design, delay, nmi=nmi, register=register)
        if handled:
            assert now & ~OVERFLOWS == kept
            seen.add(not now & OVERFLOWS)
    return seen


@pytest.mark.parametrize("register", [r.PMOVSCLR_EL0, r.PMOVSSET_EL0])
@pytest.mark.parametrize(
    ("design", "loses"),
    [
        ("partitioned-v1", {False, True}),
        ("partitioned-v5", {False, True}),
        ("partitioned-v6", {False}),  # in the hypervisor's own code, with interrupts masked
        ("partitioned-v7", {False, True}),
        ("partitioned-v8", {False}),
        ("partitioned-v9", {False}),
        ("partitioned", {False}),
    ],
)
async def test_v7_s_write_of_a_flag_undoes_what_the_pmus_handler_stores_amid_it(
    design: str, loses: set[bool], register: int
) -> None:
    """B63: __vcpu_sys_reg(PMOVSSET_EL0) is read, changed and written with interrupts on; v8 has them off."""
    assert await lost(design, register=register) == loses


@pytest.mark.parametrize(("design", "loses"), [("partitioned-v8", {False, True}), ("partitioned", {False})])
async def test_a_pseudo_nmi_comes_amid_v8_s_write_of_a_flag_all_the_same(design: str, loses: set[bool]) -> None:
    """N24: local_irq_save() does not mask it."""
    assert await lost(design, nmi=True) == loses


@pytest.mark.parametrize(
    ("design", "nmi", "comes_back"),
    [
        (
            "partitioned-v1",
            False,
            {False},
        ),  # what the handler has found is undone by the store, and then not on the CPU
        ("partitioned-v5", False, {False}),
        ("partitioned-v7", False, {False, True}),  # in memory alone: the interrupt is still to come
        ("partitioned-v8", False, {False, True}),
        ("partitioned-v8", True, {False, True}),
        ("partitioned-v9", False, {False, True}),  # it waits up to the store, and comes before the CPU's is cleared
        ("partitioned-v9", True, {False}),  # as in v1
        ("partitioned", False, {False}),  # the CPU's first, then memory's
        ("partitioned", True, {False}),
    ],
)
async def test_a_flag_that_the_guest_has_cleared_may_come_back_by_its_interrupt(
    design: str, comes_back: set[bool], *, nmi: bool
) -> None:
    """B63, the other way round: a flag is in two places."""
    delays = range(COSTS["exit_full_sysreg"], COSTS["exit_full_sysreg"] + 140, COSTS["mrs"] // 2)
    found = [await flags(design, delay, nmi=nmi, value=OVERFLOWS) for delay in delays]
    assert {bool(now & OVERFLOWS) for now, _ in found} == comes_back
