"""`[[step]]`: what happens, one after the other, in place of what scheduler, workloads and VMM choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from pmulab.register_names import register
from pmulab.scenario import keys
from pmulab.scenario.cpu_maps import CpuMaps
from pmulab.scenario.machine import Machine, read_reserved
from pmulab.scenario.sessions import host_pmus, read_session
from pmulab.scenario.work import Work, load
from services import events, workload
from services._pmu import register_encoding
from services.core_pmus import core_pmus
from services.errors import UserError
from services.experiment import GuestSpec, HostSpec, StepSpec
from services.kvm.guest_pmu import is_typer
from services.registers import MASK64, PMEVTYPER_EVTCOUNT, PMXEVTYPER_EL0
from services.tables import Table, near

_HOST = "host"
_PCPU, _VCPU, _VM, _PERF = "a pCPU", "a vCPU", "a VM", "the host"
_EXAMPLES = {_PCPU: '"host/0"', _VCPU: '"vm0/0"', _VM: '"vm0"', _PERF: '"host"'}
_MAX_CYCLES = 1 << 48
_SESSION = ("events", "verb", "frequency", "period", "mmap_pages")


@dataclass(frozen=True, slots=True)
class _Action:
    """Whose it is, and the keys that it must and may have."""

    parties: tuple[str, ...]
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


_ACCESS: Final = ("register",)
ACTIONS: Final = {
    "mrs": _Action((_VCPU,), _ACCESS, ("el",)),
    "msr": _Action((_VCPU,), (*_ACCESS, "value"), ("el",)),
    "isb": _Action((_VCPU,)),
    "hvc": _Action((_VCPU,)),
    "wfi": _Action((_VCPU,)),
    "irq": _Action((_VCPU,)),
    "run": _Action((_VCPU, _PCPU), ("cycles",), ("el", "workload", "rates", "until")),
    "switch": _Action((_VCPU,)),
    "preempt": _Action((_VCPU,), (), ("at",)),
    "block": _Action((_VCPU,)),
    "wake": _Action((_VCPU,)),
    "migrate": _Action((_VCPU,), ("pcpu",)),
    "get_one_reg": _Action((_VCPU,), _ACCESS),
    "set_one_reg": _Action((_VCPU,), (*_ACCESS, "value")),
    "set_nr_counters": _Action((_VCPU,), ("value",)),
    "filter": _Action((_VCPU,), ("event", "deny"), ("count",)),
    "create": _Action((_VM,)),
    "kill": _Action((_VM,)),
    "tick": _Action((_PCPU,), (), ("at",)),
    "mux": _Action((_PCPU,), (), ("at",)),
    "call": _Action((_PCPU,), (), ("at",)),
    "nmi": _Action((_PCPU,), (), ("at",)),
    "sysfs": _Action((_PERF,), ("reserved_host_counters",)),
    "idle": _Action((_PCPU,), ("cycles",), ("powerdown",)),
    "offline": _Action((_PCPU,)),
    "online": _Action((_PCPU,)),
    "perf_open": _Action((_PERF,), ("name", "events"), ("pcpu", "thread", "disabled", "at", *_SESSION[1:])),
    **dict.fromkeys(("perf_close", "perf_enable", "perf_disable", "perf_read"), _Action((_PERF,), ("name",), ("at",))),
}


class _Cast:
    """Who there is, and what of them is there as of a step."""

    def __init__(self, machine: Machine, host: HostSpec, guests: Sequence[GuestSpec], work: Work) -> None:
        self.machine = machine
        self.host = host
        self.guests = guests
        self.work = work
        self.names = [guest.name for guest in guests]
        self.first = [sum(len(guest.vcpus) for guest in guests[:vm]) for vm in range(len(guests))]
        self.dead: dict[str, int] = {}  # VMs, and the number of the step
        self.sessions: dict[str, StepSpec] = {}  # that are open
        self.switched: set[str] = set()  # vCPUs that have been switched to
        self.waited: set[str] = set()  # those of them that may have blocked
        self.offline: dict[int, int] = {}  # pCPUs, and the number of the step

    def party(self, table: Table, key: str, kinds: Sequence[str]) -> tuple[str, int]:
        """What kind of party `key` names, and its number. Raises UserError."""
        text = table.text(key, like="vm0/0")
        name, slash, digits = text.partition("/")
        wanted = " or ".join(f"{kind}, as in {_EXAMPLES[kind]}" for kind in kinds)
        if slash and not digits.isdecimal():
            table.refuse(key, f"{text!r} names no CPU", f"name {wanted}")
        if name == _HOST:
            found, number, count = (_PCPU, int(digits), len(self.machine.cpus)) if slash else (_PERF, -1, 0)
        elif name not in self.names:
            table.refuse(key, f"there is no {name!r} here", near(name, [_HOST, *self.names]))
        else:
            vm = self.names.index(name)
            found, number, count = (_VCPU, int(digits), len(self.guests[vm].vcpus)) if slash else (_VM, vm, 0)
        if found not in kinds:
            what = f"which has no action {table.text('action')!r}" if key == "party" else f"and no {key}"
            table.refuse(key, f"{text!r} is {found}, {what}", f"name {wanted}")
        if slash and number >= count:
            table.refuse(key, f"there is no {text}", f"{name} has {count}, counted from 0")
        return found, self.first[self.names.index(name)] + number if found == _VCPU else number

    def vm(self, text: str) -> str:
        return text.partition("/")[0]


def read_steps(
    scenario: Table, machine: Machine, host: HostSpec, guests: Sequence[GuestSpec], work: Work
) -> tuple[StepSpec, ...]:
    """All of them, in order. Raises UserError."""
    given = scenario.array("step")
    if not given:
        if "step" in scenario:
            scenario.refuse("step", "there is no step in it", "write one, or leave step out")
        return ()
    _nothing_else(scenario)
    tables: list[Table] = []
    for number, one in enumerate(given):
        with _of_step(number):
            if not isinstance(one, dict):
                like = 'write for example { party = "vm0/0", action = "switch" }'
                scenario.refuse("step", "a step must be a table", like, index=number)
            tables.append(Table(scenario.document, ("step", number), one, keys.STEP))
    cast = _Cast(machine, host, guests, work)
    _created(tables, cast)
    found: list[StepSpec] = []
    for number, table in enumerate(tables):
        with _of_step(number):
            found.append(_step(number, table, cast))
            if table is tables[-1] and found[-1].at >= 0:
                table.refuse("at", "no step follows in whose midst it could come", "add one, or leave at out")
    return tuple(found)


@contextmanager
def _of_step(number: int) -> Iterator[None]:
    """A UserError of the block says which step it is about, from 1 as in results: many may stand in one line."""
    try:
        yield
    except UserError as error:
        raise UserError(error.where, f"step {number + 1}: {error.problem}", error.remedy) from None


def _nothing_else(scenario: Table) -> None:
    """A step takes the place of each of these. Raises UserError."""
    host = scenario.table("host", keys.HOST)
    for key in ("task", "perf", "offline", "sysfs"):
        if key in host:
            host.refuse(key, f"[[host.{key}]] beside [[step]]: what happens is said by steps", "leave one of them out")
    for guest in scenario.tables("guest", keys.GUEST):
        for key in ("task", "perf"):
            if key in guest:
                guest.refuse(
                    key, f"[[guest.{key}]] beside [[step]]: what a guest does is said by steps", "leave one of them out"
                )


def _created(tables: Sequence[Table], cast: _Cast) -> None:
    """No VM does anything before it is created, where a step does that. Raises UserError."""
    creating: dict[str, int] = {}
    killed: dict[str, int] = {}
    for number, table in enumerate(tables):
        action, name = table.data.get("action"), _name(table, "party")
        if action == "kill":
            killed.setdefault(name, number)
        elif action == "create":
            with _of_step(number):
                if name in killed:
                    gone = f"{name} is no more: step {killed[name] + 1} has killed it"
                    table.refuse("party", gone, "create another VM, a [[guest]] of its own")
                if name in creating:
                    by = f"{name} is created by step {creating[name] + 1} already"
                    table.refuse("party", by, "leave one of them out")
            creating[name] = number
    for number, table in enumerate(tables):
        for key in ("party", "thread"):
            name = cast.vm(_name(table, key))
            if number < creating.get(name, 0):
                with _of_step(number):
                    yet = f"{name} has yet to be created, by step {creating[name] + 1}"
                    table.refuse(key, yet, "put that step before")


def _name(table: Table, key: str) -> str:
    """That of a party; what is none is refused when it comes to that step."""
    value = table.data.get(key)
    return value if isinstance(value, str) else ""


def _step(number: int, table: Table, cast: _Cast) -> StepSpec:
    table.require("party", '"vm0/0"')
    table.require("action", '"mrs"')
    action = table.choice("action", ACTIONS)
    what = ACTIONS[action]
    for key in table.data:
        if key not in ("party", "action", *what.must, *what.may):
            table.refuse(key, f"a step {action!r} has no {key!r}", _has(what))
    for key in what.must:
        if key not in table:
            table.refuse(key, f"a step {action!r} needs {key!r}", _has(what))
    kind, target = cast.party(table, "party", what.parties)
    _alive(table, "party", cast)
    step = StepSpec(
        where=table.document.where(table.path),
        party=table.text("party"),
        action=action,
        target=target,
        at=table.integer("at", -1, 0, 10**6) if "at" in table else -1,
        register=_register(table) if "register" in table else 0,
        value=table.integer("value", 0, 0, MASK64),
        el=_el(table, kind),
        cycles=table.integer("cycles", 0, 1, _MAX_CYCLES) if "cycles" in table else 0,
        until_event="until" in table and table.choice("until", ("event",)) == "event",
        pcpu=_pcpu(table, cast),
        events=(table.integer("event", 0, 0, PMEVTYPER_EVTCOUNT), table.integer("count", 1, 1, 1 << 16)),
        flag=any(table.boolean(key, False) for key in ("deny", "powerdown", "disabled")),
    )
    if action == "run":
        step = replace(step, profile=_profile(table, cast, kind))
    elif action == "migrate":
        _migrates(table, step, cast)
    elif action == "sysfs":
        step = replace(step, reserved=read_reserved(table, cast.machine.cpus))
    elif action == "nmi" and not cast.host.pseudo_nmi:
        table.refuse("action", "the host has no pseudo-NMIs", "set host.pseudo_nmi = true")
    elif action == "offline" and target == 0:
        table.refuse("party", "pCPU 0 stays online: somebody has to", "take another one")
    elif action == "kill":
        cast.dead[step.party] = number
    elif action.startswith("perf_"):
        step = _perf(number, table, step, cast)
    _possible(number, table, step, kind, cast)
    return step


_RUNNING: Final = ("mrs", "msr", "isb", "hvc", "wfi", "irq", "run", "preempt", "block")


def _possible(number: int, table: Table, step: StepSpec, kind: str, cast: _Cast) -> None:
    """Refuse what cannot be, whatever a design makes of the steps before. Raises UserError."""
    if kind == _VCPU:
        if step.action == "switch":
            cast.switched.add(step.party)
        elif step.action in _RUNNING and step.party not in cast.switched and step.at < 0:
            table.refuse("party", f"{step.party} does not run yet", "switch to it before")
        elif step.action == "wake" and step.party not in cast.waited:
            table.refuse("party", f"{step.party} has not blocked", "block it before, or have it execute wfi")
        if step.action in ("wfi", "block"):
            cast.waited.add(step.party)
    by_key = (
        ("party", step.target if kind == _PCPU else -1),
        ("pcpu", step.pcpu),
        ("name", step.target if kind == _PERF and step.name else -1),
    )
    for key, pcpu in by_key:
        if step.action == "online":
            if pcpu >= 0 and cast.offline.pop(pcpu, -1) < 0:
                table.refuse("party", f"pCPU {pcpu} is online", "put an offline step before, or leave this out")
        elif pcpu in cast.offline:
            by = cast.offline[pcpu] + 1
            table.refuse(key, f"pCPU {pcpu} is offline: step {by} has taken it there", "bring it online before")
    if step.action == "offline":
        cast.offline[step.target] = number


def _has(what: _Action) -> str:
    parts = [f"it needs {', '.join(what.must)}"] if what.must else []
    parts += [f"may have {', '.join(what.may)}"] if what.may else []
    return " and ".join(parts) or "it has party and action alone"


def _alive(table: Table, key: str, cast: _Cast) -> None:
    name = cast.vm(table.text(key))
    if name in cast.dead:
        table.refuse(key, f"{name} is no more: step {cast.dead[name] + 1} has killed it", "put this step before that")


def _register(table: Table) -> int:
    try:
        return register_encoding(register(table.text("register", like="PMCR_EL0")))
    except UserError as error:
        table.refuse("register", error.problem, error.remedy)


def _el(table: Table, kind: str) -> int:
    """1 by default; the host's kernel is at EL2, whichever of the two is written."""
    if kind == _PCPU:
        return 2 if table.integer("el", 1, 0, 2) else 0
    if table.data.get("el") == 2:
        table.refuse("el", "a guest has EL0 and EL1", "give 0 or 1")
    return table.integer("el", 1, 0, 1)


