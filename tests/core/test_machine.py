"""The machine as Python drives it: why bursts stop, what time does, what is refused."""

from __future__ import annotations

import pytest

from services import _pmu
from services._pmu import Burst, Machine, Stop
from services.registers import (
    CYCLE_COUNTER,
    HDFG_PMOVS,
    HDFGRTR_EL2,
    INST_RETIRED,
    MDCR_EL2,
    MDCR_EL2_TPM,
    PMCNTENSET_EL0,
    PMCR_E,
    PMCR_EL0,
    PMEVCNTR,
    PMEVTYPER,
    PMEVTYPER_NSH,
    PMINTENSET_EL1,
    PMOVSCLR_EL0,
)

ONE = 1 << 32
GUEST, HOST = 0, 1
COSTS = {"mrs_cycles": 10, "msr_cycles": 20, "isb_cycles": 5}


@pytest.fixture
def machine() -> Machine:
    """Two CPUs; two instructions per cycle, whoever runs."""
    made = Machine([{"counters": 6}, {"counters": 6}], [INST_RETIRED], **COSTS)
    made.add_profile([(INST_RETIRED, 2 * ONE)])
    assert [made.add_context(True), made.add_context(False)] == [GUEST, HOST]
    return made


def counting(machine: Machine, cpu: int, start: int) -> None:
    """Counter 0 counts instructions everywhere, from `start`, and interrupts when it overflows."""
    machine.poke(cpu, PMEVTYPER(0), PMEVTYPER_NSH | INST_RETIRED)
    machine.poke(cpu, PMEVCNTR(0), start)
    machine.poke(cpu, PMINTENSET_EL1, 1)
    machine.poke(cpu, PMCNTENSET_EL0, 1)
    machine.poke(cpu, PMCR_EL0, PMCR_E)


def stopped(machine: Machine, burst: Burst) -> Stop:
    """Where `burst` stops."""
    stop = machine.execute(0, burst, 0, True)
    assert isinstance(stop, Stop)
    return stop


def test_a_burst_reads_writes_and_charges(machine: Machine) -> None:
    machine.set_running(0, HOST, 2, 0)
    burst = Burst()
    slot = burst.mrs(PMCR_EL0)
    burst.write_back(PMCR_EL0, slot, 2**64 - 1, PMCR_E)
    burst.isb()
    burst.charge(7, 100)
    clock = burst.clock()
    again = burst.mrs(PMCR_EL0)
    assert machine.execute(0, burst, 0, False) == machine.now(0)
    values = burst.values()
    assert values[clock] == 10 + 20 + 5 + 100
    assert values[again] == values[slot] | PMCR_E
    assert machine.now(0) == values[clock] + 10
    assert machine.accesses(0) == 3


def test_a_trapped_access_stops_the_burst(machine: Machine) -> None:
    machine.poke(0, HDFGRTR_EL2, HDFG_PMOVS)
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    burst.mrs(PMCR_EL0)
    burst.mrs(PMOVSCLR_EL0)
    stop = stopped(machine, burst)
    assert (stop.reason, stop.index) == (Stop.TRAP, 1)
    assert (stop.register, stop.write, stop.value) == (PMOVSCLR_EL0, False, 0)
    assert stop.esr >> 26 == 0x18
    assert burst.values()[0] != 0


def test_traps_are_counted_by_context_and_access(machine: Machine) -> None:
    machine.poke(0, MDCR_EL2, 6 | MDCR_EL2_TPM)
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    burst.msr(PMOVSCLR_EL0, 1)
    for _ in range(2):
        stopped(machine, burst)
    machine.trap(GUEST, PMOVSCLR_EL0, False)
    assert machine.traps(GUEST) == {PMOVSCLR_EL0 << 1 | 1: 2, PMOVSCLR_EL0 << 1: 1}
    assert machine.traps(HOST) == {}


def test_the_value_of_a_trapped_write_is_told(machine: Machine) -> None:
    machine.poke(0, MDCR_EL2, 6 | MDCR_EL2_TPM)
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    burst.msr(PMOVSCLR_EL0, 0x1234)
    stop = stopped(machine, burst)
    assert (stop.register, stop.write, stop.value) == (PMOVSCLR_EL0, True, 0x1234)


