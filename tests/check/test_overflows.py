"""The next overflow comes within each operation of what an action has KVM do, and within each once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from pmulab.check.key import Key
from pmulab.check.overflows import Overflows, Way
from pmulab.check.play import Move, Play
from pmulab.check.shrink import Signature
from services.registers import PMCR_EL0
from tests.check.levels import act, action, opened

ACCESSES, WRITE = range(4), 1  # as the log has them
SOME = 7  # cycles, and no divisor of what an access takes

of_each_kind = pytest.mark.parametrize(
    ("design", "world", "before", "words"),
    [
        ("partitioned", "one", ("preempt",), ("vm0/0", "switch")),
        ("partitioned", "one-without-fgt", ("preempt",), ("vm0/0", "switch")),
        ("partitioned", "one", (), ("preempt",)),
        ("partitioned", "one-without-fgt", (), ("PMCNTENSET_EL0",)),
        ("emulated", "one", (), ("PMCNTENSET_EL0",)),
        ("emulated", "one", (), ("perf_read", "insts")),
    ],
    ids=lambda words: "-".join(words) if isinstance(words, tuple) else words,
)


class End(NamedTuple):
    """What has come of it."""

    came: int  # the overflow, in cycles from where the action began
    key: int
    found: tuple[Signature, ...]


@dataclass
class Amid:
    """An action, of which nothing has come to pass, while the host has an event that overflows much later."""

    play: Play
    action: Move
    come_to: Callable[[], Awaitable[None]]

    @classmethod
    def of(cls, play: Play, which: Move) -> Amid:
        root = play.save()

        async def come_to() -> None:
            play.restore(root)

        return cls(play, which, come_to)

    @property
    def now(self) -> int:
        return self.play.script.pcpus[0].now

    async def ends(self) -> list[tuple[int, int]]:
        """When what is before each of its accesses ends, and when that does, in cycles from where it begins, without an
        overflow: of those at which the host's counters are not stopped (armv8pmu_stop)."""
        machine = self.play.simulation.board.machine
        await self.come_to()
        machine.observe(True)
        began = self.now
        await act(self.play, self.action)
        seen = machine.observed()
        machine.observe(False)
        found, last, stopped = list[tuple[int, int]](), 0, False
        for _, cycle, el, code, register, value in seen:
            if code in ACCESSES and not stopped:
                found.append((last, cycle - began))
            last = cycle - began
            if (el, code, register) == (2, WRITE, PMCR_EL0):
                stopped = not value & 1
        return found

    async def each(self) -> list[End]:
        """With the overflow within each of its operations."""
        overflows = Overflows(self.play)
        await self.come_to()
        began = self.now
        return [self._end(began + passes.spec.cycles) async for passes in overflows.each(self.action, self.come_to)]

    async def at(self, way: Way, left: int) -> End:
        await self.come_to()
        await act(self.play, way.passes(left))
        began = self.now
        await act(self.play, self.action)
        return self._end(began)

    def _end(self, began: int) -> End:
        came = self.play.simulation.board.machine.raised(0) - began
        return End(came, Key(self.play).of(), tuple(map(Signature.of, self.play.found())))


async def amid(design: str, world: str, before: tuple[str, ...], words: tuple[str, ...]) -> Amid:
    play = await opened("sampling", world, design)
    await act(play, action(play, "perf_open", "insts"), *(action(play, word) for word in before))
    return Amid.of(play, action(play, *words))


@of_each_kind
async def test_each_access_has_one_within_it(
    design: str, world: str, before: tuple[str, ...], words: tuple[str, ...]
) -> None:
    one = await amid(design, world, before, words)
    came = sorted(end.came for end in await one.each())
    assert len({*came}) == len(came)
    ends = await one.ends()
    assert ends
    for begins, end in ends:
        assert any(begins < cycle <= end for cycle in came)


@of_each_kind
async def test_anywhere_else_it_ends_as_at_one_of_these(
    design: str, world: str, before: tuple[str, ...], words: tuple[str, ...]
) -> None:
    one = await amid(design, world, before, words)
    known = {(end.key, end.found) for end in await one.each()}
    way = await Overflows(one.play).way(one.action, one.come_to)
    assert way is not None
    others = [await one.at(way, left) for left in range(1, way.points[-1], SOME)]
    elsewhere = {(end.key, end.found) for end in others if 0 < end.came < way.points[-1]}
    assert elsewhere
    assert elsewhere <= known


async def test_what_passes_before_is_written_as_it_is_played() -> None:
    """So that the scenario of what is found finds the same."""
    one = await amid("partitioned", "one", ("preempt",), ("vm0/0", "switch"))
    passed = [passes async for passes in Overflows(one.play).each(one.action, one.come_to)]
    assert passed
    for passes in passed:
        assert passes.step["cycles"] == passes.spec.cycles
        assert ("until" in passes.step) == passes.spec.until_event


async def test_what_a_guest_or_the_host_computes_has_none() -> None:
    """There it comes by itself."""
    play = await opened("sampling")
    await act(play, action(play, "perf_open", "samples"))
    assert await Amid.of(play, action(play, "run", 900)).each() == []
