"""What the judge has found, as text: the designs of a scenario side by side, then violations one by one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from pmulab.columns import WIDTH, align, wrap
from services.result import INJECTED, Injection, Owner, Run, Seen, Violation

RANGE = "[0, HPMN)"  # of MDCR_EL2.HPMN: the counters of the vCPU that is loaded, and PMCR_EL0 and PMCCNTR_EL0 with them

_OWNERS = 4  # that are printed of a counter, the last ones
_LANES = 3  # parties that have a column each; of more, each line names its own

_PARTIES: Mapping[str, str] = {"kvm": "KVM", "host": "the host"}  # the others are vCPUs

_POSSESSIVES: Mapping[str, str] = {"host": "the host's", "nobody": "nobody's"}  # likewise

# The invariant and the kind, whose violations are counted together.
Kind = tuple[str, str]


def blocks(heads: Sequence[str], runs: Sequence[Run], *, every: bool) -> Iterator[str]:
    """How often what was broken under which design, `heads` as the columns are called, then of each the first that
    counts, and that in which it has hung, with what led to it, or with `every` all of them."""
    excused: dict[str, list[str]] = {}
    for head, run in zip(heads, runs, strict=True):
        for line in _excused(run):
            excused.setdefault(line, []).append(head)
    lines = [line if len(under) == len(runs) else f"{', '.join(under)}: {line}" for line, under in excused.items()]
    yield "\n".join([align([["Invariants", *heads], *_table(runs)], left=1), *lines])
    for head, run in zip(heads, runs, strict=True):
        for one in run.violations if every else _first(run):
            yield f"{head}: {in_full(one)}"


def counting(run: Run) -> list[Violation]:
    """Those for which the exit status is 3."""
    return [one for one in run.violations if one.counts]


def _first(run: Run) -> list[Violation]:
    """The first that counts, and that in which the run has hung."""
    first = counting(run)[:1]
    hung = [one for one in run.violations if run.hung and one.invariant == "I12"][-1:]
    return first + [one for one in hung if one not in first]


def named(violations: Sequence[Violation]) -> str:
    """Their kinds, each once."""
    return ", ".join(dict.fromkeys(f"{one.invariant} {one.kind}" for one in violations))


def _excused(run: Run) -> Iterator[str]:
    """A line for each kind that does not count, with why not."""
    said: dict[tuple[Kind, str], Violation] = {}
    for one in run.violations:
        if not one.counts:
            said.setdefault(((one.invariant, one.kind), _why_not(one)), one)
    for ((invariant, kind), why), one in said.items():
        yield f"{invariant} {kind}: {one.broken}; {why}"


def _why_not(one: Violation) -> str:
    """Why it does not count."""
    return f"declared: {one.declared}" if one.declared else "known"


def _table(runs: Sequence[Run]) -> list[list[str]]:
    """A row for each kind of violation, then what was not exercised; a column for each run."""
    rows = [
        [f"{invariant} {kind}", *(_count(_of_kind(run, (invariant, kind)), run) for run in runs)]
        for invariant, kind in _kinds(runs)
    ]
    if not rows:
        rows.append(["violations", *("none" if run.judged else "not judged" for run in runs)])
    for what in INJECTED:
        marked = [_only_with(run, what) for run in runs]
        if any(marked):
            rows.append([f"I9: not without {what}", *(wrap(named(of)) for of in marked)])
    for title, listed in (
        ("known, not found", [_not_found(run) for run in runs]),
        ("not exercised", [run.not_exercised for run in runs]),
    ):
        if any(listed):
            rows.append([title, *(wrap(", ".join(names)) for names in listed)])
    return rows


def _kinds(runs: Sequence[Run]) -> list[Kind]:
    """In the order of the invariants, and within one in that in which they were found."""
    found = dict.fromkeys((one.invariant, one.kind) for run in runs for one in run.violations)
    return sorted(found, key=lambda kind: int(kind[0][1:]))


def _of_kind(run: Run, kind: Kind) -> list[Violation]:
    return [one for one in run.violations if (one.invariant, one.kind) == kind]


def _count(found: Sequence[Violation], run: Run) -> str:
    """How often, and of that what does not count."""
    if not run.judged:
        return "not judged"
    times = sum(one.times for one in found)
    excused: dict[str, int] = {}
    for one in found:
        if not one.counts:
            why = "declared" if one.declared else "known"
            excused[why] = excused.get(why, 0) + one.times
    if excused == {(why := next(iter(excused), "")): times}:
        return f"{times:,} {why}"
    return " ".join([f"{times:,}", *(f"({count:,} {why})" for why, count in excused.items())])


def _only_with(run: Run, what: str) -> list[Violation]:
    return [one for one in run.violations if any(injection.what == what for injection in one.only_with)]


def _not_found(run: Run) -> tuple[str, ...]:
    """What the scenario says is known of the design, and was not found."""
    found = {one.invariant for one in run.violations}
    return tuple(name for name in run.known if name not in found)


def in_full(one: Violation) -> str:
    """Of one violation: what is broken, where, between whom, and what was seen before it."""
    counter = "" if one.counter is None else f", counter {one.counter}"
    since = "" if one.since is None else f", since cycle {one.since:,}"
    times = "" if one.times == 1 else f"; {one.times:,} times in all"
    lines = [
        f"{one.invariant} {one.kind}: {one.broken}",
        f"  pCPU {one.cpu}, cycle {one.cycle:,}{counter}{since}{times}",
        f"  victim {_called(one.victim)}, other party {_called(one.other)}",
        *([f"  {one.compared}"] if one.compared else []),
        *textwrap.wrap(f"source: {one.source}", WIDTH, initial_indent="  ", subsequent_indent="    "),
        *([f"  {contested(one)} was {_owners(one.owners[-_OWNERS:])}"] if one.owners else []),
        "  no window was open" if one.window is None else f"  beyond the window {one.window!r}",
    ]
    lines += [f"  I9: not without the {_injection(injection)}" for injection in one.only_with]
    if not one.counts:
        lines.append(f"  {_why_not(one)}")
    return "\n".join([*lines, *_before(one.before)])


def _injection(one: Injection) -> str:
    if len(one.steps) == 1:
        return f"{one.what} of step {one.steps[0]}"
    return f"{one.what}s of steps {', '.join(map(str, one.steps))}"


def contested(one: Violation) -> str:
    """Of what it is told who had it: the counter, or else the counters that guests have together."""
    n = one.owners[-1].counter if one.owners else None
    return RANGE if n is None else f"counter {n}"


def whose(party: str) -> str:
    return _POSSESSIVES.get(party, f"{party}'s")


def _owners(owners: Sequence[Owner]) -> str:
    said = ((whose(owner.party), owner.since) for owner in owners)
    return ", ".join(f"{owner} from cycle {since:,}" for owner, since in said)


def _before(before: Sequence[Seen]) -> list[str]:
    """A line for each; a column for each party, as far as they are few."""
    if not before:
        return []
    parties = list(dict.fromkeys(seen.party for seen in before))
    lanes = parties if len(parties) <= _LANES else []
    several = len({seen.cpu for seen in before}) > 1
    rows = [[*(["pCPU"] if several else []), "cycle", *(map(_called, lanes) if lanes else ["party", ""])]]
    for seen in before:
        where = [*([str(seen.cpu)] if several else []), f"{seen.cycle:,}"]
        if lanes:
            rows.append([*where, *(seen.text if party == seen.party else "" for party in lanes)])
        else:
            rows.append([*where, _called(seen.party), seen.text])
    return [f"    {line}" for line in _aligned(rows, right=1 + several).splitlines()]


def _called(party: str) -> str:
    return _PARTIES.get(party, party)


def _aligned(rows: Sequence[Sequence[str]], right: int) -> str:
    """The first `right` columns to the right, the others to the left."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    padded = [
        [cell.rjust(width) if n < right else cell for n, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return align(padded, left=len(rows[0]))
