"""A scenario becomes an experiment: what each key turns into."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pmulab import scenario
from services import embedded, typed_json, workload
from services.errors import UserError
from services.experiment import ExitSpec, Experiment, PhaseSpec
from services.kvm.designs import designs

GUEST = '[[guest]]\n[[guest.task]]\nworkload = "sha256"\n'


def only(document: str, tmp_path: Path) -> Experiment:
    path = tmp_path / "one.toml"
    path.write_text(document)
    return scenario.load(path, designs=["emulated"]).experiments[0]


@pytest.mark.parametrize("name", sorted(scenario.shipped()))
def test_every_shipped_scenario_resolves_and_says_who_asks(name: str) -> None:
    loaded = scenario.load(name)
    assert scenario.shipped()[name].startswith("Who asks: ")
    for experiment in loaded.experiments:
        assert typed_json.loads(Experiment, typed_json.dumps(experiment)) == experiment
        assert {experiment.scenario} == {name}


def test_gzip_record_is_the_published_experiment() -> None:
    loaded = scenario.load("gzip-record")
    emulated, partitioned = loaded.experiments
    assert (emulated.design.name, partitioned.design.name) == ("emulated-6.15", "partitioned-v1")
    (cpu,), (guest,) = emulated.cpus, emulated.guests
    assert (cpu.counters, guest.counters, guest.hz, emulated.host.hz) == (10, 6, 1000, 1000)
    (vcpu,) = guest.vcpus
    (task,) = vcpu.tasks
    assert task.session is not None
    assert [event.frequency for event in task.session.events] == [1000] * 15
    assert len({event.name for event in task.session.events}) == 15
    assert "cycles" in {event.name for event in task.session.events}
    user, kernel = task.phases
    assert (user.el, kernel.el, task.repeat) == (0, 1, 16)
    ipc_scaled = user.cycles * dict(emulated.profiles[user.profile])[0x08] * task.repeat / 2**32
    assert ipc_scaled == pytest.approx(688217229 * 16, rel=1e-6)
    published = loaded.published
    assert {d: of.elapsed_seconds for d, of in published.items()} == {"emulated-6.15": 4.143, "partitioned-v1": 3.139}
    assert {d: of.system_seconds for d, of in published.items()} == {"emulated-6.15": 0.159, "partitioned-v1": 0.110}
    elapsed, both = ("elapsed_seconds",), ("elapsed_seconds", "system_seconds")
    assert {d: of.fitted for d, of in published.items()} == {"emulated-6.15": elapsed, "partitioned-v1": both}
    assert loaded.assumed
    assert loaded.fitted


def test_times_are_cycles_of_the_clock(tmp_path: Path) -> None:
    experiment = only(
        "[machine]\nclock_ghz = 2.5\n[host]\nmux_interval_ms = 1\n" + GUEST + "seconds = 0.1\nsleep_ms = 2.5\n",
        tmp_path,
    )
    (task,) = experiment.guests[0].vcpus[0].tasks
    assert experiment.frequency_hz == 2_500_000_000
    assert experiment.host.mux_interval == 2_500_000
    assert sum(phase.cycles for phase in task.phases) == pytest.approx(250_000_000, abs=2)
    assert task.sleep == 6_250_000


@pytest.mark.parametrize("sleep", ["50000ns", "50 us", "50µs", "50 μs", "0.05 ms", "0.05", "5e-5s"])
def test_a_length_of_time_may_have_its_own_unit(sleep: str, tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text('[machine.cost]\nexit_user = "2 us"\n[host]\nmux_interval_ms = "8000 us"\n' + GUEST)
    settings = [f"guest.task.sleep_ms={sleep}", "guest.task.seconds=20ms", "machine.cost.isb=1.5us"]
    experiment = scenario.load(path, overrides=settings).experiments[0]
    (task,) = experiment.guests[0].vcpus[0].tasks
    assert task.sleep == 150_000
    assert experiment.host.mux_interval == 24_000_000
    assert sum(phase.cycles for phase in task.phases) == pytest.approx(60_000_000, abs=2)
    assert (experiment.costs["exit_user"], experiment.costs["isb"]) == (6000, 4500)


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        (["guest.hz=250"], ("guest.hz=250",)),
        (["guest.hz=1000"], ()),
        (["guest.hz=250", "guest.vm0.hz=1000"], ()),
        (["guest.hz=100", "guest.hz=250"], ("guest.hz=250",)),
        ({"guest.0.task.0.repeat": 1, "guest.vm0.hz": 1000}, ("guest.0.task.0.repeat=1",)),
        (["machine.perf_factor=2", "guest.task.ipc=1"], ("machine.perf_factor=2", "guest.task.ipc=1")),
        (["seed=5", 'kvm.designs=["emulated-6.15"]', "published.source=me", "assumed.this=that"], ()),
    ],
)
def test_a_setting_that_is_not_the_published_one_is_known(given: Any, changed: tuple[str, ...]) -> None:
    for published in scenario.load("gzip-record", overrides=given).published.values():
        assert published.changed == changed


def test_a_path_is_relative_to_who_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario, or a `--set`, which may be of a shipped one."""
    there = tmp_path / "there"
    there.mkdir()
    for directory, msr in ((there, 70), (tmp_path, 40)):
        (directory / "mine.toml").write_text(
            f'base = "altra-n1-vhe"\nclock_hz = 3_000_000_000\nmsr = {{ value = {msr}, unit = "ns", source = "me" }}\n'
        )
    (there / "one.toml").write_text('[machine]\ncosts = "mine.toml"\n' + GUEST)
    monkeypatch.chdir(tmp_path)
    (own,) = scenario.load("there/one.toml").experiments
    (overridden,) = scenario.load("there/one.toml", overrides=["machine.costs=mine.toml"]).experiments
    shipped = scenario.load("quick", overrides={"machine.costs": "there/mine.toml"}).experiments[0]
    assert [one.costs["msr"] for one in (own, overridden, shipped)] == [210, 120, 210]


