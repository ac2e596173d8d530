"""The machine as Python drives it: why bursts stop, what time does, what is refused."""

from __future__ import annotations

import pytest

from services import _pmu
from services._pmu import Burst, Machine
from services.registers import (
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


def test_a_burst_reads_writes_and_charges(machine: Machine) -> None:
    machine.set_running(0, HOST, 2, 0)
    burst = Burst()
    slot = burst.mrs(PMCR_EL0)
    burst.write_back(PMCR_EL0, slot, 2**64 - 1, PMCR_E)
    burst.isb()
    burst.charge(7, 100)
    clock = burst.clock()
    again = burst.mrs(PMCR_EL0)
    assert machine.execute(0, burst, 0, False) == (_pmu.STOP_END, len(burst), 0, 0)
    values = burst.values()
    assert values[clock] == 10 + 20 + 5 + 100
    assert values[again] == values[slot] | PMCR_E
    assert machine.now(0) == values[clock] + 10
    assert machine.accesses(0) == 3


def test_a_trapped_access_is_completed_by_kvm(machine: Machine) -> None:
    machine.poke(0, HDFGRTR_EL2, HDFG_PMOVS)
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    before = burst.mrs(PMCR_EL0)
    trapped = burst.mrs(PMOVSCLR_EL0)
    stop, index, esr, value = machine.execute(0, burst, 0, True)
    assert (stop, index, value) == (_pmu.STOP_TRAP, 1, 0)
    assert esr >> 26 == 0x18
    assert burst.register_at(index) == PMOVSCLR_EL0
    burst.set_value(index, 0x55)
    assert machine.execute(0, burst, index + 1, True) == (_pmu.STOP_END, 2, 0, 0)
    assert burst.values()[trapped] == 0x55
    assert burst.values()[before] != 0


def test_the_value_of_a_trapped_write_is_told(machine: Machine) -> None:
    machine.poke(0, MDCR_EL2, 6 | MDCR_EL2_TPM)
    machine.set_running(0, GUEST, 1, 0)
    burst = Burst()
    burst.msr(PMOVSCLR_EL0, 0x1234)
    assert machine.execute(0, burst, 0, True)[3] == 0x1234


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
    assert machine.execute(0, burst, 0, True) == (_pmu.STOP_INTERRUPT, 2, 0, 0)
    machine.set_running(0, HOST, 2, 0)
    machine.poke(0, PMOVSCLR_EL0, 1)
    machine.set_running(0, GUEST, 1, 0)
    assert machine.execute(0, burst, 2, True)[0] == _pmu.STOP_END


def test_a_context_takes_its_truth_along(machine: Machine) -> None:
    for cpu, cycles in ((0, 100), (1, 50)):
        machine.set_running(cpu, GUEST, 0, 0)
        machine.run(cpu, cycles)
        machine.set_running(cpu, HOST, 2, 0)
    assert machine.truth(GUEST, 0, INST_RETIRED) == 300
    guest_el0 = 1
    assert [machine.cpu_truth(cpu, guest_el0, INST_RETIRED) for cpu in (0, 1)] == [200, 100]
    assert machine.cycles(0) == {"guest": 100, "host_kernel": 0, "host_user": 0, "idle": 0}


def test_a_machine_goes_on_from_its_state(machine: Machine) -> None:
    counting(machine, 0, 0)
    machine.set_running(0, GUEST, 1, 0)
    machine.run(0, 123)
    restored = Machine.from_state(machine.state())
    for each in (machine, restored):
        each.run(0, 1000)
        each.mark(0, 1, 2, 3)
    assert restored.digest() == machine.digest()
    assert restored.peek(0, PMEVCNTR(0)) == machine.peek(0, PMEVCNTR(0)) == 2 * 1123
    assert restored.state() == machine.state()


def test_what_is_no_state_is_refused(machine: Machine) -> None:
    state = bytearray(machine.state())
    state[-1] ^= 1
    for wrong in (b"", b"pmulab", bytes(state)):
        with pytest.raises(ValueError, match="not a snapshot"):
            Machine.from_state(wrong)


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
    assert there.operand_at(3) == 2**64 - 1
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
    with pytest.raises(ValueError, match="no CPU 9"):
        machine.run(9, 1)
    burst = Burst()
    burst.isb()
    with pytest.raises(ValueError, match="operation 0 yields no value"):
        burst.set_value(0, 1)
    with pytest.raises(IndexError):
        burst.operand_at(1)
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
            stop, index, *_ = machine.execute(0, burst, start, False)
            start = len(burst) if stop == _pmu.STOP_END else index + 1
        machine.run(0, 10_000)
    machine.state()
