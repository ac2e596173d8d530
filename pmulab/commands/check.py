"""`pmulab check`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import orjson

from pmulab.check import mail
from pmulab.check.finding import Finding, Problem, finished, in_order, shortest_of, written
from pmulab.check.job import Job, Searched
from pmulab.check.pool import Lost, Stop, carried_out, searched
from pmulab.check.worlds import Deck, World, decks, worlds
from pmulab.designs import label, parse_design
from pmulab.exit_status import FAILED, INTERRUPTED, OK, TERMINATED, UNSEARCHED
from pmulab.progress import Line
from services.cores import load
from services.errors import UserError
from services.kvm.vpmu import DesignError
from services.tables import near

_UNBOUNDED = 1 << 40  # walks, where time is what bounds them


def main(arguments: argparse.Namespace) -> int:
    designs: list[str] = []
    for text in arguments.design:
        design = _design(text)
        if design in designs:
            raise UserError(text, "this design is given twice", "leave one out")
        designs.append(design)
    jobs = _jobs(arguments, designs)
    folder = Path(arguments.out)
    _writable(folder)
    with _ended_by_signals() as stopped, Line() as line:
        run = _Run(jobs, arguments.jobs or len(os.sched_getaffinity(0)), stopped, line)
        done = run.search(arguments.seconds)
        run.finish(designs, done, folder)
    found = {design: [written(one) for one in in_order(run.found[design])] for design in designs}
    _print(found, done, folder, as_json=arguments.json)
    problems = [*_problems(designs, done), *run.problems]
    for problem in problems:
        sys.stderr.write(f"{problem.traceback}pmulab: {problem.text}\n")
    unwritten = [one for of in found.values() for one in of if one.unwritten]
    if unwritten:
        sys.stderr.write(f"pmulab: --out {folder}: {len(unwritten)} not written: {unwritten[0].unwritten}\n")
    if stopped.is_set():
        sys.stderr.write(f"pmulab: interrupted: {run.interrupted(done)}\n")
        return INTERRUPTED
    if problems:
        return UNSEARCHED
    return FAILED if any(found.values()) else OK


@contextmanager
def _ended_by_signals() -> Iterator[Stop]:
    """The first Ctrl-C has what is under way end with what it has; the second, or SIGTERM, ends all at once."""
    stopped = Stop()

    def interrupted(_signal: int, _frame: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    def terminated(_signal: int, _frame: object) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGINT, interrupted), signal.signal(signal.SIGTERM, terminated)
    try:
        yield stopped
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


class _Run:
    """A search, and what is made of its findings."""

    def __init__(self, jobs: Sequence[Job], at_once: int, stopped: Stop, line: Line) -> None:
        self.jobs = jobs
        self.at_once = at_once
        self.stopped = stopped
        self.line = line
        self.found: dict[str, list[Finding]] = {}  # by design
        self.problems: list[Problem] = []
        self.findings = 0  # that there are

    def search(self, seconds: float | None) -> list[Searched]:
        """What comes of each job."""
        jobs, done, began = self.jobs, dict[int, Searched](), time.monotonic()
        if seconds is not None:
            jobs = [replace(job, walks=_UNBOUNDED) for job in jobs]

        def so_far(under_way: Mapping[int, str]) -> str:
            found = len({(one.job.design, of.signature) for one in done.values() for of in one.found})
            now = "; ".join(f"{jobs[number].place}: {under_way[number] or 'begun'}" for number in sorted(under_way))
            return f"{len(done)} of {len(jobs)} parts, {found} found, {time.monotonic() - began:.0f} s; {now}"

        def draw(under_way: Mapping[int, str]) -> None:
            self.line.draw(lambda: so_far(under_way))

        with closing(searched(jobs, self.at_once, self.stopped, seconds, draw)) as ended:
            for number, one in ended:
                done[number] = one
        return [done[number] for number in sorted(done)]

    def finish(self, designs: Sequence[str], done: Sequence[Searched], folder: Path) -> None:
        """Make what was found short and replay it. A Ctrl-C that comes meanwhile leaves out what has not begun."""
        self.found = {design: [] for design in designs}
        todo = [
            (design, one, of, folder)
            for design in designs
            for one, of in shortest_of(one for one in done if one.job.design == design)
        ]
        self.findings = len(todo)
        after = self.stopped.is_set()
        ended = 0
        problems: dict[int, Problem] = {}

        def draw(_under_way: Mapping[int, str]) -> None:
            self.line.draw(lambda: f"{ended} of {len(todo)} findings replayed, and their causes looked for")

        coming = takewhile(lambda _: after or not self.stopped.is_set(), todo)
        with closing(carried_out(finished, coming, self.at_once, draw)) as made:
            for number, one in made:
                ended += 1
                design, shortest, *_ = todo[number]
                if isinstance(one, Finding):
                    self.found[design].append(one)
                elif isinstance(one, Lost):
                    problems[number] = Problem(f"{design}, {shortest}: {one.why}")
                else:
                    problems[number] = one
        self.problems = [problems[number] for number in sorted(problems)]

    def interrupted(self, done: Sequence[Searched]) -> str:
        """What had been done by then."""
        whole = sum(not one.cut for one in done)
        if whole < len(self.jobs):
            return f"{whole} of {len(self.jobs)} parts were searched to their end"
        made = sum(map(len, self.found.values()))
        return f"{made} of {self.findings} findings were replayed"


def _writable(folder: Path) -> None:
    """Refuse a directory that nothing can be written to, before the search. Raises UserError."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    remedy = "give another one"
    if not there.is_dir():
        raise UserError(f"--out {folder}", "not a directory that can be written to", remedy)
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise UserError(f"--out {folder}", f"nothing can be written to {there}: {error.strerror}", remedy) from None


