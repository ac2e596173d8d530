"""What cannot be is refused: by its number and line where the file says so, else in the run, with those."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab import scenario
from services.errors import UserError
from services.experiment import EventSpec, SessionSpec
from services.kvm.errors import SimulationError
from services.kvm.requests import Request
from services.kvm.simulation import Simulation
from services.registers import CPU_CYCLES
from tests.script.scenes import FLOATING, ONE_VM, TWO_VMS, experiment, inline, play, toml

# world, steps, number of the step, part of the problem, part of the remedy
REFUSED = [
    (ONE_VM, "vm0/0 swicth", 1, "'swicth' is not known", "did you mean switch"),
    (ONE_VM, "vm1/0 switch", 1, "there is no 'vm1' here", "did you mean vm0"),
    (ONE_VM, "vm0/1 switch", 1, "there is no vm0/1", "vm0 has 1, counted from 0"),
    (ONE_VM, "vm0/x switch", 1, "names no CPU", '"vm0/0"'),
    (ONE_VM, "vm0 switch", 1, "'vm0' is a VM, which has no action 'switch'", '"vm0/0"'),
    (ONE_VM, "host/0 mrs register=PMCR_EL0", 1, "is a pCPU, which has no action 'mrs'", "a vCPU"),
    (ONE_VM, "host/3 tick", 1, "there is no host/3", "host has 1"),
    (ONE_VM, "vm0/0 mrs", 1, "needs 'register'", "may have el"),
    (ONE_VM, "vm0/0 isb value=1", 1, "has no 'value'", "party and action alone"),
    (ONE_VM, "vm0/0 mrs register=PMCNTENSTE_EL0", 1, "no register PMCNTENSTE_EL0", "PMCNTENSET_EL0"),
    (ONE_VM, "vm0/0 mrs register=PMEVCNTR31_EL0", 1, "no register PMEVCNTR31_EL0", "PMEVCNTR30_EL0"),
    (ONE_VM, f"vm0/0 msr register=PMCR_EL0 value={1 << 64}", 1, "is out of range", "integer from 0"),
    (ONE_VM, "vm0/0 run cycles=0", 1, "cycles = 0 is out of range", "from 1"),
    (ONE_VM, "vm0/0 run cycles=1 el=2", 1, "a guest has EL0 and EL1", "0 or 1"),
    (ONE_VM, "vm0/0 run cycles=1 el=3", 1, "el = 3 is out of range", "from 0 to 1"),
    (ONE_VM, "host/0 run cycles=1 el=3", 1, "el = 3 is out of range", "from 0 to 2"),
    (ONE_VM, "vm0/0 run cycles=1 workload=gzip", 1, "no workload 'gzip'", "gzip-random"),
    (ONE_VM, "vm0/0 run cycles=1 rates={INST=1}", 1, "no event 'INST'", "inst_retired"),
    *(
        (ONE_VM, f"{party} run cycles=1 rates={{{rates}}}", 1, problem, remedy)
        for party in ("vm0/0", "host/0")
        for rates, problem, remedy in (
            ("CPU_CYCLES=3", "CPU_CYCLES happens once per cycle, not 3 times", "leave it out"),
            ("SW_INCR=1", "SW_INCR has no rate: it happens with writes of PMSWINC_EL0", "leave it out"),
            ("CHAIN=0", "CHAIN has no rate", "leave it out"),
            ("INST_RETIRED=65536", "out of range", "65535"),
            ("BR_RETIRED=1,br_retired=2", "BR_RETIRED is given twice", "leave one of them out"),
        )
    ),
    (ONE_VM, "vm0/0 migrate pcpu=0", 1, "vm0/0 is pinned to pCPU 0", "pin = -1"),
    (FLOATING, "vm0/0 migrate pcpu=2", 1, "there is no pCPU 2", "there are 2"),
    (FLOATING, "vm0/0 migrate pcpu=-1", 1, "there is no pCPU -1", "there are 2"),
    (FLOATING, "host perf_open name=a events=cycles pcpu=2", 1, "there is no pCPU 2", "there are 2"),
    (FLOATING, "host perf_open name=a events=cycles thread=vm0/1", 1, "there is no vm0/1", "vm0 has 1"),
    (FLOATING, "host perf_open name=a events=cycles thread=host/0", 1, "'host/0' is a pCPU, and no thread", '"vm0/0"'),
    (FLOATING, "vm0/0 switch\nvm0/0 preempt at=-1\nvm0/0 isb", 2, "at = -1 is out of range", "from 0"),
    (FLOATING, "host/0 offline", 1, "pCPU 0 stays online", "another one"),
    (ONE_VM, "vm0/0 switch\nhost/0 tick at=1", 2, "no step follows", "leave at out"),
    (ONE_VM, "vm0/0 isb at=1", 1, "has no 'at'", "party and action alone"),
    (ONE_VM, "host perf_read name=a", 1, "no session 'a' is open", "perf_open"),
    (
        ONE_VM,
        "host perf_open name=a events=cycles\nhost perf_close name=a\nhost perf_read name=a",
        3,
        "no session",
        "open",
    ),
    (ONE_VM, "host perf_open name=a events=cycles\nhost perf_open name=a events=cycles", 2, "'a' is open", "own"),
    (ONE_VM, "host perf_open name=a events=cicles", 1, "cicles", "cycles"),
    (ONE_VM, "host perf_open name=a events=cycles pcpu=0 thread=vm0/0", 1, "both thread and pcpu", "give one"),
    (TWO_VMS, "vm1 kill\nvm1/0 switch", 2, "vm1 is no more: step 1 has killed it", "before that"),
    (TWO_VMS, "vm1 kill\nvm1 kill", 2, "vm1 is no more", "before that"),
    (TWO_VMS, "vm1 kill\nhost perf_open name=a events=cycles thread=vm1/0", 2, "vm1 is no more", "before that"),
    (TWO_VMS, "vm1/0 switch\nvm1 create", 1, "vm1 has yet to be created, by step 2", "put that step before"),
    (ONE_VM, "vm0/0 isb", 1, "vm0/0 does not run yet", "switch to it before"),
    (TWO_VMS, "vm0/0 switch\nvm1/0 preempt", 2, "vm1/0 does not run yet", "switch to it before"),
    (ONE_VM, "vm0/0 switch\nvm0/0 wake", 2, "vm0/0 has not blocked", "wfi"),
    (FLOATING, "host/1 offline\nvm0/0 migrate pcpu=1", 2, "pCPU 1 is offline: step 1", "bring it online"),
    (FLOATING, "host/1 offline\nhost/1 tick", 2, "pCPU 1 is offline: step 1", "bring it online"),
    (FLOATING, "host/1 offline\nhost/1 offline", 2, "pCPU 1 is offline: step 1", "bring it online"),
    (FLOATING, "host/1 online", 1, "pCPU 1 is online", "offline step before"),
    (FLOATING, "host/1 offline\nhost/1 online\nhost/1 online", 3, "pCPU 1 is online", "offline step before"),
    (FLOATING, "host sysfs reserved_host_counters=[1,2,3]", 1, "3 values for 2 pCPUs", "one for each"),
    (ONE_VM, "host sysfs reserved_host_counters=7", 1, "pCPU 0 has 6 event counters", "from 0 to 6"),
    (ONE_VM, "host/0 nmi", 1, "the host has no pseudo-NMIs", "host.pseudo_nmi = true"),
    (TWO_VMS, "vm1 kill\nvm1 create", 2, "vm1 is no more: step 1 has killed it", "another VM"),
    *(
        (
            FLOATING,
            f"host perf_open name=a events=cycles pcpu=1\nhost/1 offline\nhost perf_{call} name=a",
            3,
            "pCPU 1 is offline: step 2",
            "bring it online",
        )
        for call in ("read", "enable", "disable", "close")
    ),
    (TWO_VMS, "vm1 create\nvm1 create", 2, "created by step 1 already", "leave one"),
]


def refusal(path: Path, document: str, *overrides: str) -> UserError:
    path.write_text(document)
    with pytest.raises(UserError) as caught:
        scenario.load(path, designs=["partitioned"], overrides=overrides)
    return caught.value


@pytest.mark.parametrize(("world", "steps", "number", "problem", "remedy"), REFUSED)
def test_it_is_refused_with_its_number_and_its_line(
    tmp_path: Path, world: str, steps: str, number: int, problem: str, remedy: str
) -> None:
    """However the steps are written."""
    path = tmp_path / "scene.toml"
    lines = inline(steps)
    tables = f"{world}\n{toml(steps)}"
    table = [line for line, words in enumerate(tables.splitlines(), 1) if words == "[[step]]"][number - 1]
    each = "".join(f"\n  {line}," for line in lines)
    for document, places in (
        (tables, range(table, table + 8)),
        (f"step = [{each}\n]\n{world}", range(number + 1, number + 2)),
        (f"step = [{', '.join(lines)}]\n{world}", range(1, 2)),
    ):
        found = refusal(path, document)
        assert found.where in {f"{path}:{line}" for line in places}, found
        assert found.problem.startswith(f"step {number}: ")
        assert problem in found.problem
        assert remedy in found.remedy
    override = f"step=[{', '.join(lines)}]"
    given = refusal(path, world, override)
    assert given.where == f"--set {override}"
    assert (given.problem, given.remedy) == (found.problem, found.remedy)


# a step, part of the problem, part of the remedy
MISWRITTEN = [
    ('"vm0/0 switch"', "a step must be a table", '{ party = "vm0/0", action = "switch" }'),
    ("[]", "a step must be a table", '{ party = "vm0/0", action = "switch" }'),
    ("{}", "'party' is missing", 'party = "vm0/0"'),
    ('{ party = "vm0/0" }', "'action' is missing", 'action = "mrs"'),
    ('{ party = "", action = "isb" }', "step.party is empty", 'write for example party = "vm0/0"'),
    ('{ party = "vm0/0", action = " " }', "step.action is empty", 'write for example action = "mrs"'),
    ('{ party = 0, action = "isb" }', "step.party must be a string, not an integer", 'party = "vm0/0"'),
    ('{ party = 0, action = "kill" }', "step.party must be a string, not an integer", 'party = "vm0/0"'),
    ('{ party = "vm0/0", action = 1 }', "step.action must be a string, not an integer", 'action = "mrs"'),
    ('{ party = "vm0/0", action = "isb", valeu = 1 }', "unknown key 'valeu'", "value"),
    ('{ party = "vm0/0", action = "mrs", register = 1 }', "must be a string, not an integer", '"PMCR_EL0"'),
    *(
        (
            f'{{ party = "vm0/0", action = "msr", register = "PMCR_EL0", value = {value} }}',
            f"step.value must be an integer, not {kind}",
            "value = 0",
        )
        for value, kind in (('"1"', "a string"), ("1.5", "a float"), ("true", "a boolean"), ("[1]", "an array"))
    ),
    ('{ party = "vm0/0", action = "run", cycles = 1, rates = 1 }', "must be a table, not an integer", "rates = { key"),
    ('{ party = "host/0", action = "idle", cycles = 1, powerdown = 1 }', "true or false", "powerdown = true"),
    (
        '{ party = "host", action = "perf_open", name = "a", events = ["cycles", 1] }',
        "events[1] must",
        'events = ["…"]',
    ),
]


@pytest.mark.parametrize(("step", "problem", "remedy"), MISWRITTEN)
def test_so_is_what_is_no_step(tmp_path: Path, step: str, problem: str, remedy: str) -> None:
    path = tmp_path / "scene.toml"
    first = inline("vm0/0 switch")[0]
    for document, line in ((f"step = [{first}, {step}]", 1), (f"step = [\n{first},\n{step},\n]", 3)):
        found = refusal(path, f"{document}\n{ONE_VM}")
        assert found.where == f"{path}:{line}"
        assert found.problem.startswith("step 2: ")
        assert problem in found.problem
        assert remedy in found.remedy


def test_and_what_an_override_makes_of_a_step(tmp_path: Path) -> None:
    steps = "vm0/0 switch\nvm0/0 msr register=PMCR_EL0 value=1"
    found = refusal(tmp_path / "scene.toml", f"{ONE_VM}\n{toml(steps)}", "step.1.value=-1")
    assert found.where == "--set step.1.value=-1"
    assert found.problem == "step 2: step.value = -1 is out of range"


@pytest.mark.parametrize("given", ['"vm0/0 switch"', '"""\nvm0/0 switch\nvm0/0 isb\n"""', "{}", "1"])
def test_steps_are_an_array_of_tables(tmp_path: Path, given: str) -> None:
    found = refusal(tmp_path / "scene.toml", f"\nstep = {given}\n{ONE_VM}")
    assert found.where.endswith("scene.toml:2")
    assert found.problem.startswith("step must be an array of tables, not ")
    assert found.remedy == "write [[step]]"


@pytest.mark.parametrize(
    ("steps", "wrong", "remedy"),
    [
        ("vm0/0 switch\nvm0/0 run {}", "cycles=long", "cycles = 1"),
        ("vm0/0 switch\nvm0/0 preempt {}\nvm0/0 isb", "at=x", "at = 0"),
        ("vm0/0 switch\nvm0/0 run cycles=1 {}", "until=1", 'until = "event"'),
        ("host perf_open name=a events=cycles {}", "thread=0", 'thread = "vm0/0"'),
        ("host perf_open name=a events=cycles {}", "period=x", "period = 1000000"),
    ],
)
def test_what_a_remedy_proposes_is_not_refused(tmp_path: Path, steps: str, wrong: str, remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        experiment(tmp_path, steps.format(wrong))
    assert caught.value.remedy.removeprefix("write ").removeprefix("for example ") == remedy
    assert experiment(tmp_path, steps.format(remedy.replace(" ", "").replace('"', ""))).steps


def test_a_list_without_a_step_is_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"step = []\n{ONE_VM}")
    with pytest.raises(UserError) as caught:
        scenario.load(path)
    assert (caught.value.where, caught.value.problem) == (f"{path}:1", "there is no step in it")


CHOOSING = [
    '[[guest.task]]\nworkload = "gzip-random"',
    '[[guest.perf]]\nverb = "stat"\nevents = "cycles"',
    '[[host.task]]\nworkload = "gzip-random"',
    '[[host.perf]]\nverb = "stat"\nevents = "cycles"',
    "[[host.offline]]\npcpu = 1\nfrom_ms = 1",
    "[[host.sysfs]]\nat_ms = 1\nreserved_host_counters = 1",
]


@pytest.mark.parametrize("table", CHOOSING)
def test_nobody_chooses_beside_steps(tmp_path: Path, table: str) -> None:
    with pytest.raises(UserError, match=r"beside \[\[step\]\]"):
        experiment(tmp_path, "vm0/0 switch", world=f"{FLOATING}{table}\n")


# world, steps, of which the last cannot be
IMPOSSIBLE = [
    (ONE_VM, "vm0/0 switch\nvm0/0 preempt\nvm0/0 preempt", "does not run"),
    (TWO_VMS, "vm0/0 switch\nvm1/0 switch\nvm0/0 isb", "vCPU 0 of vm0 does not run"),
    (ONE_VM, "vm0/0 switch\nvm0/0 block\nvm0/0 switch", "vCPU 0 of vm0 is blocked: wake it before"),
    (FLOATING, "vm0/0 switch\nvm0/0 migrate pcpu=1", "vCPU 0 of vm0 runs on pCPU 0: preempt it before"),
    (FLOATING, "vm0/0 migrate pcpu=0", "vCPU 0 of vm0 is on pCPU 0 already"),
    (ONE_VM, "vm0/0 switch\nvm0/0 wfi\nvm0/0 wake\nvm0/0 wake", "vCPU 0 of vm0 is not blocked"),
    (ONE_VM, "vm0/0 switch\nhost/0 run cycles=10", "vCPU 0 of vm0 runs on pCPU 0: preempt it before"),
    (ONE_VM, "vm0/0 switch\nhost/0 idle cycles=10", "vCPU 0 of vm0 runs on pCPU 0: preempt it before"),
]


@pytest.mark.parametrize(("world", "steps", "problem"), IMPOSSIBLE)
async def test_the_run_ends_at_what_cannot_be_as_things_are(
    tmp_path: Path, world: str, steps: str, problem: str
) -> None:
    of = experiment(tmp_path, steps, world=world)
    with pytest.raises(SimulationError) as caught:
        await play(of)
    last = of.steps[-1]
    assert str(caught.value).startswith(f"{last.where}: step {len(of.steps)}, {last.party} {last.action}: ")
    assert problem in str(caught.value)


async def test_nor_does_a_client_of_a_running_topology(tmp_path: Path) -> None:
    simulation = Simulation(experiment(tmp_path, "vm0/0 switch"))
    session = SessionSpec("stat", (EventSpec("cycles", CPU_CYCLES, leader=0),))
    with pytest.raises(ValueError, match="the scenario has steps"):
        simulation.requests.add(Request("host", 0, session=session))