def _pcpu(table: Table, cast: _Cast) -> int:
    pcpus = len(cast.machine.cpus)
    if "pcpu" not in table:
        return -1
    pcpu = table.integer("pcpu", 0, -MASK64, MASK64)
    if not 0 <= pcpu < pcpus:
        table.refuse("pcpu", f"there is no pCPU {pcpu}", f"there are {pcpus}, counted from 0")
    return pcpu


def _profile(table: Table, cast: _Cast, kind: str) -> int:
    """The rates with which events come while it runs."""
    if "workload" in table and "rates" in table:
        table.refuse("rates", "both workload and rates are given", "give one of them")
    if "rates" in table:
        given = table.table("rates", None)
        rates: list[tuple[int, int]] = []
        for name in given.data:
            event = events.pmuv3().get(name.upper())
            if event is None:
                given.refuse(name, f"no event {name!r}", near(name, [one.lower() for one in events.pmuv3()]))
            if event in dict(rates):
                given.refuse(name, f"{name.upper()} is given twice", "leave one of them out")
            rates.append((event, workload.rate(Fraction(given.number(name, 1, 0, Decimal(65535))), 1)))
            with given.blamed(name):
                workload.check(*rates[-1])
        return cast.work.profile(tuple(sorted(rates)))
    found = load(table, "host-kernel" if kind == _PCPU else workload.KERNEL)
    return cast.work.profile(found.phases[0].rates)


