"""The next overflow on a pCPU within each operation of what an action has KVM do, and with it the PMU's interrupt.

When it comes follows from what has been counted, so something runs before the action, and for so long that the rest of
the way to the overflow ends there. Nothing is poked.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from pmulab.check.play import Move, Play
from services.kvm.host_steps import PERF
from services.kvm.stepped import SteppedPCpu

_LONG = 1_000_000  # cycles, in which an overflow comes that is on its way
_TRIES = 8  # for one operation: its counter may stand still for a while before

ComeTo = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Way:
    """To the next overflow, on a pCPU where an action is about to begin."""

    pcpu: SteppedPCpu
    run: Move  # by which it is come to
    ahead: int  # cycles of that
    points: list[int]  # of the action: in cycles from where it begins

    def passes(self, left: int) -> Move:
        """So much is left of it when the action begins, which is less than there is."""
        return _for(self.run, self.ahead - left)


@dataclass(slots=True)
class Landed:
    """When the overflow came, by what was left of the way to it when the action began, in cycles."""

    by: dict[int, int | None] = field(default_factory=dict)  # None: behind the action
    came: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])  # and what was left, in order

    def take(self, left: int, came: int | None) -> None:
        self.by[left] = came
        if came is not None:
            insort(self.came, (came, left))

    def left_for(self, point: int) -> int | None:
        """What should be left for it to come there, as far as that is known; None if there is nothing that it could be.
        A counter has no more occurrences than cycles, and stands still while the driver or KVM has stopped it."""
        place = bisect_left(self.came, (point, 0))
        earlier, least = self.came[place - 1]
        if place < len(self.came):
            later, most = self.came[place]
            left = most - (later - point)
        else:
            left = least + (point - earlier)
            most = min((one for one, came in self.by.items() if came is None), default=left + 1)
        if left >= most or (left in self.by and left > least):
            left = (least + most) // 2
        return left if left > least and left not in self.by else None


class Overflows:
    """Of one world and deck."""

    def __init__(self, play: Play) -> None:
        self.play = play
        runs = [move for move in play.stock.actions if move.spec.action == "run"]
        # Who runs before an action: the vCPU that is loaded, at EL1, where an event of kernels counts, or the host.
        self.of_vcpus = {move.spec.target: move for move in runs if move.spec.el == 1 and not _of_host(move)}
        self.of_host = {move.spec.target: move for move in runs if move.spec.el == 2 and _of_host(move)}
        costs = play.stock.experiment.costs
        self.access = max(costs["mrs"], costs["msr"])  # cycles

    async def each(self, action: Move, come_to: ComeTo) -> AsyncGenerator[Move, None]:
        """Carry out the action, which is possible where `come_to` leads, with the overflow within each operation of it,
        within each once; what has passed before. Raises SimulationError."""
        way = await self.way(action, come_to)
        if way is None:
            return
        landed, hit = Landed(), set[int]()
        for number, point in enumerate(way.points):
            for _ in range(_TRIES):
                if number in hit:
                    break
                left = landed.left_for(point)
                if left is None or left >= way.ahead:
                    break
                passes = way.passes(left)
                came = await self._carry_out(way, passes, action, come_to)
                landed.take(left, came)
                within = len(way.points) if came is None else bisect_left(way.points, came)
                if within < len(way.points) and within not in hit:
                    hit.add(within)
                    yield passes

    async def _carry_out(self, way: Way, passes: Move, action: Move, come_to: ComeTo) -> int | None:
        """When the overflow came, in cycles from where the action began; None if it did not."""
        play, pcpu = self.play, way.pcpu
        await come_to()
        if not await play.act((passes,)):
            return None
        began = pcpu.now
        if not await play.act((action,)):
            return None
        raised = pcpu.raised[0] if pcpu.raised else play.simulation.board.machine.raised(pcpu.cpu)
        return raised - began if raised > began else None

    async def way(self, action: Move, come_to: ComeTo) -> Way | None:
        """None if no overflow is on its way, or nobody does anything."""
        play = self.play
        if action.spec.action == "run":
            return None  # there it comes by itself
        await come_to()
        pcpu = self._pcpu(action)
        run = None if pcpu is None else self._run(pcpu)
        if pcpu is None or run is None or not await play.act((_for(run, _LONG, until_event=True),)):
            return None
        (given,) = play.given or ({},)
        if not given.get("interrupted"):
            return None
        points = await self._points(pcpu, action, come_to)
        return Way(pcpu, run, int(given["cycles"]), points) if points else None

    async def _points(self, pcpu: SteppedPCpu, action: Move, come_to: ComeTo) -> list[int]:
        """In cycles from where it begins: the end of each access, by KVM or the host's perf, and of each entry, up to
        which the flag and the line change nothing; and, where more than an access lies between two, behind the first,
        for there interrupts may be taken between them. What is behind an overflow of this run's own is of no account:
        in no other one does it come later."""
        machine = self.play.simulation.board.machine
        await come_to()
        began = pcpu.now
        machine.observe(True)
        try:
            possible = await self.play.act((action,))
            ends = {cycle - began for cpu, cycle, *_ in machine.observed() if cpu == pcpu.cpu}
        finally:
            machine.observe(False)
        points, last = list[int](), 0
        for end in sorted(ends | {pcpu.now - began}) if possible else ():
            if end - last > self.access:
                points.append(last + 1)
            if end > last:
                points.append(end)
            last = end
        return points

    def _pcpu(self, action: Move) -> SteppedPCpu | None:
        """On which it has KVM or the host's perf do something; None of what is a VM's."""
        script, target = self.play.script, action.spec.target
        if _of_host(action):
            return script.pcpus[target]
        if action.spec.action in PERF:
            return script.of_host.pcpu_of(action.spec)
        return script.vcpus[target].here if "/" in action.spec.party else None

    def _run(self, pcpu: SteppedPCpu) -> Move | None:
        vcpu = self.play.script.current(pcpu)
        return self.of_host.get(pcpu.cpu) if vcpu is None else self.of_vcpus.get(vcpu.id)


def _of_host(move: Move) -> bool:
    return move.spec.party.startswith("host/")


def _for(run: Move, cycles: int, *, until_event: bool = False) -> Move:
    step = {key: value for key, value in run.step.items() if key != "until"} | {"cycles": cycles}
    if until_event:
        step["until"] = "event"
    return Move(step, replace(run.spec, cycles=cycles, until_event=until_event))
