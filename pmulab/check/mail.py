"""How a search reads: each finding as a mail to a list would have it, and what was covered."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pmulab.check.cause import Cause, Part
from pmulab.check.coverage import Goal
from pmulab.check.finding import Finding, rows
from pmulab.check.job import Searched
from pmulab.columns import WIDTH, align
from services.judge.invariants import INVARIANTS
from services.judge.types import NOBODY

# Of what no party had before the guest has found it: a counter that is on the CPU, and was not loaded, say.
_NOBODYS = "Neither the host nor a vCPU had a value of its own in it: this was left there, or counted since. "

_NEEDED = "each step is needed: without any one of them it is gone"
_FEWEST = "; and no fewer of these steps lead to it, in any order"


def mail(finding: Finding) -> str:
    """One finding."""
    found, shortest = finding.violation, finding.shortest
    invariant = INVARIANTS[found.invariant]
    lines = [
        f"{found.invariant} {found.kind}: {found.broken}",
        f"  {finding.design}, {shortest.world.what}",
        f"  {len(shortest.steps)} steps, made of {shortest.length} actions, after {shortest.after:,}",
        "",
        *(f"  {line}" for line in align([*rows(finding)], left=9).splitlines()),
        "",
        *_wrapped("why", f"{invariant.claim}. {_compared(finding)}{found.source}."),
        *_wrapped("window", "none was open" if found.window is None else f"beyond {found.window!r}"),
        *_wrapped("seen", f"pCPU {found.cpu}, cycle {found.cycle:,}; victim {found.victim}, other party {found.other}"),
        *_counted(finding),
        *_because(finding.cause),
        *_wrapped("decks", ", ".join(finding.decks)),
        *_wrapped("not it", _NEEDED + _FEWEST * shortest.fewest),
        *_replay(finding),
    ]
    return "\n".join(lines)


def _replay(finding: Finding) -> list[str]:
    if finding.unwritten:
        return _wrapped("replay", f"{finding.file} could not be written: {finding.unwritten}")
    return _wrapped("replay", f"pmulab run {shlex.quote(str(finding.file))} --why   (digest {finding.digest[:12]})")


def _compared(finding: Finding) -> str:
    found = finding.violation
    register = f"{found.register}: " if found.register else ""
    compared = f"{register}{found.compared}. " if found.compared else ""
    return compared + _NOBODYS if found.invariant == "I1" and found.other == NOBODY else compared


def _counted(finding: Finding) -> Iterator[str]:
    for one in finding.violation.counted:
        after = f" after {one.after}" if one.after else ""
        yield from _wrapped("counted", f"{one.party} was counted in it for {one.cycles:,} cycles{after}")


def _because(cause: Cause | None) -> Iterator[str]:
    if cause is None:
        return
    if not cause.parts:
        yield from _wrapped("because", "not isolated: it is not found with the steps taken one by one")
        return
    text = f"of {cause.whose}'s {' and '.join(map(_does, cause.parts))}"
    if cause.gone:
        text += f"; with {cause.instead}'s instead it is gone"
    else:
        text += f"; with {cause.instead}'s instead others of its steps break it still"
    if cause.others:
        text += f"; as much so of {', or '.join(map(_does, cause.others))}"
    yield from _wrapped("because", text)
    yield f"  {'alone':<8}{cause.alone}"


def _does(part: Part) -> str:
    return f"{part.what} ({part.does})" if part.does else part.what


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {head:<8}", subsequent_indent=" " * 10)


def summary(design: str, searched: Sequence[Searched], findings: int) -> str:
    """What was searched under one design, and what not."""
    done = [one for one in searched if one.anything]
    table = [["deck", "world", "states", "transitions", "depth", "walks", "actions", "s"]]
    for one in done:
        job = one.job
        depth = f"{one.depth}{', all' if one.closed else ''}"
        exhaustive = [f"{one.states:,}", f"{one.transitions:,}", depth]
        walks = [f"{one.walks:,}", f"{one.actions:,}", f"{one.seconds:.1f}"]
        table.append([job.deck.name, job.world.name, *exhaustive, *walks])
    worlds = {one.job.world.name: one.job.world for one in done}
    lines = [
        f"{design}: {_found(done, findings)}; {_parts(searched)}{_rates(done)}",
        *([align(table, left=2)] if done else []),
        *([""] if worlds else []),
        *(line for world in worlds.values() for line in _listed(world.name, [world.contents])),
        *_not_done("cannot be had", [(one, one.refused) for one in searched if one.refused]),
        *_not_done("not carried out", [(one, one.failed) for one in searched if one.failed]),
        *(_covered(done) if done else ()),
    ]
    return "\n".join(lines)


def _found(done: Sequence[Searched], findings: int) -> str:
    return f"{findings or 'nothing'} found" if done else "nothing was searched"


def _parts(searched: Sequence[Searched]) -> str:
    """How many were searched of all, and why the others were not, or not to their end."""
    without = {
        "refused": sum(bool(one.refused) for one in searched),
        "not carried out": sum(bool(one.failed) for one in searched),
        "interrupted": sum(one.cut for one in searched),
        "without time": sum(one.late for one in searched),
    }
    whole = sum(one.anything and not (one.failed or one.cut) for one in searched)
    text = f"{whole} of {len(searched)} parts searched"
    why = ", ".join(f"{count} {what}" for what, count in without.items() if count)
    return f"{text} ({why})" if why else text


def _rates(done: Sequence[Searched]) -> str:
    """States of what was gone through exhaustively, actions of that and of the walks."""
    if not done:
        return ""
    states, actions = sum(one.states for one in done), sum(one.transitions + one.actions for one in done)
    exhaustive, walks = sum(one.exhaustive_seconds for one in done), sum(one.walk_seconds for one in done)
    return f", {states:,} states{_rate(states, exhaustive)}, {actions:,} actions{_rate(actions, exhaustive + walks)}"


def _rate(count: int, seconds: float) -> str:
    return f" ({count / seconds:,.0f} a second and core)" if seconds else ""


def _not_done(head: str, parts: Sequence[tuple[Searched, str]]) -> Iterator[str]:
    """By the reason, which many of them have."""
    by: dict[str, list[str]] = {}
    for one, why in parts:
        by.setdefault(why, []).append(one.job.place)
    for why, places in by.items():
        yield from _listed(f"{head}, {why}", places)


def _covered(done: Sequence[Searched]) -> Iterator[str]:
    """What "nothing found" rests on: what was not exercised is named first."""
    premises: Counter[str] = Counter()
    windows: Counter[str] = Counter()
    goals: set[str] = set()
    for one in done:
        premises.update(one.coverage.premises)
        windows.update(one.coverage.windows)
        goals |= one.coverage.goals
    missing = [name for name in INVARIANTS if not premises[name]]
    if missing:
        yield from _listed("not exercised", missing)
    not_reached = [goal for goal in Goal if goal not in goals]
    if not_reached:
        yield from _listed("not reached", not_reached)
    unused = [name for name, count in windows.items() if not count]
    if unused:
        yield from _listed("windows not used", unused)
    yield from _listed("premises met", [f"{name} {premises[name]:,}" for name in INVARIANTS if premises[name]])
    walked = [one for one in done if one.actions]
    if walked:
        most = max(walked, key=lambda one: one.coverage.unseen())
        chance = f"{most.coverage.unseen():.2%} ({most.job.place})"
        yield f"an action more comes to something new with a chance of at most {chance}"


def _listed(head: str, names: Sequence[str]) -> list[str]:
    return textwrap.wrap(f"{head}: {', '.join(names)}", WIDTH, subsequent_indent="  ")


def as_json(design: str, searched: Sequence[Searched], findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "design": design,
        "findings": [one.as_json() for one in findings],
        "decks": [
            {
                "deck": one.job.deck.name,
                "world": one.job.world.name,
                "contents": one.job.world.contents,
                "refused": one.refused,
                "failed": one.failed,
                "at": one.at,
                "cut": one.cut,
                "late": one.late,
                "states": one.states,
                "transitions": one.transitions,
                "levels": one.levels,
                "depth": one.depth,
                "closed": one.closed,
                "walks": one.walks,
                "actions": one.actions,
                "seconds": one.seconds,
                "exhaustive_seconds": one.exhaustive_seconds,
                "walk_seconds": one.walk_seconds,
                "premises": one.coverage.premises,
                "windows": one.coverage.windows,
                "goals": sorted(one.coverage.goals),
                "unseen": one.coverage.unseen(),
            }
            for one in searched
        ],
    }
