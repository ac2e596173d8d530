"""The long search for violations of the reference designs, and its page, docs/check-long.md.

    python -m docs.check_long                   all that is not done yet; hours
    python -m docs.check_long --seconds 3000    as much of it as that allows
    python -m docs.check_long --page            the page alone

Each deck is gone through in each of its worlds exhaustively, and at random, with every number of counters. What is
done is a line of docs/check-long.jsonl, with the commit that it was done at, and is not done again, unless --anew is
given or something was found, or failed: that stands on the page until the same part is silent. Exit status 1 if there
is any.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from docs.revision import revision
from pmulab.check.job import Job, Searched
from pmulab.check.pool import Stop, searched
from pmulab.check.worlds import decks, worlds
from pmulab.columns import align
from services.judge.invariants import INVARIANTS

PAGE = Path(__file__).with_name("check-long.md")
DONE = Path(__file__).with_name("check-long.jsonl")

DESIGNS = ("partitioned", "partitioned,reservation=static", "emulated")
COUNTERS = (None, 6, 31)  # of each pCPU; None: each world's own, which is 4 for most
DEPTH, PREEMPTIONS = 8, 3
INTERRUPTED = 4  # the depth where once on a path something comes amid a step, in the decks that have that
WALKS, SEEDS = 2_500, 2  # of each deck in each of its worlds: some 200,000 actions

Line = dict[str, Any]


def jobs() -> Iterator[Job]:
    """The exhaustive parts of each, and then the random ones, the worlds' own number of counters first."""
    parts = [(DEPTH, 0, 0, 1), (INTERRUPTED, 1, 0, 1), *((0, 0, WALKS, seed) for seed in range(1, SEEDS + 1))]
    for counters in COUNTERS:
        for depth, interruptions, walks, seed in parts:
            for design in DESIGNS:
                for deck in decks().values():
                    if depth and deck.every_register:  # that is walked through alone
                        continue
                    if interruptions and not (deck.amid or deck.overflows):
                        continue
                    for name in deck.worlds:
                        world = worlds()[name].of(None, counters)
                        yield Job(design, world, deck, depth, interruptions, walks, seed, None, PREEMPTIONS)


def name(job: Job) -> str:
    """By which a job is known to be done."""
    counters = job.world.sections["machine"]["counters"]
    how = f"depth {job.depth}, {job.preemptions} preemptions" if job.depth else f"{job.walks} walks, seed {job.seed}"
    if job.interruptions:
        how += f", {job.interruptions} amid a step"
    return f"{job.design}; {job.deck.name} in {job.world.name}, {counters} counters; {how}"


def line_of(one: Searched, commit: str) -> Line:
    job = one.job
    return {
        "job": name(job),
        "design": job.design,
        "counters": job.world.sections["machine"]["counters"],
        "deck": job.deck.name,
        "world": job.world.name,
        "refused": one.refused,
        "failed": one.failed,
        "found": [str(found.signature) for found in one.found],
        "interruptions": job.interruptions,
        "states": one.states,
        "transitions": one.transitions,
        "depth": one.depth,
        "closed": one.closed,
        "walks": one.walks,
        "actions": one.actions,
        "seconds": round(one.seconds, 1),
        "premises": dict(one.coverage.premises),
        "revision": commit,
    }


def done() -> list[Line]:
    """What has been done, in the order of `jobs`, and of each what came of it last."""
    lines = [orjson.loads(line) for line in DONE.read_bytes().splitlines()] if DONE.exists() else []
    last: dict[str, Line] = {line["job"]: line for line in lines}
    return [last[job] for job in map(name, jobs()) if job in last]


def _wrong(line: Line) -> bool:
    return bool(line["found"] or line["failed"])


def left() -> list[Job]:
    """What is not done yet, or not silent."""
    silent = {line["job"] for line in done() if not _wrong(line)}
    return [job for job in jobs() if name(job) not in silent]


def search(seconds: float | None, anew: bool) -> int:
    """Do what is left; of how many parts something was found, or failed."""
    if anew:
        DONE.unlink(missing_ok=True)
    wanted = left()
    of = revision()
    stopped = Stop()
    if seconds is not None:
        signal.signal(signal.SIGALRM, lambda *_: stopped.set())
        signal.setitimer(signal.ITIMER_REAL, seconds)
    with DONE.open("ab") as file:
        for number, (_, one) in enumerate(searched(wanted, len(os.sched_getaffinity(0)), stopped), 1):
            if one.cut:
                continue
            line = line_of(one, of)
            file.write(orjson.dumps(line) + b"\n")
            file.flush()
            if _wrong(line):
                print(one.problem if one.failed else f"{line['job']}: found {', '.join(line['found'])}", flush=True)
            if sys.stderr.isatty():
                sys.stderr.write(f"\r\x1b[K{number} of {len(wanted)}: {name(one.job)}")
    return sum(map(_wrong, done()))