def test_an_exception_to_the_own_level_tells_its_syndrome(machine: Machine) -> None:
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    burst.isb()
    burst.msr(MDCR_EL2, 1)
    stop = stopped(machine, burst)
    assert (stop.reason, stop.index, stop.esr) == (Stop.EXCEPTION, 1, 1 << 25)
    assert (stop.register, stop.write, stop.value) == (MDCR_EL2, True, 0)
    assert repr(stop) == "<Stop EXCEPTION at 1: MSR MDCR_EL2, ESR 0x2000000>"


def test_an_operation_for_kvm_tells_all_of_it(machine: Machine) -> None:
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    burst.isb()
    burst.timer(2, 2**64 - 1)
    stop = stopped(machine, burst)
    assert (stop.reason, stop.index) == (Stop.OPERATION, 1)
    assert (stop.operation, stop.argument, stop.operand) == (_pmu.OP_TIMER, 2, 2**64 - 1)
    assert (stop.esr, stop.register, stop.write, stop.value) == (0, 0, False, 0)


def test_one_access_of_what_runs_is_what_a_burst_of_one_is(machine: Machine) -> None:
    machine.set_running(0, HOST, 2, 0)
    machine.observe(True)
    machine.write(0, PMEVCNTR(0), 9)
    assert machine.read(0, PMEVCNTR(0)) == 9
    accesses = machine.observed()
    burst = Burst()
    burst.msr(PMEVCNTR(0), 9)
    burst.mrs(PMEVCNTR(0))
    assert machine.execute(0, burst, 0, False) == machine.now(0) == 2 * 30
    assert [(*access[:1], access[1] + 30, *access[2:]) for access in accesses] == machine.observed()
    machine.set_running(0, GUEST, 1, 0)
    with pytest.raises(ValueError, match="took an exception"):
        machine.read(0, MDCR_EL2)


def test_a_prepared_burst_is_appended_as_if_posted_there() -> None:
    read, write = Burst(), Burst()
    read.write_back(PMOVSCLR_EL0, read.mrs(PMOVSCLR_EL0), 1, 0)
    write.msr(PMCR_EL0, PMCR_E)
    posted, appended = Burst(), Burst()
    for burst in (posted, appended):
        burst.mrs(PMCR_EL0)
    posted.msr(PMCR_EL0, PMCR_E)
    for _ in range(2):
        posted.write_back(PMOVSCLR_EL0, posted.mrs(PMOVSCLR_EL0), 1, 0)
    assert [appended.extend(part) for part in (write, read, read)] == [1, 1, 2]
    assert appended.arrays() == posted.arrays()
    assert appended.values() == posted.values() == [0, 0, 0]
    assert appended.extend(Burst()) == 3
    with pytest.raises(TypeError):
        appended.extend(None)  # type: ignore[arg-type] # what the core has to refuse by itself
    assert appended.arrays() == posted.arrays()


def test_run_stops_at_the_first_cycle_of_the_interrupt(machine: Machine) -> None:
    counting(machine, 0, 2**32 - 1001)
    machine.set_running(0, HOST, 2, 0)
    assert machine.next_stop(0, 10_000) == 501
    assert machine.run(0, 10_000) == 501
    assert machine.interrupt(0)
    assert machine.raised(0) == 501
    assert machine.run(0, 10_000) == 0
    machine.poke(0, PMOVSCLR_EL0, 1)
    machine.set_deadline(0, 700)
    assert machine.run(0, 10_000) == 199


def test_a_guest_is_interrupted_before_the_operation_that_finds_it(machine: Machine) -> None:
    counting(machine, 0, 2**32 - 30)
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    for _ in range(5):
        burst.mrs(PMCR_EL0)
    stop = stopped(machine, burst)
    assert (stop.reason, stop.index) == (Stop.INTERRUPT, 2)
    machine.set_running(0, HOST, 2, 0)
    machine.poke(0, PMOVSCLR_EL0, 1)
    machine.set_running(0, GUEST, 1, 0)
    assert machine.execute(0, burst, 2, True) == machine.now(0)


