"""The canonical key of a world in motion: 64 bits by which states are told apart whose futures differ.

Clocks, tallies and results are not in it, and of a counter no more than how far it is from its wrap and its error: what
it has more than the judge's ideal of its owner, which is 0 in a correct state. `key.toml` says of each field of each
state dataclass whether it is in, and why; the machine's state and the judge's have a table of their own
(rust/judge/src/key/table.rs).
"""

from __future__ import annotations

import dataclasses
import inspect
import marshal
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Any, NamedTuple

from pmulab.check.play import Move, Play
from services.cpu import COUNTER_SHIFT
from services.kvm.guest_pmu import OF_COUNTERS, GuestPmu, is_typer
from services.kvm.stepped import HELD
from services.kvm.vcpu import VCpu
from services.linux_perf.event import ACTIVE, Context, PerfEvent
from services.linux_perf.ring_buffer import RingBuffer
from services.registers import CYCLE_COUNTER, MASK64
from services.state import names

MARSHAL = 2  # the format: from version 3 on it depends on which objects are the same
NEAR = 1 << 13  # occurrences: more than an action has
FAR = 1 << 62
NOBODY = MASK64  # no event's id

Guests = list[tuple[int, list[tuple[int, int, int]]]]
Events = list[tuple[int, int, int | None, int, tuple[int, int]]]


class UnnamedField(LookupError):
    """A field of a state of which nobody has said whether it is in the key."""


class Row(NamedTuple):
    """What the table has of a field."""

    how: str
    why: str


@cache
def table() -> Mapping[str, Mapping[str, Row]]:
    """By the name of the class that declares a field, and the field's."""
    found = tomllib.loads(files("pmulab.check").joinpath("key.toml").read_text(encoding="utf-8"))
    return {kind: {field: Row(*row) for field, row in rows.items()} for kind, rows in found.items()}


def row_of(kind: type, field: str) -> Row:
    """The row of a field of a state dataclass. What a design of others' adds is in. Raises UnnamedField."""
    declaring = next(one for one in kind.__mro__ if field in inspect.get_annotations(one))
    row = table().get(declaring.__name__, {}).get(field)
    if row is None:
        if declaring.__module__.startswith("services."):
            raise UnnamedField(f"{declaring.__module__}: {declaring.__name__}.{field}")
        return Row("in", "of a design that is not known here")
    return row


# A key is made by the million, so each type has a function of its own, written out like those of `services.state`.

_Function = Callable[..., Any]

_ARGUMENTS = "now, events, contexts, buffers"  # the pCPU's time, and ranks by id
_RANKED = {PerfEvent: "events", Context: "contexts", RingBuffer: "buffers"}
_DUE = f"(0 if $ <= now else 1 if $ < {HELD} else 2 if $ == {HELD} else 3)"
_NEAR = f"($ if 0 <= $ <= {NEAR} else {FAR} if $ > 0 else -{FAR})"
_LEFT = f"($ if 0 < s.sample_period <= {NEAR} else {_NEAR})"
_PLAIN = (int, bool, float, str, bytes, types.NoneType)


class _ByType(dict[type, _Function]):
    """The functions that put states into a key: as tuples, or `named` as dicts."""

    def __init__(self, *, named: bool) -> None:
        super().__init__()
        self.named = named

    def __missing__(self, kind: type) -> _Function:
        made = self[kind] = _function(kind, self)
        return made


def _function(kind: type, by_type: _ByType) -> _Function:
    hints = typing.get_type_hints(kind)
    namespace: dict[str, Any] = {"by_type": by_type, "stable": stable}
    items = []
    for field in dataclasses.fields(typing.cast("Any", kind)):
        if field.name not in names(kind):
            continue
        code = _code(row_of(kind, field.name).how, hints[field.name], linked="link" in field.metadata)
        if code:
            code = code.replace("$", f"s.{field.name}")
            items.append(f"{field.name!r}: {code}" if by_type.named else f"{code},")
    body = f"{{{', '.join(items)}}}" if by_type.named else f"({' '.join(items)})"
    exec(compile(f"def key(s, {_ARGUMENTS}):\n    return {body}\n", f"<key of {kind.__qualname__}>", "exec"), namespace)
    made: _Function = namespace["key"]
    return made


