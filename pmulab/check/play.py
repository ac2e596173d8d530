"""One world of a search in motion: its actors in this process, one action after the other, and what the judge finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import sub
from pathlib import Path as FilePath

from pmulab.check.accesses import Step
from pmulab.check.worlds import Deck, World, scenario_text
from pmulab.scenario.resolve import resolve
from services.embedded import Embedded
from services.experiment import Experiment, StepSpec
from services.kvm.declared import reasons
from services.kvm.errors import Livelock
from services.kvm.stepping import ImpossibleStep, Outcome
from services.result import Violation
from services.result.judged import towards
from services.state import Saved
from services.tables import Document

AMID = ("preempt", "tick", "mux", "call", "nmi", "perf_open", "perf_close", "perf_read", "perf_enable", "perf_disable")


@dataclass(frozen=True, slots=True)
class Move:
    """A step, as a scenario has it and as kvm takes it."""

    step: Step
    spec: StepSpec

    def at(self, operation: int) -> Move:
        """The same before that operation of KVM's, in what the next step has it do."""
        return Move({**self.step, "at": operation}, replace(self.spec, at=operation))

    @property
    def may_come_amid(self) -> bool:
        return self.spec.action in AMID


Moves = tuple[Move, ...]  # an action: the last one, and before it what comes amid it
Path = tuple[Moves, ...]


def steps_of(path: Path) -> tuple[Step, ...]:
    """As a scenario has them: what comes amid an action stands before it."""
    return tuple(move.step for moves in path for move in moves)