def test_the_host_s_kernel_has_the_time_from_guest_timing_exit_to_guest_timing_enter_as_its_own(
    machine: Machine,
) -> None:
    assert machine.work(0, GUEST, 0, 0, 100) == (100, 100, False)
    machine.set_cputime(0, _pmu.CPUTIME_GUEST)
    assert not machine.trap_guest(0, HOST, 0, 7, (30, 10))
    machine.charge(0, 7, 50)
    assert not machine.enter_guest(0, GUEST, 0, 7, 20, 190), "a timer is due"
    assert machine.enter_guest(0, GUEST, 0, 7, 20, 191)
    assert machine.work(0, GUEST, 1, 0, 5) == (5, 215, False)
    guest = 30 + 20 + 5
    assert machine.cputime(0, False) == {"guest": guest, "host_kernel": 60, "host_user": 0, "idle": 100, "irq": 0}
    assert machine.cycles(0) == {"guest": 105, "host_kernel": 110, "host_user": 0, "idle": 0}
    machine.set_deadline(0, 220)
    assert machine.work(0, GUEST, 1, 0, 100) == (5, 220, True)
    assert machine.exit_guest(0, HOST, 0, 7, 30), "what interrupts is to be served first"
    assert machine.cputime(0, False)["guest"] == guest + 5 + 30
    machine.guest_timing_exit(0, 7, 10)
    machine.guest_timing_enter(0, 7, 3)
    assert machine.cputime(0, False) == {"guest": 93, "host_kernel": 70, "host_user": 0, "idle": 100, "irq": 0}


@pytest.mark.parametrize(
    ("due", "found"),
    [(100, "guest"), (101, "host_kernel"), (130, "host_kernel"), (190, "host_kernel"), (191, "guest"), (210, "guest")],
)
def test_a_tick_that_falls_due_in_a_trap_finds_the_host_s_kernel_up_to_where_it_masks_interrupts_again(
    machine: Machine, due: int, found: str
) -> None:
    machine.set_cputime(0, _pmu.CPUTIME_GUEST)
    machine.set_tick(0, due)
    machine.work(0, GUEST, 0, 0, 100)
    machine.trap_guest(0, HOST, 0, 7, (30, 10))
    machine.charge(0, 7, 50)
    machine.enter_guest(0, GUEST, 0, 7, 20, 2**64 - 1)
    machine.account_tick(0, 1000, 2000)
    assert {whose for whose, cycles in machine.cputime(0, True).items() if cycles == 1000} == {found}


@pytest.mark.parametrize("due", [100, 101, 130, 150])
def test_a_tick_that_falls_due_in_an_interrupt_s_exit_or_in_the_window_after_it_finds_the_guest(
    machine: Machine, due: int
) -> None:
    machine.set_cputime(0, _pmu.CPUTIME_GUEST)
    machine.set_tick(0, due)
    machine.work(0, GUEST, 0, 0, 100)
    machine.exit_guest(0, HOST, 0, 7, 30)
    machine.charge(0, 7, 20)  # handlers
    machine.guest_timing_exit(0, 7, 10)
    machine.account_tick(0, 1000, 2000)
    assert machine.cputime(0, True)["guest"] == 1000


def test_a_context_takes_its_truth_along(machine: Machine) -> None:
    for cpu, cycles in ((0, 100), (1, 50)):
        machine.set_running(cpu, GUEST, 0, 0)
        machine.run(cpu, cycles)
        machine.set_running(cpu, HOST, 2, 0)
    assert machine.truth(GUEST, 0, INST_RETIRED) == 300
    guest_el0 = 1
    of_the_guest_here = Burst()
    of_the_guest_here.truth(INST_RETIRED, guest_el0)
    for cpu, occurrences in ((0, 200), (1, 100)):
        machine.execute(cpu, of_the_guest_here, 0, False)
        assert of_the_guest_here.values() == [occurrences]
    assert machine.cycles(0) == {"guest": 100, "host_kernel": 0, "host_user": 0, "idle": 0}


def test_a_machine_goes_on_from_its_state(machine: Machine) -> None:
    counting(machine, 0, 0)
    machine.set_running(0, GUEST, 1, 0)
    machine.run(0, 123)
    restored = Machine([{}], [], **COSTS)
    restored.restore(machine.state())
    for each in (machine, restored):
        each.run(0, 1000)
        each.mark(0, 1, 2, 3)
    assert restored.digest() == machine.digest()
    assert restored.peek(0, PMEVCNTR(0)) == machine.peek(0, PMEVCNTR(0)) == 2 * 1123
    assert restored.state() == machine.state()


