"""perf's event syntax (`perf record -e …`) to the `perf_event_attr` of each event.

Accepted: perf's generic names, software events, PMUv3 names as sysfs has them (`inst_retired`), raw events
(`r11`), `armv8_pmuv3_0/event=0x11,long=1/` and `armv8_pmuv3_0/inst_retired/`, of each the terms `freq=` and `period=`
(`cycles/period=100000/u`), the modifiers of `man perf-list` but `R`, and for perf stat but `b`, and groups `{a,b}:u`.
On a host with several core PMUs, a name without one stands for one event on each of them, in the order of their names,
and a group for one group on each (parse_events_add_numeric, parse_events_multi_pmu_add,
parse_events__sort_events_and_fix_groups). A raw event is one event, and a software event goes with its group's first.
Source: `man perf-list` (Linux 6.12), tools/perf/util/parse-events.c behaviour.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services import events
from services.errors import UserError
from services.experiment import ANY_PMU, CpuSpec, EventSpec
from services.tables import meant, near

_RAW = re.compile(r"r(?:0x)?([0-9a-fA-F]{1,8})")
_PMU = re.compile(r"armv8_\w+")
_WITH_TERMS = re.compile(r"([^/]+)/([^/]*)/")
_MODIFIERS = "ukhGHDIpPSWeb"
_OTHER_MODIFIERS = {"R": "retire latencies are Intel's: leave it out"}
_MOST_PRECISE = 3
MAX_PERIOD = 2**63 - 1  # attr.sample_period; the kernel refuses the top bit
MAX_FREQUENCY = 2**31 - 1  # perf_event_max_sample_rate is an int
_GENERIC = "armv8_pmuv3"  # a PMU as devicetree names it where it says no more than that

_Parsed = tuple[EventSpec, bool]  # and does it name no PMU?


class EventSyntaxError(UserError):
    """An event that perf would refuse; `argument` says which `-e` has it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__("", problem, remedy)
        self.argument = 0


@dataclass(frozen=True, slots=True)
class _Attr:
    event: int
    long: bool = False
    rdpmc: bool = False
    software: bool = False
    generic: bool = False
    sysfs: bool = False
    raw: bool = False  # a number without a PMU
    pmu: int = ANY_PMU
    frequency: int = 0  # of the terms freq= and period=
    period: int = 0


TOOLS: Final = (
    "6.13",
    "6.12",
)  # versions of perf's tools that differ here, the latest first: each stands for those up to it


@dataclass(frozen=True, slots=True)
class Pmus:
    """The PMUs of the kernel whose perf it is."""

    names: tuple[str, ...]  # by number
    raw: int = ANY_PMU  # where a number without a PMU goes
    cores: tuple[CpuSpec, ...] = ()  # of the PMUs, by number; (): a guest's, whose events only its kernel knows

    def number(self, name: str) -> int:
        """Of the PMU of that name, or of ACPI's for it (`armv8_pmuv3_0`). Raises EventSyntaxError."""
        acpi = [f"{_GENERIC}_{number}" for number in range(len(self.names))]
        for names in (self.names, acpi, [_GENERIC] if len(acpi) == 1 else []):
            if name in names:
                return list(names).index(name) if len(acpi) > 1 else ANY_PMU
        known = [*self.names, *acpi]
        raise EventSyntaxError(f"no PMU {name!r}", near(name, list(dict.fromkeys(known))))

    def each(self, spec: EventSpec) -> list[int]:
        """Those on which an event that names none is opened: perf's tools sort them by name.

        A name of sysfs stands for the event on those that have it (parse_events_multi_pmu_add), if any has.
        """
        numbers = sorted(range(len(self.names)), key=self.names.__getitem__)
        having = [n for n in numbers if self.cores[n].implements(spec.event)] if spec.sysfs and self.cores else []
        return having or numbers


GUEST_PMUS: Final = Pmus((_GENERIC,))


