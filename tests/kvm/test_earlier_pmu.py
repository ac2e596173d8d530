"""A guest whose PMU is an earlier one than the CPU's has no more bits of it than its own has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab import Run, scenario
from pmulab.embedded import run_embedded

PARTITIONED = ("", ",swap=eager", ",swap=lazy-sticky", ",traps=fast-path", ",traps=slow-path", ",reservation=grow")
DESIGNS = (
    *(f"partitioned{axes}" for axes in PARTITIONED),
    "partitioned,pmcr=trapped",
    "mediated",
    "mediated,traps=fast-path",
    "mediated,traps=slow-path",
    "emulated",
)
WIDE = 0x1_0000_0005
LP = 0x80
CLEARS = ("PMCNTENCLR_EL0", "PMINTENCLR_EL1", "PMOVSCLR_EL0")


def run_of(tmp_path: Path, design: str, text: str) -> Run:
    path = tmp_path / "own.toml"
    path.write_text(text)
    (of,) = scenario.load(path, designs=[design]).experiments
    return run_embedded(of).runs[0]


def played(tmp_path: Path, design: str, pmuvers: tuple[int, int], *steps: str) -> list[int]:
    """What accesses of a guest's first vCPU read: no invariant is broken, no window used but that of its reset."""
    each = "".join(f"[[step]]\nparty = 'vm0/0'\n{step}\n" for step in steps)
    machine, guest = pmuvers
    text = f"[machine]\npmuver = {machine}\n[[guest]]\npmuver = {guest}\n{each}"
    run = run_of(tmp_path, design, text)
    assert run.violations == ()
    assert {name for name, window in run.windows.items() if window.uses} <= {"unknown after reset"}
    return [step.value for step in run.steps if step.value is not None]


def access(action: str, register: str, value: int | None = None) -> str:
    return f"action = '{action}'\nregister = '{register}'" + ("" if value is None else f"\nvalue = {value}")


@pytest.mark.parametrize("pmuvers", [(4, 4), (6, 1), (6, 4), (7, 5)])
@pytest.mark.parametrize("design", DESIGNS)
def test_a_vmm_has_back_32_bits_of_an_event_counter(tmp_path: Path, design: str, pmuvers: tuple[int, int]) -> None:
    """kvm_pmu_get_counter_value(): before the guest runs, and when it has been loaded."""
    steps = (
        access("set_one_reg", "PMEVCNTR0_EL0", WIDE),
        access("get_one_reg", "PMEVCNTR0_EL0"),
        "action = 'switch'",
        access("mrs", "PMEVCNTR0_EL0"),
        "action = 'preempt'",
        access("get_one_reg", "PMEVCNTR0_EL0"),
    )
    assert played(tmp_path, design, pmuvers, *steps) == [5, 5, 5]
    assert played(tmp_path, design, (6, 6), *steps) == [WIDE, WIDE, WIDE]


@pytest.mark.parametrize("counter", ["PMEVCNTR1_EL0", "PMXEVCNTR_EL0"])
@pytest.mark.parametrize("design", DESIGNS)
def test_a_guest_reads_32_bits_of_what_it_writes(tmp_path: Path, design: str, counter: str) -> None:
    steps = (
        "action = 'switch'",
        access("msr", "PMCNTENCLR_EL0", 0xFFFF_FFFF),
        access("msr", "PMSELR_EL0", 1),
        access("msr", counter, WIDE),
        access("mrs", counter),
        "action = 'preempt'",
        access("get_one_reg", "PMEVCNTR1_EL0"),
    )
    assert played(tmp_path, design, (6, 5), *steps) == [5, 5]
    assert played(tmp_path, design, (6, 6), *steps) == [WIDE, WIDE]


PAIRS = """
[machine]
core = "neoverse-v3"
[[guest]]
pmuver = 5
[[guest.task]]
workload = "gzip-random"
seconds = 3
[guest.task.perf]
verb = "stat"
interval_ms = 10
events = "instructions,armv8_pmuv3_0/event=0x8,long=1/,branches"
"""


@pytest.mark.parametrize("design", ["partitioned", "mediated", "emulated"])
def test_a_pair_that_chains_counts_right_when_its_lower_half_has_overflowed(tmp_path: Path, design: str) -> None:
    """armv8pmu_read_hw_counter() puts the two together with `|`."""
    run = run_of(tmp_path, design, PAIRS)
    assert [one for one in run.violations if one.counts] == []
    single, pair = (event.count for event in run.guests[0].events[:2])
    assert single is not None
    assert pair is not None
    assert single == pair > 2 << 32


@pytest.mark.parametrize("design", ["partitioned,pmcr=trapped", "partitioned,traps=slow-path", "mediated", "emulated"])
def test_lp_is_res0_where_kvm_writes_it(tmp_path: Path, design: str) -> None:
    """What a VMM sets, too; bit 31 overflows."""
    path = tmp_path / "own.toml"
    steps = (
        access("set_one_reg", "PMCR_EL0", LP | 0x2041),
        access("set_one_reg", "PMEVTYPER0_EL0", 0x8000_0008),
        access("set_one_reg", "PMEVCNTR0_EL0", 0xFFFF_FF00),
        *(access("set_one_reg", register, 0xFFFF_FFFF) for register in CLEARS),
        access("set_one_reg", "PMCNTENSET_EL0", 1),
        "action = 'switch'",
        "action = 'run'\ncycles = 1000\nel = 0\nrates = { INST_RETIRED = 1 }",
        access("mrs", "PMCR_EL0"),
        access("mrs", "PMOVSSET_EL0"),
        access("mrs", "PMEVCNTR0_EL0"),
    )
    each = "".join(f"[[step]]\nparty = 'vm0/0'\n{step}\n" for step in steps)
    path.write_text(f"[machine]\npmuver = 6\n[[guest]]\ncounters = 4\npmuver = 5\n{each}")
    (of,) = scenario.load(path, designs=[design]).experiments
    run = run_embedded(of).runs[0]
    assert run.violations == ()
    pmcr, flags, count = (step.value for step in run.steps if step.value is not None)
    assert pmcr is not None
    assert flags is not None
    assert (pmcr & LP, flags & 1, count) == (0, 1, 0x2E8)
