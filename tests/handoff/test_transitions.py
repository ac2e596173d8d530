"""The rules of ownership, one test for each way in which a counter changes hands."""

from __future__ import annotations

from pathlib import Path

from tests.handoff.ownership import DESIGNS, PARTITIONED, count_from, play, read, reset, work, worlds

OPEN = "host perf_open name=own events=instructions:uH\n"  # exclude_guest, exclude_kernel: the host's programs alone
OWN = "host perf_read name=own\n"
SETS = ("PMCNTENSET_EL0", "PMINTENSET_EL1", "PMOVSSET_EL0")
CLEARS = ("PMCNTENCLR_EL0", "PMINTENCLR_EL1", "PMOVSCLR_EL0")


def cleared(vcpu: str) -> str:
    """By KVM_SET_ONE_REG: up to 6.12 what sets bits for a guest does for the VMM, and what clears bits clears."""
    return "".join(f"{vcpu} set_one_reg register={name} value=0xffffffff\n" for name in CLEARS)


@worlds(*DESIGNS)
async def test_at_boot_a_guest_finds_what_its_vmm_has_left_and_nothing_of_the_hosts(
    tmp_path: Path, design: str, where: str
) -> None:
    """The host's events are on at the time, and have flags and enables of their own."""
    vmm = cleared("vm0/0") + "".join(
        f"vm0/0 set_one_reg register={name} value={1 << n}\n" for n, name in enumerate(SETS)
    )
    accesses = "".join(f"vm0/0 mrs register={name}\n" for name in SETS)
    steps = OPEN + "host perf_open name=b events=branches:H period=100000\n" + vmm + "vm0/0 switch\n" + accesses
    found = await play(tmp_path, steps, design, where)
    assert found.values == [1, 2, 4]
    assert found.violations == []


@worlds(*DESIGNS)
async def test_a_load_takes_no_count_from_the_host_and_gives_it_none_of_the_guests(
    tmp_path: Path, design: str, where: str
) -> None:
    steps = f"""
    {OPEN}
    {work("host/0", 1000)}
    vm0/0 switch
    {work("vm0/0", 5000)}
    {OWN}
    {reset("vm0/0")}
    {count_from("vm0/0", 7)}
    {work("vm0/0", 300)}
    {OWN}
    {read("vm0/0")}
    """
    found = await play(tmp_path, steps, design, where)
    assert found.counts() == [[1000], [1000]]
    assert found.values == [307]
    assert found.violations == []


@worlds(*DESIGNS)
async def test_after_a_put_a_guest_counts_nothing_and_the_host_all_that_is_its_own(
    tmp_path: Path, design: str, where: str
) -> None:
    steps = f"""
    {OPEN}
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 7, 8)}
    {work("vm0/0", 300)}
    vm0/0 preempt
    {work("host/0", 1000)}
    {OWN}
    vm0/0 switch
    {read("vm0/0", 2)}
    """
    found = await play(tmp_path, steps, design, where)
    assert found.counts() == [[1000]]
    assert found.values == [307, 308]
    assert found.violations == []


@worlds(*DESIGNS)
async def test_the_first_access_since_a_load_finds_the_guests_own(tmp_path: Path, design: str, where: str) -> None:
    """And not what another guest has left on the CPU in between."""
    steps = f"""
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100)}
    {work("vm0/0", 11)}
    vm1/0 switch
    {reset("vm1/0")}
    {count_from("vm1/0", 200)}
    {work("vm1/0", 22)}
    vm0/0 switch
    {read("vm0/0")}
    vm1/0 switch
    vm1/0 mrs register=PMEVTYPER0_EL0
    {read("vm1/0")}
    """
    found = await play(tmp_path, steps, design, where, guests=2)
    assert found.values == [111, 0x8000_0008, 222]
    assert found.violations == []


@worlds(*DESIGNS)
async def test_a_preemption_anywhere_in_a_load_an_access_or_a_put_changes_no_count(
    tmp_path: Path, design: str, where: str
) -> None:
    """Before each operation of KVM's that there is; in processes, before one of each."""
    for amid in ("vm0/0 switch", "vm0/0 mrs register=PMEVTYPER1_EL0", "vm0/0 preempt"):
        before = "" if amid == "vm0/0 switch" else "vm0/0 switch\n"
        at, operations = 0, 1
        while at < operations:
            steps = f"""
            {OPEN}
            vm0/0 switch
            {reset("vm0/0")}
            {count_from("vm0/0", 100, 200)}
            {work("vm0/0", 11)}
            vm0/0 preempt
            {before}
            vm0/0 preempt at={at}
            {amid}
            vm0/0 switch
            {work("vm0/0", 22)}
            vm0/0 preempt
            {work("host/0", 1000)}
            vm0/0 switch
            {read("vm0/0", 2)}
            {OWN}
            """
            found = await play(tmp_path, steps, design, where)
            assert found.values[-2:] == [133, 233], (amid, at)
            assert found.counts() == [[1000]], (amid, at)
            assert found.violations == [], (amid, at)
            (step,) = (one for one in found.of("preempt") if one.operations is not None)
            assert step.operations is not None
            assert step.reached is (at < step.operations)
            operations = step.operations if where == "embedded" else 0
            at += 1


