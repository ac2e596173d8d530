"""What the cost tables say, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from services import costs, micro_bench
from services.errors import UserError

GHZ_3 = 3_000_000_000
SHIPPED = costs.names()


def own(tmp_path: Path, text: str) -> str:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return str(path)


def test_the_default_table_holds_the_measured_trap_and_barrier_costs() -> None:
    figures = costs.table().figures
    measured = {"exit_full_null": 306, "exit_user": 1683, "virq_inject": 902, "sgi": 1926, "isb": Fraction("13.2")}
    assert {name: figures[name].value for name in measured} == measured
    assert not any(figures[name].assumed for name in measured)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_cost_has_a_number_and_a_source_in_every_table(name: str) -> None:
    table = costs.table(name)
    assert set(table.figures) == set(costs.NAMES)
    assert all(figure.source for figure in table.figures.values())
    assert table.perf_factor_source


@pytest.mark.parametrize("name", SHIPPED)
def test_every_table_gives_whole_cycles_for_every_cost_but_unbilled(name: str) -> None:
    cycles = costs.load(name).cycles(GHZ_3)
    assert set(cycles) == {cost.name.lower() for cost in costs.Cost} - {"unbilled"}
    assert all(value >= 0 for value in cycles.values())


def test_nanoseconds_follow_the_clock_and_cycles_do_not() -> None:
    slow, fast = (costs.load("seattle-a57-vhe").cycles(clock) for clock in (1_000_000_000, 2_000_000_000))
    assert (slow["isb"], fast["isb"]) == (13, 26)
    assert slow["exit_full_null"] == fast["exit_full_null"] == 752


def test_cycles_are_rounded_to_the_nearest() -> None:
    assert costs.load("altra-n1-vhe").cycles(GHZ_3)["isb"] == 40  # 39.6
    assert costs.load("altra-n1-vhe").cycles(2_500_000_000)["isb"] == 33


def test_what_costs_any_time_takes_a_cycle_on_a_slow_clock_too() -> None:
    slow = costs.load("altra-n1-vhe", {"msr": "0 ns"}).cycles(1_000_000)
    assert {name for name, cycles in slow.items() if not cycles} == {"msr"}


def test_what_a_measured_number_contains_is_not_charged_twice() -> None:
    cycles = costs.load("altra-n1-vhe").cycles(1_000_000_000)
    assert cycles["exit_full_null"] + cycles["irq_entry"] + cycles["virq_inject"] == 902
    assert sum(cycles[part] for part in ("msr", "exit_full_sysreg", "exit_full_null", "irq_entry", "sgi")) == 1926


def test_the_perf_factor_scales_perf_software_and_nothing_else() -> None:
    once, twice = (costs.load("altra-n1-vhe", perf_factor=factor).cycles(GHZ_3) for factor in (1, 2))
    scaled = {name for name in costs.NAMES if once[name] != twice[name]}
    assert scaled == {cost.name.lower() for cost in costs.PERF_SOFTWARE}
    assert all(twice[name] == 2 * once[name] for name in scaled)


def test_an_override_is_charged_as_it_stands() -> None:
    cycles = costs.load("altra-n1-vhe", {"virq_inject": "100 ns", "exit_fast": "777 cycles"}).cycles(GHZ_3)
    assert (cycles["virq_inject"], cycles["exit_fast"]) == (300, 777)


def test_an_exit_has_interrupts_masked_at_both_ends_and_what_it_takes_beyond_a_null_exit_is_in_between() -> None:
    table = costs.load("altra-n1-vhe")
    cycles, exits = table.cycles(1_000_000_000), table.exit_spec(1_000_000_000)
    assert exits.parts(cycles["exit_full_null"]) == (122, 62, 122)
    assert exits.parts(cycles["exit_full_sysreg"]) == (122, 156, 122)
    assert (exits.parts(200), exits.parts(100)) == ((122, 0, 78), (100, 0, 0))
    assert "40 and 40 % of a full exit" in table.assumed()["exit_irqs_off"]


@pytest.mark.parametrize(("shares", "problem"), [("out = 0.7, into = 0.4", "more than all"), ("out = 0.4", "into")])
def test_shares_of_an_exit_that_make_no_sense_are_refused(tmp_path: Path, shares: str, problem: str) -> None:
    text = f'base = "altra-n1-vhe"\nclock_hz = 1\nexit_irqs_off = {{ {shares}, source = "mine" }}\n'
    with pytest.raises(UserError, match=problem):
        costs.table(own(tmp_path, text))


@pytest.mark.parametrize("text", ["", "ns", "12", "12 h", "-1 ns", "nan ns", "inf ns", "twelve cycles"])
def test_an_override_that_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"cost isb: .* write it like '13.2 ns' or '40 cycles'"):
        costs.load("altra-n1-vhe", {"isb": text})


def test_an_override_of_more_than_a_second_is_refused() -> None:
    with pytest.raises(UserError, match=r"cost isb: '1e300 ns' is too much; a cost is at most"):
        costs.load("altra-n1-vhe", {"isb": "1e300 ns"})


def test_an_unknown_name_is_refused_with_the_near_matches() -> None:
    with pytest.raises(UserError, match="did you mean altra-n1-vhe"):
        costs.table("altra-n1")
    with pytest.raises(UserError, match="did you mean exit_fast"):
        costs.load("altra-n1-vhe", {"exit_fats": "1 ns"})


def test_what_a_table_takes_from_its_base_counts_as_assumed() -> None:
    assert costs.table("xgene-nvhe").figures["exit_user"].assumed
    assert not costs.table("seattle-a57-nvhe").figures["exit_user"].assumed


def test_an_assumed_cost_says_what_was_taken_and_a_measured_or_given_one_is_not_assumed() -> None:
    assumed = costs.load("altra-n1-vhe", {"exit_fast": "100 ns"}).assumed()
    assert assumed["exit_full_sysreg"] == "400 ns: between rananta's hvc (306) and mmio_read_vgic (451)"
    assert assumed["perf_call"] == "200 ns times perf_factor (fitted)"
    assert costs.load("altra-n1-vhe", perf_factor=1).assumed()["perf_call"] == "200 ns times perf_factor"
    assert not assumed.keys() & {"exit_full_null", "exit_user", "virq_inject", "sgi", "isb", "exit_fast"}


def test_a_users_own_table_is_read_by_its_path(tmp_path: Path) -> None:
    path = own(
        tmp_path,
        'base = "altra-n1-vhe"\nclock_hz = 2_000_000_000\nisb = { value = 0.5, unit = "ns", source = "my machine" }\n',
    )
    assert costs.load(path).cycles(2_000_000_000)["isb"] == 1
    assert costs.table(path).name == "own"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'isb = { value = 1, unit = "us", source = "x" }',
            r"own.toml:3: isb.unit = 'us' is not known; did you mean ns",
        ),
        (
            'isb = { value = -1, unit = "ns", source = "x" }',
            r"own.toml:3: isb.value = -1 is out of range; give a number from 0 to 1000000000",
        ),
        (
            'isb = { value = 1e12, unit = "cycles", source = "x" }',
            r"own.toml:3: isb.value = 1E\+12 is out of range; give a number from 0 to 1000000000",
        ),
        ('isb = { value = nan, unit = "ns", source = "x" }', r"own.toml:3: isb.value = NaN is out of range"),
        ('isb = { value = "1", unit = "ns", source = "x" }', r"own.toml:3: isb.value must be a number, not a string"),
        ('isb = { value = 1, unit = "ns" }', r"own.toml:3: 'source' is missing in \[isb\]; add for example source = "),
        ("isb = 13", r"own.toml:3: isb must be a table, not an integer"),
        (
            'isbb = { value = 1, unit = "ns", source = "x" }',
            r"own.toml:3: unknown key 'isbb' at the top level; did you mean isb",
        ),
        (
            'sgi = { value = 1, unit = "ns", source = "x", contains = ["sgi"] }',
            r"own.toml:3: sgi contains itself by way of sgi; take one out",
        ),
        ("isb = ", r"own.toml:3: not valid TOML: invalid value; correct"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_file_line_key_and_remedy(
    tmp_path: Path, line: str, message: str
) -> None:
    path = own(tmp_path, f'base = "altra-n1-vhe"\nclock_hz = 1\n{line}\n')
    with pytest.raises(UserError, match=message):
        costs.table(path)


def test_a_table_without_a_base_must_name_every_cost(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'mrs' is missing; add it, or base = "):
        costs.table(own(tmp_path, "clock_hz = 1\n"))


MICRO_BENCH = """\
Timer Frequency 25000000 Hz (Output in microseconds)

