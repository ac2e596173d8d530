"""What is printed: how many are killed, after how long, by which invariant in which deck, and which are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from pmulab.columns import align
from services.judge.invariants import INVARIANTS
from tests.mutation.hunt import FAULT
from tests.mutation.record import Result, reason, reasons


def lines(results: Sequence[Result], unfinished: int, *, matrix: bool) -> Iterator[str]:
    if matrix:
        yield from _each(results)
        yield ""
    yield align([*_totals(results)], left=1)
    yield ""
    yield from _times(results)
    yield ""
    yield "mutants that are killed, by invariant and deck"
    yield align([*_by_deck(results)], left=1)
    yield ""
    yield from _alone(results)
    yield ""
    yield from _survivors(results)
    if unfinished:
        yield f"{unfinished} mutants are left for the next time"


_PAGE = """\
# What `make mutants` kills

Written by `python -m tests.mutation --page`, which goes on from where it was left: {made:,} mutants of `partitioned`, \
each searched for with up to {seeds} seeds, at {commit}. How they are made, and what the search is: docs/check.md, \
"Scored by mutants".{unfinished}

```
{totals}
```

```
{rest}
```

## Holes

{holes}

## Equivalent

{equivalent}
"""


def page(results: Sequence[Result], unfinished: int, commit: str) -> str:
    """docs/mutation.md."""
    why = reasons()
    told: dict[str, list[Result]] = {}
    hole: dict[str, bool] = {}
    for one in results:
        if one.survives:
            of = reason(one.name, why)
            text = "not explained" if of is None else of.why
            told.setdefault(text, []).append(one)
            hole[text] = of is None or of.hole
    return _PAGE.format(
        made=len(results) + unfinished,
        seeds=max((len(one.kills) for one in results), default=0),
        commit=commit,
        unfinished=f" {unfinished:,} of them are left for the next time." if unfinished else "",
        totals=align([*_totals(results)], left=1),
        rest="\n".join([*_times(results), "", align([*_by_deck(results)], left=1), "", *_alone(results)]),
        holes="\n".join(f"- {text}: {_named(told[text])}" for text in told if hole[text]) or "None.",
        equivalent="\n".join(f"- {text}: {_named(told[text])}" for text in told if not hole[text]) or "None.",
    )


def _named(those: Sequence[Result]) -> str:
    return "; ".join(f"`{one.name}`" for one in those)


def _killed(one: Result) -> str:
    """By an invariant, by a fault alone, or not."""
    if one.survives:
        return "survive"
    return FAULT if set(one.killers) == {FAULT} else "killed"


def _totals(results: Sequence[Result]) -> Iterator[list[str]]:
    why = reasons()
    yield ["kind", "all", "killed", "by a fault alone", "survive", "equivalent", "holes", "unexplained"]
    kinds = [*dict.fromkeys(one.kind for one in results)]
    for kind in [*kinds, "all"]:
        those = [one for one in results if kind in (one.kind, "all")]
        by = Counter(_killed(one) for one in those)
        told = [reason(one.name, why) for one in those if one.survives]
        holes = sum(one is not None and one.hole for one in told)
        unexplained = sum(one is None for one in told)
        equal = len(told) - holes - unexplained
        numbers = (len(those), by["killed"], by[FAULT], by["survive"], equal, holes, unexplained)
        yield [kind, *map(str, numbers)]


def _times(results: Sequence[Result]) -> Iterator[str]:
    """Of those that an invariant kills, over all seeds."""
    found = [
        (kill.actions, kill.seconds, one.name)
        for one in results
        for kill in one.kills.values()
        if kill is not None and FAULT not in kill.by
    ]
    if not found:
        return
    seeds = max(len(one.kills) for one in results)
    actions, seconds = median(one[0] for one in found), median(one[1] for one in found)
    most, slowest = max(found), max(found, key=lambda one: one[1])
    yield f"time to kill, {seeds} seeds: median {actions:,.0f} actions, {seconds:.2f} s; "
    yield f"  worst {most[0]:,} actions ({most[2]}), {slowest[1]:.1f} s ({slowest[2]})"
    some = [one for one in results if not one.survives and None in one.kills.values()]
    if some:
        yield f"  {len(some)} survive some of the seeds: " + "; ".join(one.name for one in some[:5])


def _each(results: Sequence[Result]) -> Iterator[str]:
    for one in results:
        by = "; ".join(f"{name} {', '.join(of)}" for name, of in one.killers.items())
        yield f"{one.kind}: {one.name}: {by or 'survives'}"


def _by_deck(results: Sequence[Result]) -> Iterator[list[str]]:
    counts: Counter[tuple[str, str]] = Counter()
    decks: dict[str, None] = {}
    for one in results:
        for invariant, of in one.killers.items():
            for deck in of:
                counts[invariant, deck] += 1
                decks[deck] = None
    names = [*INVARIANTS, FAULT]
    yield ["", *names]
    for deck in decks:
        yield [deck, *(str(counts[name, deck] or "") for name in names)]


def _alone(results: Sequence[Result]) -> Iterator[str]:
    """Every invariant is to kill a mutant that no other kills."""
    for name in INVARIANTS:
        kills = [one for one in results if name in one.killers]
        only = [one for one in kills if set(one.killers) == {name}]
        alone = [one for one in results if one.alone == (name,)]
        if alone:
            shortest = min(alone, key=lambda one: len(one.name))
            by = ", by steps that no deck has" if shortest.survives else ""
            yield f"{name} alone kills {shortest.name}{by}"
        elif any(one.alone is None for one in only):
            yield f"{name} alone has killed {len(only)}; of some it has not been asked whether another does (--alone)"
        elif kills:
            yield f"{name} is redundant here: another kills what it kills ({len(kills)}), too"
        else:
            yield f"{name} kills none of these"


def unexplained(results: Sequence[Result]) -> list[Result]:
    why = reasons()
    return [one for one in results if one.survives and reason(one.name, why) is None]


def _survivors(results: Sequence[Result]) -> Iterator[str]:
    why = reasons()
    for one in results:
        if one.survives:
            told = reason(one.name, why)
            text = "NOT EXPLAINED" if told is None else f"{'HOLE: ' if told.hole else ''}{told.why}"
            yield f"survives: {one.kind}: {one.name}: {text}"