def _code(how: str, of: Any, *, linked: bool) -> str:
    """What of a value of type `of`, `$`, is in the key: an expression; empty if nothing is."""
    match how:
        case "in":
            return _linked(of) if linked else _value(of)
        case "due":
            return _due(of)
        case "now":
            return "($ <= now)"
        case "coming":
            return "[*[one.id for one in s.waiting], *[who for _, who in s.arrivals]]"
        case "begun":
            return "($ >= 0)"
        case "below":
            return "min($, 0)"
        case "near":
            return _NEAR
        case "left":
            return _LEFT
        case "out" | "copied":
            return ""
    raise ValueError(f"key.toml: a field cannot be {how!r} in the key")


def _value(of: Any) -> str:
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if of in _PLAIN or of is Any:
        return "$"
    if isinstance(of, type) and issubclass(of, IntEnum):
        return "int($)"
    if dataclasses.is_dataclass(of):
        frozen: bool = typing.cast("Any", of).__dataclass_params__.frozen
        return "stable($)" if frozen else f"by_type[$.__class__]($, {_ARGUMENTS})"
    if origin in (typing.Union, types.UnionType):
        code = _value(_not_none(of))
        return code if code == "$" else f"(None if $ is None else {code})"
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        code = _value(arguments[0])
        return "$" if code == "$" else _each(code, "one in $")
    if origin is dict:
        return _each(f"(key, {_value(arguments[1])})", "key, one in sorted($.items())")
    return "sorted($)" if origin is set else "$"


def _due(of: Any) -> str:
    match typing.get_origin(of):
        case None:
            return _DUE
        case origin if origin is dict:
            return _each(f"(key, {_DUE})", "key, one in sorted($.items())")
    return _each(f"({_DUE}, what)", "one, what in $")


def _linked(of: Any) -> str:
    """Which of those that there are: by rank where ids are new ones each time."""
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if origin is list:
        there = _not_none(arguments[0])
        return _each(_linked(there), "one in $" if there is arguments[0] else "one in $ if one is not None")
    if origin is dict:
        return _each(f"(key, {_linked(arguments[1])})", "key, one in $.items()")
    target = _not_none(of)
    ranks = _RANKED.get(target)
    code = f"{ranks}[$.id]" if ranks else "$.id"
    return code if target is of else f"(None if $ is None else {code})"


def _each(code: str, each: str) -> str:
    """Of each `one`; most that there are are empty."""
    return f"($ and [{code.replace('$', 'one')} for {each}])"


def _not_none(kind: Any) -> Any:
    return next((one for one in typing.get_args(kind) if one is not types.NoneType), kind)


_kept: dict[int, tuple[object, bytes]] = {}
_MOST = 1 << 14  # values: each session that is opened has new ones


def stable(value: object) -> bytes:
    """A frozen dataclass, told apart in every process alike."""
    known = _kept.get(id(value))
    if known is None or known[0] is not value:
        if len(_kept) == _MOST:
            _kept.clear()
        known = _kept[id(value)] = value, blake2b(repr(value).encode(), digest_size=8).digest()
    return known[1]


# The parts of a form, in order; the host's are the last one of KVM's.
_OF_KVM = ("sessions", "opened", "over", "board", "pcpus", "vcpus", "readers", "requests", "script")
_OF_HOST = ("host", "handles", "shared", "events", "buffers", "leaders", "followers", "contexts", "cpus")

_tuples, _dicts = _ByType(named=False), _ByType(named=True)


