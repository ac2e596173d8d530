"""perf's event syntax (`perf record -e …`) to the `perf_event_attr` of each event.

Accepted: perf's generic names, PMUv3 names as sysfs has them (`inst_retired`), raw events (`r11`),
`armv8_pmuv3_0/event=0x11,long=1/` and `armv8_pmuv3_0/inst_retired/`, the modifiers `u k h G H D`,
and groups `{a,b}:u`. Source: `man perf-list` (Linux 6.12), tools/perf/util/parse-events.c behaviour.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from services import events
from services.errors import UserError
from services.experiment import EventSpec
from services.tables import meant

_RAW = re.compile(r"r(?:0x)?([0-9a-fA-F]{1,8})")
_PMU = re.compile(r"(armv8_\w+)/([^/]*)/")
_MODIFIERS = "ukhGHD"


class EventSyntaxError(UserError):
    """An event that perf would refuse; `argument` says which `-e` has it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__("", problem, remedy)
        self.argument = 0


@dataclass(frozen=True, slots=True)
class _Attr:
    event: int
    long: bool = False
    generic: bool = False


TOOLS: Final = (
    "6.13",
    "6.12",
)  # versions of perf's tools that differ here, the latest first: each stands for those up to it


def parse_events(
    arguments: Iterable[str], *, frequency: int = 0, period: int = 0, tool: str = TOOLS[0]
) -> tuple[EventSpec, ...]:
    """The events of one session, from its `-e` arguments in order.

    `frequency` (Hz) or `period` (events) is what `-F` or `-c` gave; with neither, events only count.
    `tool` is one of `TOOLS`. Raises EventSyntaxError.
    """
    specs: list[EventSpec] = []
    for number, argument in enumerate(arguments):
        try:
            for item in _split(argument):
                specs.extend(_item(item, len(specs), tool))
        except EventSyntaxError as error:
            error.argument = number
            raise
    if not specs:
        raise EventSyntaxError("no events", f'give for example events = "cycles,instructions"; {_where_listed()}')
    return tuple(replace(spec, frequency=frequency, period=period) for spec in specs)


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


def _item(item: str, first: int, tool: str) -> list[EventSpec]:
    if not item.startswith("{"):
        return [_event(item, first, tool)]
    body, _, after = item[1:].rpartition("}")
    if after and not after.startswith(":"):
        raise EventSyntaxError(f"{after!r} after the group {item!r}", "a group's modifiers follow a colon: {a,b}:u")
    group = [_event(member, first, tool, after[1:]) for member in _split(body)]
    # Only a leader can be pinned: its members go with it.
    return [group[0], *(replace(member, pinned=False) for member in group[1:])]


def _event(text: str, leader: int, tool: str, group_modifiers: str = "") -> EventSpec:
    if "/" in text:
        head, slash, modifiers = text.rpartition("/")
        name = head + slash
        modifiers = modifiers.removeprefix(":")
    else:
        name, _, modifiers = text.partition(":")
    attr = _attr(name)
    spec = _modify(text, attr, modifiers + group_modifiers, leader)
    if tool == "6.12" and not set(modifiers + group_modifiers) & set("GH"):
        # event_attr_init excludes guests; an event's own modifiers begin afresh, of which `u` excludes them again.
        return replace(spec, exclude_guest=not modifiers or "u" in modifiers + group_modifiers)
    return spec


def _attr(name: str) -> _Attr:
    if not name:
        raise EventSyntaxError("an empty event name", "remove the extra comma")
    if match := _PMU.fullmatch(name):
        return _pmu_terms(name, match[2])
    try:
        return _Attr(events.number(name), generic=events.is_generic(name))
    except KeyError:
        pass
    if match := _RAW.fullmatch(name):
        return _Attr(_in_range(name, int(match[1], 16)))
    raise EventSyntaxError(f"unknown event {name!r}", f"{_nearest(name)}{_where_listed()}")


def _pmu_terms(name: str, terms: str) -> _Attr:
    event, long = None, False
    for term in terms.split(","):
        key, _, value = term.strip().partition("=")
        if key in ("event", "config"):
            event = _in_range(name, _number(name, value))
        elif key == "long":
            long = _number(name, value or "1") == 1
        elif key.lower() in (known.lower() for known in events.pmuv3()) and not value:
            event = events.number(key)
        else:
            raise EventSyntaxError(
                f"unknown term {term!r} in {name!r}",
                "terms are event=0x11, long=1 or a PMUv3 name such as inst_retired",
            )
    if event is None:
        raise EventSyntaxError(f"{name!r} names no event", "write for example armv8_pmuv3_0/event=0x11/")
    return _Attr(event, long)


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


def _modify(text: str, attr: _Attr, modifiers: str, leader: int) -> EventSpec:
    for modifier in modifiers:
        if modifier not in _MODIFIERS:
            remedy = "a PMUv3 has no precise sampling: leave it out" if modifier in "pP" else f"there are {_MODIFIERS}"
            raise EventSyntaxError(f"modifier {modifier!r} of {text!r} is not supported", remedy)
    # Any of u, k, h excludes the levels that are not named; any of G, H the side that is not named.
    levels, sides = set(modifiers) & set("ukh"), set(modifiers) & set("GH")
    return EventSpec(
        name=text,
        event=attr.event,
        leader=leader,
        pinned="D" in modifiers,
        exclude_user=bool(levels) and "u" not in levels,
        exclude_kernel=bool(levels) and "k" not in levels,
        exclude_hv=bool(levels) and "h" not in levels,
        exclude_host=bool(sides) and "H" not in sides,
        exclude_guest=bool(sides) and "G" not in sides,
        long=attr.long,
        generic=attr.generic,
    )


def _nearest(name: str) -> str:
    question = meant(name, events.names())
    return f"{question} " if question else ""


def _where_listed() -> str:
    return "`pmulab events` lists all"
