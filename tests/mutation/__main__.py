"""Kill mutants of `partitioned`: python -m tests.mutation

Exit status 1 if one survives that survivors.toml does not explain, or if `partitioned` itself breaks something.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from docs.revision import revision
from services.judge.invariants import INVARIANTS
from tests.mutation import record, report
from tests.mutation.applied import applied
from tests.mutation.hunt import PLACES, Hunt, Kill, replayed
from tests.mutation.record import Result
from tests.mutation.source import Mutant, mutants
from tests.mutation.transplants import Transplant, transplants

One = Mutant | Transplant
_ALONE = 8  # walks in each place, before it is said that nothing else kills a mutant
_TRIED = 12  # mutants of an invariant, of which that is asked


def main() -> int:
    arguments = _arguments()
    warnings.filterwarnings("ignore", "coroutine .* was never awaited")  # a mutant may not await what it has made
    every: list[One] = [*transplants(), *mutants()]
    chosen = [one for one in every if fnmatchcase(f"{one.kind}: {one.name}", f"*{arguments.only}*")]
    if not chosen:
        sys.stderr.write(f"--only {arguments.only}: no mutant is called so; * is anything\n")
        return 2
    file = Path(arguments.results)
    if arguments.replay:
        return _replay(chosen)
    done = record.results(file)
    late = time.monotonic() + arguments.seconds
    left = [one for one in chosen if _seeds(arguments, done.get(one.name))]
    work = [(one, done.get(one.name) or Result(one.name, one.kind), arguments, late) for one in left]
    kept, unfinished = record.kept(), len(work)
    for result in _each(work, arguments.jobs):
        unfinished -= 1
        done[result.name] = result
        record.add(file, result)
        _tell(result)
    if arguments.alone and not unfinished:
        _alone(chosen, done, file)
    for result in done.values():
        found = next((kill for kill in result.kills.values() if kill is not None and kill.steps), None)
        if found is not None:
            kept[result.name] = found
    known = {one.name for one in every}
    record.keep({name: replace(kill, seconds=0.0) for name, kill in kept.items() if name in known})
    of = [done[one.name] for one in chosen if one.name in done]
    if arguments.page:
        record.PAGE.write_text(report.page(of, unfinished, revision()), encoding="utf-8")
    sys.stdout.write("\n".join(report.lines(of, unfinished, matrix=arguments.matrix)) + "\n")
    return 1 if report.unexplained(of) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--only", default="", metavar="PATTERN", help="of `kind: name`, * is anything")
    parser.add_argument(
        "--seeds", type=int, default=20, metavar="N", help="each searches anew; what none kills survives"
    )
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="through all decks, before it survives")
    parser.add_argument("--world", default="", help="look there alone, of what has survived up to now")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=float, default=1e9, help="and go on another time")
    parser.add_argument("--results", default=str(record.RESULTS), metavar="FILE")
    parser.add_argument("--alone", action="store_true", help="what does each invariant kill that no other kills?")
    parser.add_argument("--page", action="store_true", help="write docs/mutation.md, too")
    parser.add_argument("--matrix", action="store_true", help="a line for each mutant")
    parser.add_argument("--replay", action="store_true", help="the counterexamples that are kept, and no search")
    return parser.parse_args()


def _seeds(arguments: argparse.Namespace, result: Result | None) -> list[int]:
    """Those left. One that survives the first is looked for with all others, but if it breaks nothing; one that
    survives all, again with more rounds."""
    seeds = range(1, arguments.seeds + 1)
    if result is None or not result.kills:
        return [*seeds]
    if result.survives and _equivalent(result.name):
        return []
    left = [seed for seed in seeds if seed not in result.kills]
    again = not left and result.survives and result.rounds < arguments.rounds and not _explained(result.name)
    return [*seeds] if again else left


def _explained(name: str) -> bool:
    return record.reason(name, record.reasons()) is not None


def _equivalent(name: str) -> bool:
    """Is it said that it breaks nothing?"""
    told = record.reason(name, record.reasons())
    return told is not None and not told.hole


def _each(work: Sequence[tuple[One, Result, argparse.Namespace, float]], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from filter(None, map(_do, work))
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from filter(None, pool.imap_unordered(_do, work))


def _do(of: tuple[One, Result, argparse.Namespace, float]) -> Result | None:
    one, result, arguments, late = of
    if time.monotonic() > late:
        return None
    with applied(one) if isinstance(one, Mutant) else nullcontext():
        hunt = Hunt(one.design if isinstance(one, Transplant) else "partitioned")
        places = [place for place in PLACES if arguments.world in ("", place[1])]
        for seed in _seeds(arguments, result):
            result.kills[seed] = hunt.kill(seed, arguments.rounds, result.survives, places)
            if result.survives and _equivalent(one.name):
                break
    if result.survives and not arguments.world:
        result.rounds = arguments.rounds
    return result


def _alone(chosen: Sequence[One], done: dict[str, Result], file: Path) -> None:
    """Does each invariant kill a mutant that no other kills, in any place? Of what nothing else has killed some are
    tried, and what only steps kill that no deck has."""
    for name in INVARIANTS:
        known = [one for one in chosen if one.name in done]
        those = [one for one in known if set(done[one.name].killers) == {name}]
        those += [one for one in known if done[one.name].survives and _shown(one) == (name,)]
        for one in sorted(those, key=lambda one: (done[one.name].survives, len(one.name)))[:_TRIED]:
            result = done[one.name]
            if result.alone is None:
                result.alone = _killers(one, name)
                record.add(file, result)
            if result.alone == (name,):
                break


def _shown(one: One) -> tuple[str, ...]:
    """What the steps have it break that are said of it in survivors.toml."""
    told = record.reason(one.name, record.reasons())
    if told is None or not told.steps:
        return ()
    with applied(one) if isinstance(one, Mutant) else nullcontext():
        return replayed(one.design if isinstance(one, Transplant) else "partitioned", told.world, told.steps)


def _killers(one: One, known: str) -> tuple[str, ...]:
    """Every invariant that kills it anywhere, up to the first that is not known to."""
    by = {known}
    with applied(one) if isinstance(one, Mutant) else nullcontext():
        hunt = Hunt(one.design if isinstance(one, Transplant) else "partitioned")
        for place in PLACES:
            by |= hunt.killers(place, 1000, _ALONE)
            if len(by) > 1:
                break
    return tuple(sorted(by))


def _tell(result: Result) -> None:
    by = "; ".join(f"{name} in {', '.join(of)}" for name, of in result.killers.items()) or "SURVIVES"
    sys.stderr.write(f"{result.name}: {by}\n")


def _replay(chosen: Sequence[One]) -> int:
    """Does what killed it kill it still?"""
    kept, alive = record.kept(), 0
    for one in chosen:
        kill: Kill | None = kept.get(one.name)
        if kill is None:
            continue
        with applied(one) if isinstance(one, Mutant) else nullcontext():
            design = one.design if isinstance(one, Transplant) else "partitioned"
            if not replayed(design, kill.world, kill.steps):
                alive += 1
                sys.stdout.write(f"{one.name}: not killed by what killed it\n")
    sys.stdout.write(f"{sum(one.name in kept for one in chosen)} replayed, {alive} not killed again\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