name                                    total ns                         avg ns
--------------------------------------------------------------------------------------------
hvc                                    20054016.0                            306.0
mmio_read_user                         110297088.0                          1683.0
mmio_read_vgic                         29556736.0                            451.0
eoi                                      917504.0                             14.0
ipi                                    126222336.0                          1926.0
lpi                                    142802944.0                          2179.0
timer_10ms                               230912.0                            902.0
"""


def test_a_table_is_derived_from_the_output_of_micro_bench(tmp_path: Path) -> None:
    path = own(tmp_path, micro_bench.to_toml(micro_bench.derive(MICRO_BENCH)))
    derived, shipped = costs.table(path), costs.table("altra-n1-vhe")
    for name in ("exit_full_null", "exit_user", "virq_inject", "sgi"):
        assert (derived.figures[name].value, derived.figures[name].contains) == (
            shipped.figures[name].value,
            shipped.figures[name].contains,
        )
    assert derived.figures["exit_full_sysreg"].value == Decimal("378.5")
    assert derived.figures["exit_full_sysreg"].assumed
    assert derived.figures["mrs"].assumed


def test_the_row_hyp_call_is_the_newer_name_of_hvc() -> None:
    assert micro_bench.derive(MICRO_BENCH.replace("hvc", "hyp_call")) == micro_bench.derive(MICRO_BENCH)


@pytest.mark.parametrize("text", ["", "eoi 1 2", "hvc 1 x"])
def test_output_that_is_not_micro_benchs_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="micro-bench"):
        micro_bench.derive(text)
