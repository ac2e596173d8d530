"""A guest with its cycle counter alone on a CPU without FEAT_HPMN0: HPMN stays N, and PMCR_EL0.E is the host's."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmulab

WORLD = """
[machine]
core = "neoverse-v3"
counters = 4

[[guest]]
counters = 0
pin = [0]
"""
COUNTS = """
  { party = "vm0/0", action = "switch" },
  { party = "vm0/0", action = "msr", register = "PMCR_EL0", value = 0x41 },
  { party = "vm0/0", action = "msr", register = "PMCCNTR_EL0", value = 0 },
  { party = "vm0/0", action = "msr", register = "PMCNTENSET_EL0", value = 0x8000_0000 },
"""
OPENS = '  { party = "host", action = "perf_open", name = "host", events = "instructions", pcpu = 0 },'
CLOSES = '  { party = "host", action = "perf_close", name = "host" },'
RUNS = '  { party = "vm0/0", action = "run", el = 0, cycles = 1_000 },'
READS = '  { party = "vm0/0", action = "mrs", register = "PMCCNTR_EL0" },'
PUT = '  { party = "vm0/0", action = "preempt" },'


def run_of(tmp_path: Path, design: str, *steps: str, host: str = "") -> pmulab.Run:
    path = tmp_path / "own.toml"
    path.write_text("step = [\n" + "\n".join(steps) + "\n]\n" + WORLD + host)
    (run,) = pmulab.run(path, designs=[design]).runs
    assert not run.violations
    return run


DESIGNS = pytest.mark.parametrize("design", ["partitioned", "partitioned,reservation=static"])


@DESIGNS
def test_the_guest_counts_on_when_the_host_s_last_event_has_gone(tmp_path: Path, design: str) -> None:
    run = run_of(tmp_path, design, OPENS, COUNTS, CLOSES, RUNS, READS, PUT)
    value = run.steps[-2].value
    assert value is not None
    assert value >= 1_000


@DESIGNS
def test_an_event_that_the_host_opens_meanwhile_counts_on_after_the_put(tmp_path: Path, design: str) -> None:
    works = '  { party = "host/0", action = "run", cycles = 1_000, rates = { INST_RETIRED = 1 } },'
    reads = '  { party = "host", action = "perf_read", name = "host" },'
    run = run_of(tmp_path, design, COUNTS, OPENS, PUT, reads, works, reads)
    before, after = (step.events[0].count for step in run.steps if step.action == "perf_read")
    assert before is not None
    assert after is not None
    assert after >= before + 1_000


@pytest.mark.parametrize("cycles", range(1, 4_000, 60))
def test_a_pseudo_nmi_anywhere_in_vcpu_put_leaves_the_guest_its_pmuserenr(tmp_path: Path, cycles: int) -> None:
    """The host's handler starts the PMU, and takes PMUSERENR_EL0 for the host's once the thread is switched out."""
    lets = '  { party = "vm0/0", action = "msr", register = "PMUSERENR_EL0", value = 0x1 },'
    samples = '  { party = "host", action = "perf_open", name = "host", events = "cycles", pcpu = 0, period = 4_000 },'
    runs = f'  {{ party = "vm0/0", action = "run", el = 0, cycles = {cycles} }},'
    reads = '  { party = "vm0/0", action = "mrs", register = "PMUSERENR_EL0" },'
    again = '  { party = "vm0/0", action = "switch" },'
    nmi = "\n[host]\npseudo_nmi = true\n"
    run = run_of(tmp_path, "partitioned", COUNTS, lets, samples, runs, PUT, again, reads, host=nmi)
    assert run.steps[-1].value == 1