def test_a_machine_goes_back_in_place_to_its_state(machine: Machine) -> None:
    """Also from registers that decide accesses otherwise."""
    counting(machine, 0, 0)
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    burst.mrs(PMCR_EL0)
    state = machine.state()

    def goes_on() -> tuple[int, str, bytes]:
        executed = machine.execute(0, burst, 0, False)
        assert isinstance(executed, int)
        machine.run(0, 1000)
        return executed, machine.digest(), machine.state()

    before = goes_on()
    machine.poke(0, MDCR_EL2, 6 | MDCR_EL2_TPM)
    assert stopped(machine, burst).reason == Stop.TRAP
    machine.restore(state)
    assert machine.state() == state
    assert goes_on() == before


def test_what_is_no_state_is_refused(machine: Machine) -> None:
    good = machine.state()
    state = bytearray(good)
    state[-1] ^= 1
    for wrong in (b"", b"pmulab", bytes(state)):
        with pytest.raises(ValueError, match="not a snapshot"):
            machine.restore(wrong)
        assert machine.state() == good


def test_only_an_observed_machine_keeps_records(machine: Machine) -> None:
    machine.set_running(0, HOST, 2, 0)
    burst = Burst()
    burst.msr(PMEVCNTR(0), 9)
    machine.execute(0, burst, 0, False)
    assert machine.observed() == []
    machine.observe(True)
    machine.execute(0, burst, 0, False)
    machine.mark(0, 4, 5, 6)
    write, mark = 1, 256 + 4
    assert machine.observed() == [(0, 40, 2, write, PMEVCNTR(0), 9), (0, 40, 2, mark, 5, 6)]
    assert machine.observed() == []


def test_an_event_is_placed_in_one_call_as_in_two() -> None:
    start = Burst()
    start.write_back(PMOVSCLR_EL0, start.mrs(PMOVSCLR_EL0), 1, 0)
    placed, one_by_one = Burst(), Burst()
    for burst in (placed, one_by_one):
        burst.mrs(PMCR_EL0)
    placed.place(PMEVCNTR(0), 2**64 - 1, start)
    one_by_one.msr(PMEVCNTR(0), 2**64 - 1)
    one_by_one.extend(start)
    assert placed.arrays() == one_by_one.arrays()
    assert placed.values() == one_by_one.values()
    for register, value in ((1 << 16, 0), (PMCR_EL0, 2**64)):
        with pytest.raises(OverflowError):
            placed.place(register, value, start)
    assert placed.arrays() == one_by_one.arrays(), "all or nothing"


def test_events_enabled_in_turn_take_all_off_and_put_them_back_each_time() -> None:
    """Three events, of which the second is on the PMU, on counter 3; the first is enabled, then the second again."""
    call, off, on = Burst(), Burst(), Burst()
    call.charge(1, 10)
    off.msr(PMCR_EL0, 0)
    on.msr(PMCR_EL0, PMCR_E)
    outs, starts = [Burst() for _ in range(32)], [Burst() for _ in range(32)]
    for idx in range(32):
        outs[idx].mrs(PMOVSCLR_EL0)
        outs[idx].charge(2, idx)
        starts[idx].charge(3, idx)
    events = [(111, False, starts, 0), (222, False, starts, 3), (333, True, starts, CYCLE_COUNTER)]
    burst, expected = Burst(), Burst()
    assert burst.enable_in_turn(call, off, on, outs, [5, 4], events, 0b10, [0, 1]) == [5, 4, CYCLE_COUNTER]
    for prepared in (call, off, outs[3]):
        expected.extend(prepared)
    expected.place(PMEVCNTR(5), 111, starts[5])
    expected.place(PMEVCNTR(4), 222, starts[4])
    for prepared in (on, call):
        expected.extend(prepared)
    assert burst.arrays() == expected.arrays()
    assert burst.values() == expected.values()
    for free, turns in (([5], [0]), ([5, 31], [0]), ([5, 4], [3]), ([5, 4], [2**63])):
        with pytest.raises(IndexError):
            burst.enable_in_turn(call, off, on, outs, free, events, 0b10, turns)
        assert burst.arrays() == expected.arrays(), "nothing is posted"