def _design(text: str) -> str:
    try:
        return label(parse_design(text))
    except DesignError as error:
        raise error.within(text) from None


def _jobs(arguments: argparse.Namespace, designs: list[str]) -> list[Job]:
    """In the order in which they are reported. Raises UserError."""
    if arguments.cpu is not None:
        load(arguments.cpu)
    for option, names in (("--deck", arguments.deck), ("--world", arguments.world)):
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{option} {name}", "it is given twice", "leave one out")
    chosen = [_deck(name) for name in arguments.deck] or list(decks().values())
    every = [
        Job(
            design,
            world.of(arguments.cpu, arguments.counters),
            deck,
            arguments.depth,
            arguments.interruptions,
            arguments.walks,
            arguments.seed,
            None,
            arguments.preemptions,
        )
        for design in designs
        for deck in chosen
        for world in _worlds(deck, arguments.world)
    ]
    if not every:
        raise UserError("--world", "none of the decks is in any of these worlds", "leave out --world, or --deck")
    return every


def _deck(name: str) -> Deck:
    if name not in decks():
        raise UserError(f"--deck {name}", "there is no such deck", near(name, decks()))
    return decks()[name]


def _worlds(deck: Deck, chosen: list[str]) -> list[World]:
    for name in chosen:
        if name not in worlds():
            raise UserError(f"--world {name}", "there is no such world", near(name, worlds()))
    return [worlds()[name] for name in deck.worlds if not chosen or name in chosen]


def _problems(designs: Sequence[str], done: Sequence[Searched]) -> Iterator[Problem]:
    """What could not be searched: a line for each reason, however many parts have it."""
    for design in designs:
        of_design = [one for one in done if one.job.design == design]
        failed: dict[str, list[Searched]] = {}
        for one in of_design:
            if one.failed:
                failed.setdefault(one.failed, []).append(one)
        for first, *others in failed.values():
            more = f"; and {len(others)} more parts likewise" if others else ""
            yield Problem(f"{first.problem}{more}", first.traceback)
        if not any(one.anything or one.cut for one in of_design):
            yield Problem(f"{design}: nothing was searched")


def _print(found: Mapping[str, Sequence[Finding]], done: Sequence[Searched], folder: Path, *, as_json: bool) -> None:
    of = {design: [one for one in done if one.job.design == design] for design in found}
    if as_json:
        every = [mail.as_json(design, of[design], findings) for design, findings in found.items()]
        sys.stdout.buffer.write(orjson.dumps(every, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        blocks: list[str] = []
        for design, findings in found.items():
            blocks += [*map(mail.mail, findings), mail.summary(design, of[design], len(findings))]
        others = _others(folder, {one.file.name for findings in found.values() for one in findings})
        sys.stdout.write("\n\n".join([*blocks, *others]) + "\n")
    sys.stdout.flush()


def _others(folder: Path, own: set[str]) -> Iterator[str]:
    """Files of earlier searches are kept, and told from those of this one."""
    others = sum(file.name not in own for file in folder.glob("I*-*.toml"))
    if others:
        yield f"{folder} also has {others} scenario{'s' if others > 1 else ''} that this search has not found"