def _migrates(table: Table, step: StepSpec, cast: _Cast) -> None:
    vm = cast.names.index(cast.vm(step.party))
    pinned = cast.guests[vm].vcpus[step.target - cast.first[vm]].pcpu
    if pinned >= 0:
        table.refuse("pcpu", f"{step.party} is pinned to pCPU {pinned}", "let it float, with pin = -1")


def _perf(number: int, table: Table, step: StepSpec, cast: _Cast) -> StepSpec:
    """A call of a session of the host's perf: which it is, and where."""
    name = table.text("name", like="watchdog")
    if step.action != "perf_open":
        opened = cast.sessions.get(name)
        if opened is None:
            open_ones = near(name, cast.sessions) if cast.sessions else "open it before, by perf_open"
            table.refuse("name", f"no session {name!r} is open", open_ones)
        if step.action == "perf_close":
            del cast.sessions[name]
        return replace(step, name=name, target=opened.target, thread=opened.thread)
    if name in cast.sessions:
        table.refuse("name", f"a session {name!r} is open", "give each a name of its own")
    thread = -1
    if "thread" in table:
        if "pcpu" in table:
            table.refuse("pcpu", "both thread and pcpu are given", "give one: a session is on a thread or on a CPU")
        _, thread = cast.party(table, "thread", (_VCPU,))
        _alive(table, "thread", cast)
    target = max(step.pcpu, 0) if thread < 0 else -1
    cpus = cast.machine.cpus
    sampling = "frequency" in table or "period" in table
    session = read_session(
        Table(table.document, table.path, {"verb": "record" if sampling else "stat", **_of_session(table)}, None),
        cpu_wide=thread < 0,
        frequency_hz=cast.machine.frequency_hz,
        pmus=host_pmus(cpus, of_task=thread >= 0),
        maps=None if thread >= 0 else CpuMaps(core_pmus(cpus), (target,), listed=True),
        tool=cast.host.perf_tool,
    )
    opened = replace(step, name=name, session=replace(session, name=name), target=target, thread=thread)
    cast.sessions[name] = opened
    return opened


def _of_session(table: Table) -> dict[str, object]:
    return {key: table.data[key] for key in _SESSION if key in table}


def counted(steps: Sequence[StepSpec]) -> set[int]:
    """The events that guests' writes of PMEVTYPER<n>_EL0 and PMXEVTYPER_EL0 may have counted, and sessions do."""
    found = {
        step.value & PMEVTYPER_EVTCOUNT
        for step in steps
        if step.action in ("msr", "set_one_reg") and (is_typer(step.register) or step.register == PMXEVTYPER_EL0)
    }
    for step in steps:
        if step.session is not None:
            found.update(event.event for event in step.session.events if not event.software)
    return found - {events.UNMAPPED}