class Key:
    """That of a play, whose world has neither tasks nor processes of its own."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.simulation = play.simulation
        self.host = play.embedded.host
        self.machine = play.simulation.board.machine
        self.chosen = _chosen(play.stock.actions)
        if self.simulation.tasks or self.simulation.processes:
            raise UnnamedField("a world with tasks has no key: what they have done is not in it")

    def of(self) -> int:
        """Of the play as it stands between two actions. Raises ValueError and UnnamedField for a field that is new."""
        return self.machine.key(
            marshal.dumps(self._form(_tuples), MARSHAL), self._guests(), self._events(), self.chosen
        )

    def parts(self) -> dict[str, object]:
        """All that is in it, by name: to tell in what two differ."""
        form = self._form(_dicts)
        found: dict[str, object] = {}
        for names_of, parts in ((_OF_KVM, form), (_OF_HOST, form[-1])):
            for name, part in zip(names_of, parts, strict=False):
                found |= dict(_flat(name, part))
        times: dict[str, int] = {}
        for name, value in self.machine.key_parts(self._guests(), self._events(), self.chosen):
            times[name] = times.get(name, -1) + 1
            found[f"machine.{name}[{times[name]}]"] = value
        return found

    def _form(self, by_type: _ByType) -> list[Any]:
        """What is in it beside the machine."""
        simulation, play = self.simulation, self.play
        now = [self.machine.now(pcpu.cpu) for pcpu in simulation.pcpus]
        nothing: dict[int, int] = {}

        def put(one: Any, at: int = 0) -> Any:
            return by_type[one.__class__](one, at, nothing, nothing, nothing)

        script = simulation.script
        assert script is not None  # there are steps
        return [
            sorted(play.sessions),
            sorted(play.opened),  # of one that KVM has not come to, too: what may be asked next goes by it
            play.over,
            put(simulation.board),
            [put(pcpu, now[pcpu.cpu]) for pcpu in simulation.pcpus],
            [put(vcpu, now[vcpu.cpu]) for vcpu in simulation.vcpus],
            [put(reader) for reader in simulation.readers.known],
            put(simulation.requests),
            put(script),
            self._of_host(by_type, now),
        ]

    def _of_host(self, by_type: _ByType, now: list[int]) -> list[Any]:
        host, perf = self.host, self.host.perf
        if perf is None:
            return []
        contexts, buffers = perf.contexts(), perf.buffers()
        ranks = tuple({number: rank for rank, number in enumerate(known)} for known in (perf.events, contexts, buffers))

        def put(one: Any, at: int = 0) -> Any:
            return by_type[one.__class__](one, at, *ranks)

        return [
            [
                (index, put(cpu), [put(session, now[index]) for session in cpu.sessions if session.closed is None])
                for index, cpu in host.cpus.items()
            ],
            sorted((handle, ranks[0].get(event.id, -1)) for handle, event in host.counters.items()),
            put(perf.shared),
            [put(event) for event in perf.events.values()],
            [put(buffer) for buffer in buffers.values()],
            [put(leader) for leader in perf.shared.leaders],
            [put(follower) for follower in perf.shared.followers],
            [put(ctx) for ctx in contexts.values()],
            [put(cpu, now[cpu.config.cpu]) for cpu in perf.cpus],
        ]

    # Counters' values.

    def _guests(self) -> Guests:
        """As KVM has them in memory, with the events that count in their stead."""
        return [(vcpu.context, [*self._kept(vcpu, vcpu.pmu)]) for vcpu in self.simulation.vcpus]

    def _kept(self, vcpu: VCpu, pmu: GuestPmu) -> Iterator[tuple[int, int, int]]:
        backing, base = self.host.counters, vcpu.id << COUNTER_SHIFT
        for n in (*range(pmu.counters), CYCLE_COUNTER):
            event = backing.get(base | n)
            yield n, pmu.counter[n] & MASK64, NOBODY if event is None else event.id

    def _events(self) -> Events:
        """As the host's perf has them."""
        if self.host.perf is None:
            return []
        found: Events = []
        for event in self.host.perf.events.values():
            hw = event.hw
            enabled, running = event.own_times()
            previous = event.prev & MASK64 if event.state == ACTIVE and not hw.software else None
            times = enabled & MASK64, running & MASK64
            found.append((event.id, event.count & MASK64, previous, hw.mask & MASK64, times))
        return found


def _chosen(actions: Iterable[Move]) -> list[int]:
    """The values that counters are given: by writes, and by resets."""
    specs = (move.spec for move in actions if move.spec.register in OF_COUNTERS)
    return sorted({0} | {spec.value for spec in specs if not is_typer(spec.register)})


def _flat(path: str, form: Any) -> Iterator[tuple[str, object]]:
    """What is in a form, each with where it is."""
    if isinstance(form, dict):
        for name, one in form.items():
            yield from _flat(f"{path}.{name}", one)
    elif isinstance(form, (list, tuple)):
        yield f"{path}#", len(form)
        for index, one in enumerate(form):
            yield from _flat(f"{path}[{index}]", one)
    else:
        yield path, form