def _sum(lines: Iterable[Line], field: str) -> int:
    return sum(int(line[field]) for line in lines)


_TEXT = """\
# The long search

`make check-long` looks for violations of the designs that should have none: in each deck of `pmulab check`, in each \
of its worlds, exhaustively to depth {depth} with at most {preemptions} preemptions of a vCPU on a path, and at \
random. In the decks that have something come amid KVM's own steps, it comes once on each path to depth {interrupted} \
besides. The deck `registers` is walked through at random alone. The worlds have CPUs with and without FEAT_FGT, and \
guests without event counters with and without FEAT_HPMN0. Each is searched with its own number of event counters, \
with 6 and with 31.

Together: **{states:,} states** (by a key without clocks and totals; distinct within each part), {transitions:,} \
transitions and **{actions:,} random actions**; **{found:,} undeclared violations**{where}. {failed:,} parts could \
not be carried out. {done:,} of {all:,} parts are done, in {hours:.1f} hours of one core, at {revisions}.

```
{designs}
```

The depth up to which each deck is complete with nothing amid a step, and its states, with the worlds' own number of \
counters; `all`: there are no others.

```
{decks}
```

Premises met: {premises}.
"""


def page() -> str:
    """The figures of what has been done."""
    finished = done()
    lines = [line for line in finished if not line["refused"]]
    exhaustive, walked = [line for line in lines if line["depth"]], [line for line in lines if line["walks"]]
    deep = [line for line in exhaustive if not line["interruptions"]]
    return _TEXT.format(
        depth=DEPTH,
        interrupted=INTERRUPTED,
        preemptions=PREEMPTIONS,
        states=_sum(exhaustive, "states"),
        transitions=_sum(exhaustive, "transitions"),
        actions=_sum(walked, "actions"),
        found=sum(len(line["found"]) for line in lines),
        where="".join(f"; in {line['job']}: {', '.join(line['found'])}" for line in lines if line["found"]),
        failed=sum(bool(line["failed"]) for line in lines),
        done=len(finished),
        all=sum(1 for _ in jobs()),
        hours=_sum(lines, "seconds") / 3600,
        revisions=", ".join(dict.fromkeys(line["revision"] for line in lines)) or "no commit",
        designs=align(_rows(deep, walked), left=2),
        decks=align(_decks(deep), left=2),
        premises=", ".join(f"{name} {sum(line['premises'].get(name, 0) for line in lines):,}" for name in INVARIANTS),
    )


def _rows(deep: list[Line], walked: list[Line]) -> list[list[str]]:
    rows = [["design", "counters", "parts", "states", "transitions", "least depth", "random actions"]]
    for design in DESIGNS:
        for counters in COUNTERS:
            of, at_random = (
                [line for line in some if line["design"] == design and _has(line, counters)] for some in (deep, walked)
            )
            if of or at_random:
                open_ones = [line["depth"] for line in of if not line["closed"]]
                rows.append(
                    [
                        design,
                        "own" if counters is None else str(counters),
                        str(len(of) + len(at_random)),
                        f"{_sum(of, 'states'):,}",
                        f"{_sum(of, 'transitions'):,}",
                        str(min(open_ones)) if open_ones else "all" if of else "",
                        f"{_sum(at_random, 'actions'):,}",
                    ]
                )
    return rows


def _has(line: Line, counters: int | None) -> bool:
    return bool(
        line["counters"] == (worlds()[line["world"]].sections["machine"]["counters"] if counters is None else counters)
    )


def _decks(deep: list[Line]) -> list[list[str]]:
    rows = [["deck", "world", *DESIGNS]]
    of = {(line["deck"], line["world"], line["design"]): line for line in deep if _has(line, None)}
    for deck in decks().values():
        for world in deck.worlds:
            cells = []
            for design in DESIGNS:
                line = of.get((deck.name, world, design))
                cells.append(
                    "" if line is None else f"{line['depth']}{', all' if line['closed'] else ''}: {line['states']:,}"
                )
            if any(cells):
                rows.append([deck.name, world, *cells])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.check_long", description="The long search.")
    parser.add_argument("--seconds", type=float, help="as much as that allows")
    parser.add_argument("--anew", action="store_true", help="forget what is done")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    arguments = parser.parse_args()
    if arguments.seconds is not None and not 0 < arguments.seconds < 1e9:
        parser.error(f"--seconds {arguments.seconds:g}: give a time that is to pass")
    wrong = 0 if arguments.page else search(arguments.seconds, arguments.anew)
    PAGE.write_text(page())
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