def test_published_times_may_have_their_own_unit(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(GUEST + '[published]\nsource = "x"\nelapsed_seconds = { emulated = "250 ms" }\n')
    assert scenario.load(path).published["emulated"].elapsed_seconds == 0.25


def test_a_task_runs_its_workload_scaled(tmp_path: Path) -> None:
    experiment = only(GUEST + "scale = 2\nipc = 2\n", tmp_path)
    loaded = workload.load("sha256", ipc=Fraction(2)).scaled(2)
    (task,) = experiment.guests[0].vcpus[0].tasks
    assert [(phase.el, phase.cycles) for phase in task.phases] == [(p.el, p.cycles) for p in loaded.phases]
    assert all(isinstance(phase, PhaseSpec) for phase in task.phases)


def test_equal_rates_are_one_profile(tmp_path: Path) -> None:
    experiment = only(GUEST + '[[guest]]\n[[guest.task]]\nworkload = "sha256"\nscale = 3\n', tmp_path)
    first, second = (guest.vcpus[0].tasks[0].phases[0].profile for guest in experiment.guests)
    assert first == second


def test_only_events_that_a_session_names_are_tallied(tmp_path: Path) -> None:
    experiment = only(GUEST + 'perf = { verb = "stat", events = "L1-dcache-loads,r23" }\n', tmp_path)
    assert experiment.events == (0x04, 0x08, 0x11, 0x23)
    assert {event for rates in experiment.profiles for event, _ in rates} <= set(experiment.events)
    path = tmp_path / "one.toml"
    everything = scenario.load(path, designs=["emulated"], every_event=True).experiments[0]
    assert set(range(0x40)) <= set(everything.events)


async def test_what_else_is_tallied_changes_nothing_of_a_run(tmp_path: Path) -> None:
    """On a core that lacks no event, too, whose PMCEID<n>_EL0 the kernels read: `pmulab up` tallies all."""
    (tmp_path / "one.toml").write_text(GUEST + 'seconds = 0.001\nperf = { verb = "stat", events = "cycles" }\n')
    plain, every = (
        scenario.load(tmp_path / "one.toml", designs=["partitioned"], every_event=every).experiments[0]
        for every in (False, True)
    )
    assert (plain.cpus[0].model, len(plain.events) < len(every.events)) == ("maximal", True)
    assert (await embedded.run(plain))["digest"] == (await embedded.run(every))["digest"]


def test_costs_come_from_table_factor_and_overrides(tmp_path: Path) -> None:
    document = (
        '[machine]\nclock_ghz = 1\nperf_factor = 0.5\n[machine.cost]\nisb = "20 ns"\nexit_fast = "77 cycles"\n' + GUEST
    )
    costs = only(document, tmp_path).costs
    plain = only("[machine]\nclock_ghz = 1\nperf_factor = 1\n" + GUEST, tmp_path).costs
    assert (costs["isb"], costs["exit_fast"]) == (20, 77)
    assert costs["perf_release_create"] == plain["perf_release_create"] / 2
    assert costs["exit_full_sysreg"] == plain["exit_full_sysreg"]


def test_a_scenario_says_how_much_of_an_exit_has_interrupts_masked(tmp_path: Path) -> None:
    of = "[machine]\nclock_ghz = 1\nexit_irqs_off = {{ out = 0.2, into = {} }}\n" + GUEST
    assert only(of.format(0.1), tmp_path).exits == ExitSpec(61, 31)
    with pytest.raises(UserError, match="more than all of it"):
        only(of.format(0.9), tmp_path)
    with pytest.raises(UserError, match="into"):
        only("[machine]\nexit_irqs_off = { out = 0.2 }\n" + GUEST, tmp_path)


def test_counters_may_differ_between_pcpus(tmp_path: Path) -> None:
    experiment = only("[machine]\npcpus = 2\ncounters = [6, 10]\n" + GUEST, tmp_path)
    assert [cpu.counters for cpu in experiment.cpus] == [6, 10]
    assert experiment.guests[0].counters == 6
    assert experiment.guests[0].vcpus[0].pcpu == -1


def test_a_table_that_names_no_cpu_concerns_all(tmp_path: Path) -> None:
    host = '[machine]\npcpus = 2\n[[host.perf]]\nverb = "stat"\nevents = "cycles"\n'
    one = '[[host.task]]\nworkload = "sha256"\npcpu = 1\n'
    experiment = only(host + one + GUEST, tmp_path)
    assert [len(cpu.sessions) for cpu in experiment.host.cpus] == [1, 1]
    assert [len(cpu.tasks) for cpu in experiment.host.cpus] == [0, 1]
    assert all(session.cpu_wide for cpu in experiment.host.cpus for session in cpu.sessions)


@pytest.mark.parametrize("key", ["guest.hz", "guest.0.hz", "guest.vm0.hz", "guest.vm1.hz"])
def test_an_override_reaches_one_guest_or_all(key: str) -> None:
    experiment = scenario.load("two-vms", overrides=[f"{key}=100"]).experiments[0]
    hz = {"guest.hz": [100, 100], "guest.vm1.hz": [250, 100]}.get(key, [100, 250])
    assert [guest.hz for guest in experiment.guests] == hz


def test_a_list_in_an_override_is_of_toml_or_of_text() -> None:
    settings = [
        "machine.pcpus=2",
        "machine.core=[neoverse-n1, cortex-a76]",
        "machine.pmi_delay=[1us,2us]",
        "kvm.designs=[emulated,'partitioned,reservation=static']",
        "guest.task.perf.events=[cycles,{instructions,branches}:u]",
        "host.perf_tool=6.12",
    ]
    loaded = scenario.load("quick", overrides=settings)
    experiment = loaded.experiments[0]
    assert [(cpu.model, cpu.pmi_delay) for cpu in experiment.cpus] == [("neoverse-n1", 3000), ("cortex-a76", 6000)]
    assert [one.design.name for one in loaded.experiments] == ["emulated", "partitioned"]
    session = experiment.guests[0].vcpus[0].tasks[0].session
    assert session is not None
    assert [event.leader for event in session.events] == [0, 1, 1]
    assert experiment.host.perf_tool == "6.12"


@pytest.mark.parametrize("text", ["[1us,,2us]", "[1us,(2us]", "['1us,2us]"])
def test_what_is_no_list_is_text(text: str) -> None:
    with pytest.raises(UserError, match="is not a length of time"):
        scenario.load("quick", overrides=[f"machine.pmi_delay={text}"])


def test_overrides_read_as_toml_or_as_text() -> None:
    loaded = scenario.load("quick", overrides=["machine.core=neoverse-n2", "guest.task.ipc=2", "seed = 7"], seed=None)
    assert (loaded.experiments[0].cpus[0].model, loaded.seed) == ("neoverse-n2", 7)
    assert scenario.load("quick", overrides=["seed=7"], seed=8).seed == 8


def test_pcpus_may_be_different_cores(tmp_path: Path) -> None:
    document = '[machine]\ncore = ["neoverse-n1", "ten-counters"]\nhpmn0 = [false, true]\n'
    little, big = only(document + GUEST, tmp_path).cpus
    assert (little.model, little.counters, little.fgt, little.hpmn0) == ("neoverse-n1", 6, 0, False)
    assert (big.model, big.counters, big.fgt, big.hpmn0) == ("ten-counters", 10, 1, True)


@pytest.mark.parametrize(
    ("pin", "counters"), [("", 6), ("pin = [0]\n", 6), ("pin = [1]\n", 10), ("pin = [1, -1]\n", 6)]
)
def test_a_guest_has_the_counters_of_the_pcpus_that_it_may_run_on(pin: str, counters: int, tmp_path: Path) -> None:
    document = "[machine]\ncounters = [6, 10]\n[[guest]]\n" + pin + '[[guest.task]]\nworkload = "sha256"\n'
    assert only(document, tmp_path).guests[0].counters == counters


def test_vcpus_may_be_more_than_pcpus_each_pinned_or_floating(tmp_path: Path) -> None:
    document = (
        '[machine]\npcpus = 2\n[[guest]]\npin = [0, 0, 1, -1]\n[[guest.task]]\nworkload = "sha256"\nvcpu = [1, 3]\n'
    )
    vcpus = only(document, tmp_path).guests[0].vcpus
    assert [vcpu.pcpu for vcpu in vcpus] == [0, 0, 1, -1]
    assert [len(vcpu.tasks) for vcpu in vcpus] == [0, 1, 0, 1]


def test_a_program_may_have_several_tasks(tmp_path: Path) -> None:
    assert only(GUEST + "threads = 3\n", tmp_path).guests[0].vcpus[0].tasks[0].threads == 3


def test_the_event_filter_is_a_set_of_event_numbers(tmp_path: Path) -> None:
    document = '[[guest]]\ndenied = ["branch-misses,r1b", "inst_retired", "r8"]\n[[guest.task]]\nworkload = "sha256"\n'
    assert only(document, tmp_path).guests[0].denied == (0x08, 0x10, 0x1B)
    assert only(GUEST, tmp_path).guests[0].denied == ()


def test_a_guest_may_find_no_pmu(tmp_path: Path) -> None:
    document = '[[guest]]\npmuver = 0\n[[guest.task]]\nworkload = "sha256"\n'
    guest = only(document, tmp_path).guests[0]
    assert (guest.pmuver, guest.counters) == (0, 31)


@pytest.mark.parametrize("name", list(designs()))
def test_every_design_and_preset_can_be_named(name: str) -> None:
    (experiment,) = scenario.load("gzip-record", designs=[name], overrides=["guest.counters=10"]).experiments
    assert experiment.design.name == name


def test_the_host_may_watch_the_threads_of_vcpus(tmp_path: Path) -> None:
    guest = '[[guest]]\npin = [0, 0]\n[[guest.task]]\nworkload = "sha256"\n'
    watch = '[[host.perf]]\nguest = "vm0"\nvcpu = 1\nverb = "stat"\nevents = "r23"\n'
    experiment = only(watch + guest, tmp_path)
    assert [len(vcpu.host_sessions) for vcpu in experiment.guests[0].vcpus] == [0, 1]
    assert experiment.host.cpus[0].sessions == ()
    assert 0x23 in experiment.events


def test_what_the_hosts_kernel_does_for_a_program_it_does_at_el2(tmp_path: Path) -> None:
    experiment = only('[[host.task]]\nworkload = "sha256"\n', tmp_path)
    assert [phase.el for phase in experiment.host.cpus[0].tasks[0].phases] == [0, 2]


def test_a_program_is_in_the_kernel_for_ten_microseconds_at_a_time_at_most(tmp_path: Path) -> None:
    own = only(GUEST, tmp_path).guests[0].vcpus[0].tasks[0]
    shared = only(GUEST + "kernel_share = 0.2\n", tmp_path).guests[0].vcpus[0].tasks[0]
    for task in (own, shared):
        parts = [[task.part(phase, turn) for turn in range(task.turns)] for phase in (0, 1)]
        assert [sum(part) for part in parts] == [phase.cycles for phase in task.phases]
        assert 0.99 * 30_000 < max(parts[1]) <= 30_000
        assert len(set(parts[0])) > len(parts[0]) / 2, "it gets there at irregular intervals"
    assert shared.phases[1].cycles / sum(phase.cycles for phase in shared.phases) == pytest.approx(0.2)
    assert shared.phases[0] == own.phases[0]


def test_each_kernel_accounts_cpu_time_in_its_own_way(tmp_path: Path) -> None:
    experiment = only('[host]\naccounting = "vtime"\n' + GUEST + '[[guest]]\naccounting = "tick+irq"\n', tmp_path)
    assert experiment.host.accounting == "vtime"
    assert [guest.accounting for guest in experiment.guests] == ["tick", "tick+irq"]


def test_what_is_known_is_of_one_design_with_its_axes(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(
        '[known]\npartitioned-v8 = "I1"\n"partitioned,swap=lazy" = ["I4", "I2"]\n'
        '[[guest]]\n[[guest.task]]\nworkload = "sha256"\n'
    )
    designs = ["partitioned-v8", "partitioned", "partitioned,swap=eager", "partitioned-v7"]
    loaded = scenario.load(path, designs=designs)
    assert [experiment.known for experiment in loaded.experiments] == [("I1",), ("I4", "I2"), (), ()]
    added = scenario.load(path, designs=designs[-1:], overrides=['known.partitioned-v7=["I9"]'])
    assert [experiment.known for experiment in added.experiments] == [("I9",)]