@dataclass(frozen=True, slots=True)
class Found:
    """A violation, at the end of a path from the boot."""

    path: Path
    violation: Violation


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is to a search of one deck in one world under one design."""

    world: World
    deck: Deck
    experiment: Experiment  # with a step for each action, in no order that says anything
    opening: Path
    actions: tuple[Move, ...]

    @classmethod
    def of(cls, world: World, deck: Deck, design: str) -> Stock:
        """Raises UserError for a design that cannot be had there."""
        opening, actions = deck.opening_in(world), deck.actions_in(world)
        ordered = sorted(_different((*opening, *actions)), key=_rank)
        text = scenario_text(world, ordered)
        (experiment,) = resolve(
            Document(f"{deck.name} in {world.name}", FilePath(), text), [design], None, False
        ).experiments
        by_step = {_text(step): Move(step, spec) for step, spec in zip(ordered, experiment.steps, strict=True)}
        return cls(
            world,
            deck,
            experiment,
            tuple((by_step[_text(step)],) for step in opening),
            tuple(by_step[_text(step)] for step in actions),
        )


def _text(step: Step) -> str:
    return repr(sorted(step.items(), key=lambda item: item[0]))


def _different(steps: Iterable[Step]) -> list[Step]:
    return list({_text(step): step for step in steps}.values())


# A scenario's steps are looked at in their order: what has yet to be created, opened or switched to is refused.
_ORDER = (
    "create",
    "perf_open",
    "set_nr_counters",
    "filter",
    "switch",
    "",
    "wake",
    "offline",
    "online",
    "perf_close",
    "kill",
)


def _rank(step: Step) -> int:
    action = step["action"]
    return _ORDER.index(action if action in _ORDER else "")


class Play:
    """A world in motion."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.embedded = Embedded.of(stock.experiment)
        self.simulation = self.embedded.simulation
        script = self.simulation.script
        assert script is not None  # there are steps
        self.script = script
        self.sessions: frozenset[str] = frozenset()  # those that are open
        self.opened: frozenset[str] = frozenset()  # and by the steps alone, whether KVM came to them or not
        self.path: tuple[StepSpec, ...] = ()  # all that has been carried out
        self.doing: Sequence[Move] = ()  # the action that is carried out, or was last
        self.over = False  # nobody gets anywhere any more
        self.given: Sequence[Outcome] = ()  # by each move of the last action
        self._premises: Sequence[int] = ()  # how often each was met, when that was asked for last
        self._seen = 0  # violations, when what was found was asked for last

    async def boot(self) -> None:
        """Every pCPU, and none of the experiment's steps. Raises SimulationError."""
        self.script.steps = ()
        for pcpu in self.script.pcpus:
            await pcpu.bring_up()
        self._premises = self.simulation.board.machine.premises()

    async def act(self, moves: Sequence[Move]) -> bool:
        """Carry out the last move, amid which all others come; False if that cannot be. Raises SimulationError."""
        self.doing, opened = moves, self.opened
        for move in moves:
            if not self._may_be(move.spec, opened):
                return False
            opened = _after(move.spec, opened)
        if self.script.of_vcpus.ruled_out(moves[-1].spec):
            return False
        try:
            given = await self.script.carry_out([move.spec for move in moves])
        except ImpossibleStep:
            return False
        except Livelock as exc:
            if not exc.violated:
                raise
            self.over, self.given = True, ()
            self.path += tuple(move.spec for move in moves)
            return True
        finally:
            self.simulation.entered = self.simulation.board.preempted > 0
        self.opened = opened
        self.path += tuple(move.spec for move in moves)
        self.given = self._by_move(given, len(moves))
        for move, outcome in zip(moves, self.given, strict=True):
            if outcome.get("reached", True):
                self.sessions = _after(move.spec, self.sessions)
        return True

    @staticmethod
    def _by_move(given: Sequence[Outcome], moves: int) -> list[Outcome]:
        """What each move gave: nothing, of one that a vCPU has been preempted amid. When that goes on later, what it
        gives comes with the number that it had then, behind what is armed."""
        found: dict[int, Outcome] = {}
        for outcome in given:
            found.setdefault(int(outcome["step"]), outcome)
        return [found.get(number, {}) for number in range(1, moves + 1)]

    def _may_be(self, spec: StepSpec, opened: frozenset[str]) -> bool:
        """May the session be opened, or asked for? A scenario is read in the order of its steps, too."""
        if spec.action == "perf_open":
            return spec.name not in self.sessions | opened
        return not spec.name or spec.name in self.sessions & opened

    def found(self) -> Iterator[Violation]:
        """What has been found since this was asked last. Raises JudgeFault."""
        seen, self._seen = self._seen, self.simulation.board.machine.different_violations()
        if self._seen > seen:
            for one in self.simulation.judging.found()["violations"][seen:]:
                yield replace(one, declared=self._why(one))

    def met(self) -> list[int]:
        """How often the premise of each invariant was met since this was asked last."""
        before, self._premises = self._premises, self.simulation.board.machine.premises()
        return [*map(sub, self._premises, before)]

    def pass_over(self) -> None:
        """What has been found and met up to now is not asked for any more."""
        machine = self.simulation.board.machine
        self._seen, self._premises = machine.different_violations(), machine.premises()

    def _why(self, one: Violation) -> str:
        """Why the design gives it up, by what has been carried out: the experiment has every action of the deck."""
        experiment = replace(self.stock.experiment, steps=self.path)
        given_up = reasons(self.simulation.design.declared, experiment)
        return given_up.get((one.invariant, towards(one.victim, one.other), one.kind), "")

    # Its state is data but while a vCPU is preempted amid one of KVM's handlers.

    def save(self) -> Saved:
        return {
            "actors": self.embedded.state(),
            "sessions": self.sessions,
            "opened": self.opened,
            "path": self.path,
            "seen": self._seen,
        }

    def restore(self, saved: Saved) -> None:
        self.embedded.restore(saved["actors"])
        self.sessions, self.opened, self.path = saved["sessions"], saved["opened"], saved["path"]
        self._seen, self.over = saved["seen"], False
        self._premises = self.simulation.board.machine.premises()


def _after(spec: StepSpec, sessions: frozenset[str]) -> frozenset[str]:
    """Those that are open behind a step."""
    if spec.action == "perf_open":
        return sessions | {spec.name}
    return sessions - {spec.name} if spec.action == "perf_close" else sessions
