"""`pmulab check`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import orjson

from pmulab.check import mail
from pmulab.check.finding import Finding, replayed, shortest_of
from pmulab.check.job import Job, Searched
from pmulab.check.pool import searched, stop
from pmulab.check.worlds import Deck, World, decks, worlds
from pmulab.designs import label, parse_design
from pmulab.errors import SearchError
from pmulab.exit_status import FAILED, INTERRUPTED, OK, UNSEARCHED
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
    at_once = arguments.jobs or len(os.sched_getaffinity(0))
    if arguments.seconds is not None:
        each = arguments.seconds * min(at_once, len(jobs)) / len(jobs)
        jobs = [_timed(job, each) for job in jobs]
    _writable(Path(arguments.out))
    stopped = stop()
    done: dict[int, Searched] = {}
    with _ended_by_ctrl_c(stopped):
        for number, one in searched(jobs, at_once, stopped):
            done[number] = one
            _tell(len(done), len(jobs), one)
    _tell(0, 0, None)
    every = [done[number] for number in sorted(done)]
    found, problems = _report(arguments, designs, every)
    for problem in problems:
        sys.stderr.write(f"pmulab: {problem}\n")
    if stopped.is_set():
        whole = sum(not one.cut for one in every)
        sys.stderr.write(f"pmulab: interrupted: {whole} of {len(jobs)} decks were searched to their end\n")
        return INTERRUPTED
    if problems:
        return UNSEARCHED
    return FAILED if found else OK


@contextmanager
def _ended_by_ctrl_c(stopped: Event) -> Iterator[None]:
    """The first has the search end with what it has, the second at once."""

    def interrupted(_signal: int, _frame: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _writable(folder: Path) -> None:
    """Refuse a directory that nothing can be written to, before the search. Raises UserError."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"--out {folder}", "not a directory that can be written to", "give another one")


def _design(text: str) -> str:
    try:
        return label(parse_design(text))
    except DesignError as error:
        raise error.within(text) from None


def _jobs(arguments: argparse.Namespace, designs: list[str]) -> list[Job]:
    """In the order in which they are reported. Raises UserError."""
    if arguments.cpu is not None:
        load(arguments.cpu)
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


def _timed(job: Job, seconds: float) -> Job:
    return replace(job, walks=_UNBOUNDED, seconds=seconds)


def _report(arguments: argparse.Namespace, designs: list[str], done: list[Searched]) -> tuple[int, list[str]]:
    """Print it; how many findings there are, and what could not be carried out. Raises UserError."""
    blocks: list[str] = []
    as_json: list[dict[str, Any]] = []
    problems = [one.failed for one in done if one.failed]
    total = 0
    for design in designs:
        of_design = [one for one in done if one.job.design == design]
        found: list[Finding] = []
        for one, decks_of in shortest_of(of_design):
            try:
                found.append(replayed(design, one, decks_of, Path(arguments.out)))
            except SearchError as error:
                problems.append(str(error))
        total += len(found)
        blocks += [*map(mail.mail, found), mail.summary(design, of_design, len(found))]
        as_json.append(mail.as_json(design, of_design, found))
        if not any(one.transitions + one.actions or one.cut for one in of_design):
            problems.append(f"{design}: nothing was searched")
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(as_json, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        sys.stdout.write("\n\n".join(blocks) + "\n")
    sys.stdout.flush()
    return total, problems


def _tell(done: int, jobs: int, last: Searched | None) -> None:
    """A line on a terminal, drawn over the one before; cleared at the end."""
    if sys.stderr.isatty():
        line = "" if last is None else f"{done} of {jobs} decks, {last.job.deck.name} in {last.job.world.name}"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