def parse_events(
    arguments: Iterable[str],
    *,
    frequency: int = 0,
    period: int = 0,
    pmus: Pmus | None = None,
    tool: str = TOOLS[0],
) -> tuple[EventSpec, ...]:
    """The events of one session, from its `-e` arguments in order.

    `frequency` (Hz) or `period` (events) is what `-F` or `-c` gave, for events without a term of their own; with
    neither, all only count. `pmus`: what they can be bound to; None: of a kernel of which nothing is known. `tool` is
    one of `TOOLS`. Raises EventSyntaxError.
    """
    specs: list[EventSpec] = []
    for number, argument in enumerate(arguments):
        try:
            for item in _split(argument):
                specs.extend(_item(item, len(specs), pmus, tool))
        except EventSyntaxError as error:
            error.argument = number
            raise
    if not specs:
        raise EventSyntaxError("no events", f'give for example events = "cycles,instructions"; {_where_listed()}')
    return tuple(_sampling(spec, specs[spec.leader], frequency, period) for spec in specs)


def _sampling(spec: EventSpec, leader: EventSpec, frequency: int, period: int) -> EventSpec:
    """evsel__config, evsel__apply_config_terms and evsel__config_leader_sampling: under `S` only the leader samples."""
    if not (frequency or period):
        return replace(spec, frequency=0, period=0)
    if spec.frequency or spec.period or (leader.sample_read and spec is not leader):
        return spec
    return replace(spec, frequency=frequency, period=period)


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside groups and outside `pmu/…/`."""
    items, current, braces, slashes = [], "", 0, False
    for character in text:
        if character == "/":
            slashes = not slashes
        elif not slashes:
            braces += (character == "{") - (character == "}")
            if braces not in (0, 1):
                raise EventSyntaxError(f"unbalanced braces in {text!r}", "write a group as {cycles,instructions}")
        if character == "," and braces == 0 and not slashes:
            items.append(current)
            current = ""
        else:
            current += character
    if braces or slashes:
        missing = "}" if braces else "/"
        raise EventSyntaxError(f"{missing!r} is missing in {text!r}", "close the group or the PMU's terms")
    return [item.strip() for item in [*items, current]]


def _item(item: str, first: int, pmus: Pmus | None, tool: str) -> list[EventSpec]:
    if not item.startswith("{"):
        found: list[EventSpec] = []
        for event in _on_each(_event(item, first, pmus, tool), pmus):
            found.append(replace(event, leader=first + len(found)))
        return found
    body, _, after = item[1:].rpartition("}")
    if after and not after.startswith(":"):
        raise EventSyntaxError(f"{after!r} after the group {item!r}", "a group's modifiers follow a colon: {a,b}:u")
    of_group = after[1:]
    group = [_event(member, first, pmus, tool, of_group) for member in _split(body)]
    of_pmu: dict[int, list[EventSpec]] = {}
    members = [event for member in group for event in _on_each(member, pmus)]
    # D and e behind a group are of its first event alone, even where it will be a group on each PMU.
    first_of_all = members[0]
    members[0] = replace(
        first_of_all, pinned=first_of_all.pinned or "D" in of_group, exclusive=first_of_all.exclusive or "e" in of_group
    )
    first_pmu = next((event.pmu for event in members if not event.software), ANY_PMU)
    for event in members:  # a software event where the first of the others is (evsel__compute_group_pmu_name)
        pmu = first_pmu if event.software else event.pmu
        of_pmu.setdefault(pmu, []).append(replace(event, pmu=pmu))
    found = []
    numbers = list(of_pmu)
    if pmus is not None and ANY_PMU not in numbers:
        numbers.sort(key=pmus.names.__getitem__)  # evlist__cmp
    for pmu in numbers:
        leader = first + len(found)
        found += [replace(event, leader=leader) for event in of_pmu[pmu]]
    return found


def _on_each(event: _Parsed, pmus: Pmus | None) -> list[EventSpec]:
    """The event on every PMU that it is opened on, named as `perf stat` does (uniquify_event_name)."""
    spec, plain = event
    if pmus is None or not plain or spec.software or len(pmus.names) == 1:
        return [spec]
    return [replace(spec, pmu=pmu, name=f"{pmus.names[pmu]}/{spec.name}/") for pmu in pmus.each(spec)]


def _event(text: str, leader: int, pmus: Pmus | None, tool: str, group_modifiers: str = "") -> _Parsed:
    if "/" in text:
        head, slash, modifiers = text.rpartition("/")
        name = head + slash
        modifiers = modifiers.removeprefix(":")
    else:
        name, _, modifiers = text.partition(":")
    if "W" in modifiers:
        raise EventSyntaxError(
            f"modifier 'W' of {text!r}: only a group can be weak", "write it after the group: {a,b}:W"
        )
    attr = _attr(name, pmus)
    for given in (modifiers, group_modifiers):
        _check_modifiers(text, given)
    spec = _modify(text, attr, modifiers, group_modifiers, leader)
    if tool == "6.12" and not set(modifiers + group_modifiers) & set("GH"):
        # event_attr_init excludes guests; an event's own modifiers begin afresh, of which `u` and `p` do so again.
        spec = replace(spec, exclude_guest=not modifiers or bool(set(modifiers + group_modifiers) & set("up")))
    of_pmu = "/" in name and bool(_PMU.fullmatch(name.partition("/")[0]))
    return spec, not of_pmu and not attr.raw


def _attr(name: str, pmus: Pmus | None) -> _Attr:
    if not name:
        raise EventSyntaxError("an empty event name", "remove the extra comma")
    if match := _WITH_TERMS.fullmatch(name):
        terms, frequency, period = _sampling_terms(name, match[2])
        attr = _of_pmu(name, match[1], terms, pmus) if _PMU.fullmatch(match[1]) else _plain(name, match[1], terms, pmus)
        return replace(attr, frequency=frequency, period=period)
    return _named(name, pmus)


def _of_pmu(name: str, pmu: str, terms: list[str], pmus: Pmus | None) -> _Attr:
    number = None if pmus is None else pmus.number(pmu)
    attr = _pmu_terms(name, terms)
    return attr if number is None else replace(attr, pmu=number)


def _sampling_terms(name: str, terms: str) -> tuple[list[str], int, int]:
    """The other terms, freq= and period=. The last of these two stands (config_attr)."""
    others, frequency, period = [], 0, 0
    for term in (term.strip() for term in terms.split(",")):
        key, _, value = term.partition("=")
        if key == "freq":
            frequency, period = _between(name, key, _number(name, value), MAX_FREQUENCY), 0
        elif key == "period":
            frequency, period = 0, _between(name, key, _number(name, value), MAX_PERIOD)
        else:
            others.append(term)
    return others, frequency, period


def _between(name: str, key: str, value: int, most: int) -> int:
    if not 0 < value <= most:
        raise EventSyntaxError(f"{key}={value} in {name!r} is out of range", f"give a number from 1 to {most}")
    return value


def _plain(name: str, event: str, terms: list[str], pmus: Pmus | None) -> _Attr:
    """An event without its PMU, which takes no other terms."""
    for term in terms:
        if term:
            raise EventSyntaxError(f"unknown term {term!r} in {name!r}", "terms are freq=1000 and period=100000")
    return _named(event, pmus)


def _named(name: str, pmus: Pmus | None) -> _Attr:
    if name.lower() in events.SOFTWARE:
        return _Attr(events.SOFTWARE[name.lower()], software=True)
    event = events.generic(name)
    if event is not None:
        return _Attr(event, generic=True)
    if name.upper() in events.pmuv3():
        return _Attr(events.number(name), sysfs=True)
    if match := _RAW.fullmatch(name):
        return _Attr(_in_range(name, int(match[1], 16)), raw=True, pmu=ANY_PMU if pmus is None else pmus.raw)
    raise EventSyntaxError(f"unknown event {name!r}", f"{_nearest(name)}{_where_listed()}")


def _pmu_terms(name: str, terms: list[str]) -> _Attr:
    event, long, rdpmc, generic, sysfs = None, False, False, False, False
    for term in terms:
        key, _, value = term.partition("=")
        if key in ("event", "config"):
            event, sysfs = _in_range(name, _number(name, value)), False
        elif key == "long":
            long = _flag(name, key, value)
        elif key == "rdpmc":
            rdpmc = _flag(name, key, value)
        elif key == "config1":
            long, rdpmc = (bool(_config1(name, value) >> bit & 1) for bit in (0, 1))
        elif key.lower() in (known.lower() for known in events.pmuv3()) and not value:
            event, generic, sysfs = events.number(key), False, True
        elif (found := events.generic(key)) is not None and not value:  # config_term_pmu: the generic event of this PMU
            event, generic, sysfs = found, True, False
        else:
            raise EventSyntaxError(
                f"unknown term {term!r} in {name!r}",
                "terms are event=0x11, long=1, rdpmc=1, freq=1000, period=100000 or a name, inst_retired or cycles",
            )
    if event is None:
        raise EventSyntaxError(f"{name!r} names no event", "write for example armv8_pmuv3_0/event=0x11/")
    return _Attr(event, long, rdpmc, generic=generic, sysfs=sysfs)


def _flag(name: str, term: str, text: str) -> bool:
    value = _number(name, text or "1")
    if value not in (0, 1):
        raise EventSyntaxError(f"{term}={text} in {name!r} is out of range", "give 0 or 1")
    return value == 1


def _config1(name: str, text: str) -> int:
    value = _number(name, text)
    if not 0 <= value <= 3:
        raise EventSyntaxError(
            f"config1={text} in {name!r}: no threshold is modelled",
            "give 1 (long), 2 (rdpmc) or 3, or write these terms",
        )
    return value


def _number(name: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise EventSyntaxError(f"{text!r} in {name!r} is not a number", "write for example event=0x11") from None


def _in_range(name: str, event: int) -> int:
    if not 0 <= event <= events.LAST_EVENT:
        raise EventSyntaxError(
            f"{name!r}: event {event:#x} is out of range", f"PMUv3 event numbers go from 0 to {events.LAST_EVENT:#x}"
        )
    return event


def _check_modifiers(text: str, modifiers: str) -> None:
    for modifier in modifiers:
        if modifier not in _MODIFIERS:
            remedy = _OTHER_MODIFIERS.get(modifier, f"there are {_MODIFIERS}")
            raise EventSyntaxError(f"modifier {modifier!r} of {text!r} is not supported", remedy)
        if modifier != "p" and modifiers.count(modifier) > 1:
            raise EventSyntaxError(f"modifier {modifier!r} of {text!r} is there twice", "write it once")


def _modify(text: str, attr: _Attr, own: str, of_group: str, leader: int) -> EventSpec:
    """parse_events__modifier_list; of its group's modifiers an event does not have what is the leader's alone."""
    modifiers = own + of_group
    if modifiers.count("p") > _MOST_PRECISE:
        raise EventSyntaxError(f"{text!r}: the most precise level is {_MOST_PRECISE}", "write p three times at most")
    # Any of u, k, h excludes the levels that are not named; any of G, H the side that is not named.
    levels, sides = set(modifiers) & set("ukh"), set(modifiers) & set("GH")
    return EventSpec(
        name=text,
        event=attr.event,
        leader=leader,
        frequency=attr.frequency,
        period=attr.period,
        pinned="D" in own,
        exclusive="e" in own,
        weak="W" in modifiers,
        sample_read="S" in modifiers,
        bpf="b" in modifiers,
        exclude_idle="I" in modifiers,
        exclude_user=bool(levels) and "u" not in levels,
        exclude_kernel=bool(levels) and "k" not in levels,
        exclude_hv=bool(levels) and "h" not in levels,
        exclude_host=bool(sides) and "H" not in sides,
        exclude_guest=bool(sides) and "G" not in sides,
        names_side=bool(sides),
        long=attr.long,
        rdpmc=attr.rdpmc,
        pmu=attr.pmu,
        software=attr.software,
        generic=attr.generic,
        sysfs=attr.sysfs,
    )


def _nearest(name: str) -> str:
    question = meant(name, [*events.names(), *events.SOFTWARE])
    return f"{question} " if question else ""


def _where_listed() -> str:
    return "`pmulab events` lists all"