@worlds(*DESIGNS)
async def test_a_vcpu_that_migrates_takes_its_counts_along_and_leaves_both_hosts_theirs(
    tmp_path: Path, design: str, where: str
) -> None:
    steps = f"""
    {OPEN}
    host perf_open name=other events=instructions:uH pcpu=1
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100)}
    {work("vm0/0", 11)}
    vm0/0 preempt
    vm0/0 migrate pcpu=1
    {work("host/0", 1000)}
    {work("host/1", 2000)}
    vm0/0 switch
    {work("vm0/0", 22)}
    {read("vm0/0")}
    {OWN}
    host perf_read name=other
    """
    found = await play(tmp_path, steps, design, where, pcpus=2)
    assert found.values == [133]
    assert found.counts() == [[1000], [2000]]
    assert found.violations == []


@worlds(*DESIGNS)
async def test_a_host_event_that_is_opened_while_a_vcpu_is_loaded_takes_nothing_from_its_guest(
    tmp_path: Path, design: str, where: str
) -> None:
    """At once, and amid its load. The host has two counters left."""
    for at in ("", " at=0", " at=2"):
        arrives = f"host perf_open name=own events=instructions:uH{at}\n"
        steps = f"""
        vm0/0 switch
        {reset("vm0/0")}
        {count_from("vm0/0", 100, 200, 300, 400)}
        vm0/0 preempt
        {arrives if at else ""}
        vm0/0 switch
        {"" if at else arrives}
        {work("vm0/0", 50)}
        {read("vm0/0", 4)}
        vm0/0 preempt
        {work("host/0", 1000)}
        {OWN}
        """
        found = await play(tmp_path, steps, design, where)
        assert found.values == [150, 250, 350, 450], at
        assert found.counts() == [[1000]], at


@worlds("emulated", *(design for design in PARTITIONED if "static" not in design))
async def test_events_that_a_guest_squeezes_out_say_so_and_come_back_when_it_is_gone(
    tmp_path: Path, design: str, where: str
) -> None:
    """Where the host has all six counters while no vCPU is loaded, and two while one uses four."""
    events = "{instructions:uH,branches:uH,branch-misses:uH,dTLB-loads:uH}"
    steps = f"""
    host perf_open name=group events={events}
    {work("host/0", 1000)}
    host perf_read name=group
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100, 200, 300, 400)}
    host perf_read name=group
    {work("vm0/0", 50)}
    host perf_read name=group
    {read("vm0/0", 4)}
    vm0/0 preempt
    host/0 mux
    {work("host/0", 1000)}
    host perf_read name=group
    """
    found = await play(tmp_path, steps, design, where)
    before, loaded, later, after = (events[0] for events in found.events())
    assert found.values == [150, 250, 350, 450]
    assert before.running_ns == before.enabled_ns
    assert later.running_ns == loaded.running_ns
    assert later.enabled_ns > loaded.enabled_ns
    assert after.running_ns > later.running_ns
    assert (before.count, later.count, after.count) == (1000, 1000, 2000)
    assert found.violations == []


@worlds(*DESIGNS)
async def test_a_vm_that_dies_loaded_leaves_its_neighbour_and_the_host_theirs(
    tmp_path: Path, design: str, where: str
) -> None:
    steps = f"""
    {OPEN}
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100)}
    {work("vm0/0", 11)}
    vm1/0 switch
    {reset("vm1/0")}
    {count_from("vm1/0", 200)}
    {work("vm1/0", 22)}
    vm1 kill
    {work("host/0", 1000)}
    {OWN}
    vm0/0 switch
    {work("vm0/0", 33)}
    {read("vm0/0")}
    """
    found = await play(tmp_path, steps, design, where, guests=2)
    assert found.counts() == [[1000]]
    assert found.values == [144]
    assert found.violations == []


@worlds(*DESIGNS)
async def test_a_session_of_the_host_that_is_closed_while_a_vcpu_is_loaded_leaves_it_its_counters(
    tmp_path: Path, design: str, where: str
) -> None:
    steps = f"""
    {OPEN}
    host perf_open name=watchdog events=branches:DH
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100, 200, 300, 400)}
    {work("vm0/0", 11)}
    host perf_close name=watchdog
    {work("vm0/0", 22)}
    {read("vm0/0", 4)}
    vm0/0 preempt
    {work("host/0", 1000)}
    {OWN}
    """
    found = await play(tmp_path, steps, design, where)
    assert found.values == [133, 233, 333, 433]
    assert found.counts() == [[1000]]
    assert found.violations == []


@worlds(*DESIGNS)
async def test_a_vm_that_is_restored_by_one_reg_goes_on_where_the_other_was_saved(
    tmp_path: Path, design: str, where: str
) -> None:
    """KVM_GET_ONE_REG of each register, of a vCPU that has been put, and KVM_SET_ONE_REG of what it gave."""
    registers = ("PMEVTYPER0_EL0", "PMEVCNTR0_EL0", "PMCNTENSET_EL0", "PMINTENSET_EL1", "PMOVSSET_EL0", "PMCR_EL0")
    saving = f"""
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100)}
    {work("vm0/0", 11)}
    vm0/0 preempt
    {work("host/0", 1000)}
    """
    get = "".join(f"vm0/0 get_one_reg register={name}\n" for name in registers)
    saved = (await play(tmp_path, saving + get, design, guests=2)).values
    put = cleared("vm1/0") + "".join(
        f"vm1/0 set_one_reg register={name} value={value}\n" for name, value in zip(registers, saved, strict=True)
    )
    steps = f"""
    {saving}
    {get}
    {put}
    vm1/0 switch
    vm1/0 mrs register=PMEVTYPER0_EL0
    {read("vm1/0")}
    {work("vm1/0", 22)}
    {read("vm1/0")}
    """
    found = await play(tmp_path, steps, design, where, guests=2)
    assert found.values == [*saved, 0x8000_0008, 111, 133]
