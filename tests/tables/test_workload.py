"""What the workloads are, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import orjson
import pytest

from services import events, workload
from services.errors import UserError
from services.registers import CPU_CYCLES, INST_RETIRED

SHIPPED = workload.names()
PROGRAMS = ("gzip-random", "gzip-text", "sort-text", "sha256", "sqlite")


def counts(program: str) -> dict[str, int]:
    run: dict[str, int] = orjson.loads(workload.PROGRAMS.read_bytes())["runs"][program]["counts"]
    return run


def rate_of(name: str, event: str) -> int:
    return dict(workload.rates(name))[events.number(event)]


def happened(name: str, event: str) -> int:
    """Occurrences in the first phase of a workload, as the core counts them."""
    phase = workload.load(name).phases[0]
    return rate_of(name, event) * phase.cycles >> 32


def test_the_measured_runs_come_with_their_source() -> None:
    data = orjson.loads(workload.PROGRAMS.read_bytes())
    assert "cachegrind" in data["source"]
    assert tuple(data["runs"]) == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("event", "measured"),
    [
        ("INST_RETIRED", ["instructions"]),
        ("L1I_CACHE_REFILL", ["l1i_refill"]),
        ("L1D_CACHE", ["loads", "stores"]),
        ("MEM_ACCESS", ["loads", "stores"]),
        ("L1D_CACHE_REFILL", ["l1d_read_refill", "l1d_write_refill"]),
        ("L2D_CACHE_REFILL", ["l1i_refill_from_memory", "l2_read_refill", "l2_write_refill"]),
        ("BR_MIS_PRED", ["conditional_mispredicts", "indirect_mispredicts"]),
    ],
)
def test_what_was_measured_happens_as_often_as_it_was_measured(program: str, event: str, measured: list[str]) -> None:
    expected = sum(counts(program)[key] for key in measured)
    assert abs(happened(program, event) - expected) <= 2  # one rounding into Q32.32


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_was_not_measured_is_named_as_assumed(program: str) -> None:
    assumed = workload.load(program).assumed
    assert {"ipc", "kernel_instructions", "BR_RETIRED", "STALL_BACKEND", "L1I_CACHE"} <= assumed.keys()
    assert not {"INST_RETIRED", "L1D_CACHE", "L1D_CACHE_REFILL", "BR_MIS_PRED"} & assumed.keys()
    assert all(reason.startswith("assumed") for reason in assumed.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_workload_has_rates_for_all_of_perfs_generic_events(name: str) -> None:
    generic = {*events.hardware().values(), *events.cache_events().values()} - {CPU_CYCLES}
    for phase in workload.load(name).phases:
        assert generic <= dict(phase.rates).keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_no_workload_has_more_misses_than_accesses_or_more_stalls_than_cycles(name: str) -> None:
    for part, whole in [
        ("L1D_CACHE_REFILL", "L1D_CACHE"),
        ("L1I_CACHE_REFILL", "L1I_CACHE"),
        ("L2D_CACHE_REFILL", "L2D_CACHE"),
        ("LL_CACHE_MISS_RD", "LL_CACHE_RD"),
        ("BR_MIS_PRED", "BR_RETIRED"),
        ("BR_RETIRED", "INST_RETIRED"),
        ("L1D_TLB_REFILL", "L1D_TLB"),
    ]:
        assert rate_of(name, part) <= rate_of(name, whole), (part, whole)
    assert rate_of(name, "STALL") <= workload.ONE
    assert rate_of(name, "STALL_FRONTEND") <= rate_of(name, "STALL")


def test_sixteen_gzip_runs_of_4_mib_are_the_published_64_mib() -> None:
    user, _ = workload.load("gzip-random").scaled(16).phases
    assert user.instructions == 16 * 688_217_229


def test_scaling_changes_the_length_and_not_the_rates() -> None:
    whole, half = workload.load("sqlite").phases[0], workload.load("sqlite").scaled(Fraction(1, 2)).phases[0]
    assert half.rates == whole.rates
    assert half.instructions == whole.instructions // 2


def test_instructions_per_cycle_change_the_length_and_the_rates_but_not_the_counts() -> None:
    slow, fast = (workload.load("sha256", ipc=Fraction(ipc)).phases[0] for ipc in (1, 3))
    number = events.number("L1D_CACHE")
    assert slow.cycles == 221_221_576
    assert abs(slow.cycles - 3 * fast.cycles) <= 3
    for phase in (slow, fast):
        assert abs((dict(phase.rates)[number] * phase.cycles >> 32) - (13_717_932 + 5_150_802)) <= 1


def test_instructions_per_cycle_given_by_the_user_are_not_assumed() -> None:
    assert "ipc" not in workload.load("sha256", ipc=Fraction(2)).assumed


def test_rates_are_fixed_point_to_the_nearest() -> None:
    assert workload.rate(1, 1) == workload.ONE
    assert workload.rate(1, 3) == (workload.ONE + 1) // 3
    assert workload.rate(Fraction(2, 3), 1) == (2 * workload.ONE + 1) // 3


@pytest.mark.parametrize(("instructions", "ipc", "expected"), [(10, "1", 10), (10, "4", 3), (11, "4", 3), (1, "8", 1)])
def test_cycles_are_instructions_by_ipc_to_the_nearest_and_at_least_one(
    instructions: int, ipc: str, expected: int
) -> None:
    assert workload.cycles(instructions, Fraction(ipc)) == expected


def test_the_kernels_have_profiles_of_their_own() -> None:
    assert [workload.load(name).phases[0].el for name in ("guest-kernel", "host-kernel")] == [1, 2]


def test_declared_rates_are_the_published_ones() -> None:
    per_kilo_instruction = Fraction(rate_of("specint-n1", "BR_MIS_PRED") * 1000, rate_of("specint-n1", "INST_RETIRED"))
    assert float(per_kilo_instruction) == pytest.approx(5.21, rel=1e-6)


def test_an_unknown_workload_is_refused_with_the_near_matches() -> None:
    with pytest.raises(UserError, match="no workload 'gzip'; did you mean gzip-text or gzip-random"):
        workload.load("gzip")


OWN = """\
title = "mine"
instructions = 1000
ipc = { value = 2, source = "measured" }
[rates]
L1D_CACHE = { per_kilo_instruction = 500, source = "measured" }
"""


def test_a_users_own_workload_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    own = workload.load(str(path))
    assert own.phases[0].cycles == 500
    assert dict(own.phases[0].rates)[events.number("L1D_CACHE")] == workload.ONE
    assert not {"L1D_CACHE", "ipc"} & own.assumed.keys()
    assert "STALL" in own.assumed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("L1D_CACHE", "L1D_CASH", r"mine.toml:5: unknown key 'L1D_CASH' in \[rates\]; did you mean L1D_CACHE"),
        ("value = 2", "value = 0", r"mine.toml:3: 0 instructions per cycle; write a positive number"),
        ("1000", "0", r"mine.toml:2: instructions = 0 is out of range"),
        (
            "instructions",
            "instruction",
            r"mine.toml:2: unknown key 'instruction' at the top level; did you mean instructions",
        ),
        ("500,", "-1,", r"mine.toml:5: rates.L1D_CACHE.per_kilo_instruction = -1 is out of range"),
        (
            "instructions = 1000",
            'program = "gzip"',
            r"mine.toml:2: no measured program 'gzip'; did you mean gzip-",
        ),
        (
            "per_kilo_instruction = 500",
            'sum = ["loads"]',
            r"mine.toml:5: 'loads' is not a measured count here; name the program",
        ),
        (
            "L1D_CACHE = { per_kilo_instruction = 500",
            "CPU_CYCLES = { per_kilo_instruction = 750",
            r"mine.toml:5: CPU_CYCLES happens once per cycle, not 1.5 times; leave it out",
        ),
        ("L1D_CACHE", "SW_INCR", r"mine.toml:5: SW_INCR has no rate: it happens with writes of PMSWINC_EL0"),
        ("500,", "1e9,", r"mine.toml:5: L1D_CACHE happens 2e\+06 times per cycle; give fewer than 65,536"),
    ],
)
def test_a_workload_that_cannot_be_used_is_refused_with_file_line_key_and_remedy(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        workload.load(str(path))


def test_counts_of_a_real_run_become_rates_and_the_rest_is_assumed() -> None:
    cycles, instructions, loads = CPU_CYCLES, INST_RETIRED, events.number("LD_RETIRED")
    own = workload.from_counts(
        "app", "an app", {0: {cycles: Fraction(2000), instructions: Fraction(1000), loads: Fraction(250)}}
    )
    (phase,) = own.phases
    assert (phase.cycles, phase.instructions) == (2000, 1000)
    assert dict(phase.rates)[loads] == workload.rate(1, 8)
    assert cycles not in dict(phase.rates)
    assert "LD_RETIRED" not in own.assumed
    assert "ST_RETIRED" in own.assumed


def test_counts_without_cycles_or_instructions_are_refused() -> None:
    with pytest.raises(UserError, match="no count of CPU_CYCLES at EL0"):
        workload.from_counts("app", "", {0: {INST_RETIRED: Fraction(1)}})


def test_a_share_in_the_kernel_replaces_the_workload_s_own() -> None:
    of = workload.load("specint-n1").in_kernel(Fraction(1, 50))
    own, kernel = of.phases
    assert (own.el, kernel.el) == (0, 1)
    assert kernel.cycles / (own.cycles + kernel.cycles) == pytest.approx(0.02)
    assert kernel.rates == workload.load("guest-kernel").phases[0].rates
    assert [phase.el for phase in workload.load("gzip-random").in_kernel(Fraction(0)).phases] == [0]
    assert "kernel_instructions" not in workload.load("gzip-random").in_kernel(Fraction(1, 50)).assumed