@pytest.mark.parametrize("others", [False, True])
def test_events_disabled_in_turn_are_taken_off_and_what_is_left_goes_on(others: bool) -> None:
    """Three events, of which the second is not on the PMU; with or without others that stay there."""
    call, off, on, first, third = (Burst() for _ in range(5))
    call.charge(1, 10)
    off.msr(PMCR_EL0, 0)
    on.msr(PMCR_EL0, PMCR_E)
    first.mrs(PMEVCNTR(0))
    third.mrs(PMEVCNTR(2))
    burst, expected = Burst(), Burst()
    slots = burst.disable_in_turn(call, off, on, [first, None, third], others)
    for prepared in (call, off, first, on, call, call, off, third, *([on] if others else [])):
        expected.extend(prepared)
    assert burst.arrays() == expected.arrays()
    assert slots == [0, 1]
    assert burst.values() == expected.values()


def test_a_burst_survives_the_wire() -> None:
    burst = Burst()
    slot = burst.mrs(PMCR_EL0)
    burst.write_back(PMCR_EL0, slot, 3, 4)
    burst.truth(INST_RETIRED, 0xF)
    burst.timer(1, 2**64 - 1)
    burst.compute(5, 1, 10**12)
    burst.notify(2, 77)
    burst.done()
    arrays = burst.arrays()
    there = Burst.from_arrays(*arrays)
    assert there.arrays() == arrays
    assert 2**64 - 1 in arrays[1]
    burst.set_values([1, 2])
    assert burst.values() == [1, 2]


@pytest.mark.parametrize(
    ("codes", "operands", "message"),
    [
        ([_pmu.OP_ISB << 24, 0], [], "operation 1: unknown operation"),
        ([200 << 24], [], "operation 0: unknown operation"),
        ([_pmu.OP_MRS << 24 | 1 << 16], [], "operation 0: register"),
        ([_pmu.OP_MSR << 24 | PMCR_EL0], [], "operation 0: operand missing"),
        ([_pmu.OP_WRITE_BACK << 24 | PMCR_EL0], [0, 0, 0], "operation 0: slot of no earlier read"),
        ([_pmu.OP_CHARGE << 24 | 256], [1], "operation 0: register, cause"),
        ([_pmu.OP_CHARGE << 24], [2**63], "operation 0: cycles out of range"),
        ([_pmu.OP_ISB << 24], [1], "operation 1: operands left over"),
    ],
)
def test_a_malformed_burst_is_named(codes: list[int], operands: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Burst.from_arrays(codes, operands)


def test_what_software_may_not_do_is_refused(machine: Machine) -> None:
    with pytest.raises(ValueError, match="unknown feature"):
        Machine([{"bogus": 1}], [], **COSTS)
    with pytest.raises(ValueError, match="a guest has EL0 and EL1"):
        machine.set_running(0, GUEST, 2, 0)
    machine.set_running(0, GUEST, 1, 0)
    with pytest.raises(ValueError, match="context 0 still runs on CPU 0"):
        machine.set_running(1, GUEST, 1, 0)
    for account in (0, 16, 2**63):
        with pytest.raises(ValueError, match=f"no account {account} of the host: 1 to 15"):
            machine.set_account(0, account)
    assert machine.set_account(0, 15) == 1, "what was refused changed nothing"
    with pytest.raises(ValueError, match="no CPU 9"):
        machine.run(9, 1)
    burst = Burst()
    burst.isb()
    with pytest.raises(ValueError, match="1 values for a burst that reads 0"):
        burst.set_values([1])


def test_no_operand_from_python_is_out_of_the_core_s_reach(machine: Machine) -> None:
    """Every register, from every level, with values that hurt."""
    for context, el in ((GUEST, 0), (GUEST, 1), (HOST, 0), (HOST, 2)):
        machine.set_running(0, context, el, 0)
        burst = Burst()
        for register in [*map(_pmu.register_encoding, _pmu.register_names()), 0, 0xFFFF]:
            for value in (0, 2**64 - 1, 2**63, 0xAAAA_AAAA_AAAA_AAAA):
                burst.msr(register, value)
                burst.mrs(register)
        start = 0
        while start < len(burst):
            stop = machine.execute(0, burst, start, False)
            start = stop.index + 1 if isinstance(stop, Stop) else len(burst)
        machine.run(0, 10_000)
    machine.state()
