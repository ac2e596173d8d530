"""What the emulated vPMU declares, and in which runs: as narrowly as is known of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services import registers as r
from services.experiment import EventSpec, HostCpuSpec, PerfSysctls, SessionSpec, StepSpec
from services.kvm.declared import Declared, Victim, given_up, reasons
from services.kvm.designs import designs, limits
from tests.kvm.scripted import experiment


def step(action: str, register: int = 0, value: int = 0, *, el: int = 1, target: int = 0) -> StepSpec:
    return StepSpec("test", f"vm0/{target}", action, target, register=register, value=value, el=el)


STARTED = (step("switch"), step("msr", r.PMCNTENSET_EL0, 1), step("msr", r.PMCR_EL0, r.PMCR_E))
WRITE = step("msr", r.PMEVCNTR(0), 5)
AT_EL0 = step("run", el=0)


@pytest.mark.parametrize(
    ("steps", "declared"),
    [
        ((*STARTED, WRITE, AT_EL0), True),
        ((*STARTED, step("msr", r.PMXEVCNTR_EL0, 5), AT_EL0), True),
        ((*STARTED, WRITE), False),  # what is left out is EL0
        ((*STARTED, AT_EL0, WRITE), False),
        ((*STARTED, WRITE, replace(AT_EL0, party="vm0/1", target=1)), False),
        ((*STARTED, step("msr", r.PMEVTYPER(0), 8), AT_EL0), False),  # kvm_vcpu_pmu_restore_guest() follows
        ((step("switch"), WRITE, *STARTED, AT_EL0), False),
        ((*STARTED, step("msr", r.PMCR_EL0, 0), WRITE, AT_EL0), False),
        ((*STARTED, step("msr", r.PMCNTENCLR_EL0, r.MASK32), WRITE, AT_EL0), False),
        ((*STARTED, step("msr", r.PMCNTENCLR_EL0, r.MASK32, el=0), WRITE, AT_EL0), True),  # it may trap
        ((*STARTED, step("msr", r.PMCNTENCLR_EL0, 2), WRITE, AT_EL0), True),
    ],
)
def test_a_counter_is_written_while_it_counts_if_its_vcpu_has_enabled_it(
    steps: tuple[StepSpec, ...], declared: bool
) -> None:
    assert limits.writes_running_counters(replace(experiment("emulated"), steps=steps)) is declared


OF_THE_HOST_ALONE = EventSpec("cycles:H", r.CPU_CYCLES, 0, exclude_guest=True)


@pytest.mark.parametrize(
    ("steps", "event", "declared"),
    [
        ((step("switch"), WRITE, AT_EL0), OF_THE_HOST_ALONE, True),  # the first event of its thread, though it is off
        ((*STARTED, WRITE, AT_EL0), OF_THE_HOST_ALONE, True),
        ((*STARTED, AT_EL0), OF_THE_HOST_ALONE, False),
        ((*STARTED, step("msr", r.PMEVTYPER(0), 8), AT_EL0), OF_THE_HOST_ALONE, False),
        ((*STARTED, WRITE, AT_EL0), replace(OF_THE_HOST_ALONE, exclude_guest=False), False),
        ((*STARTED, WRITE, AT_EL0), replace(OF_THE_HOST_ALONE, exclude_user=True), False),
    ],
)
def test_events_of_the_host_alone_are_rescheduled_by_a_counter_that_is_written(
    steps: tuple[StepSpec, ...], event: EventSpec, declared: bool
) -> None:
    session = SessionSpec("host", (event,), cpu_wide=True)
    of = experiment("emulated")
    found = replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(session,)),)), steps=steps)
    assert limits.takes_sides_beside_writes(found) is declared


def test_a_vmm_sets_registers_of_a_vcpu_that_has_run() -> None:
    sets = step("set_one_reg", r.PMCR_EL0)
    for steps, declared in (((sets, step("switch")), False), ((step("switch"), sets), True)):
        assert limits.sets_registers(replace(experiment("emulated"), steps=steps)) is declared


@pytest.mark.parametrize(
    ("hz", "sysctls", "declared"),
    [
        (250, PerfSysctls(), False),
        (1000, PerfSysctls(), False),
        (250, PerfSysctls(max_sample_rate=1000), False),
        (1000, PerfSysctls(max_sample_rate=1000), True),
        (1000, PerfSysctls(max_sample_rate=1001), False),
        (1000, PerfSysctls(cpu_time_max_percent=1), True),
        (1000, PerfSysctls(cpu_time_max_percent=100), False),
    ],
)
def test_a_backing_event_is_throttled_where_one_sample_a_tick_is_allowed(
    hz: int, sysctls: PerfSysctls, declared: bool
) -> None:
    of = experiment("emulated")
    found = replace(of, host=replace(of.host, hz=hz, sysctls=sysctls))
    assert limits.throttles(found) is declared
    assert bool(reasons(designs()["emulated"].make({}).declared, found)) is declared


def test_what_is_given_up_by_kind_is_given_up_in_no_other() -> None:
    of = given_up(Victim.GUEST, "it is", ["I4", "I5"], kinds={"I5": ("late_interrupt",)})
    found = reasons(of, experiment())
    assert {kind for invariant, _, kind in found if invariant == "I5"} == {"late_interrupt"}
    assert ("I4", Victim.GUEST, "restored") in found
    with pytest.raises(ValueError, match="no kind 'too_late' of violation, there are guest_read"):
        Declared("I5", Victim.GUEST, "it is", kinds=("too_late",))
