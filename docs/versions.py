"""Search the posted versions for violations, and write docs/versions.md.

python -m docs.versions         write the page anew from what is kept
python -m docs.versions v8 …    search these versions before (a minute or two each), and keep what is found

A search is of as many actions each time, and so finds the same. One that takes longer than two minutes is put by, with
exit status 3: the same command goes on from there. Whatever is kept and docs/versions.toml does not attribute is
printed, and the exit status is 1.
"""

from __future__ import annotations

import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from docs import posted
from docs.invariants import lines
from docs.posted import Kept, Version

PAGE = Path(__file__).with_suffix(".md")
SECONDS = 120


@dataclass(frozen=True, slots=True)
class Cause:
    """What brings violations about, and what it corresponds to."""

    name: str
    corresponds: tuple[str, ...]  # numbers of the corpus, "new" or "emulated"
    what: str
    rests: str  # on which step that is assumed, if it does
    found: Mapping[str, tuple[str, ...]]  # by version: the violations' names

    @property
    def kind(self) -> str:
        """How it is counted: by its first number, reported before supposed."""
        return self.corresponds[0] if self.corresponds[0] in ("new", "emulated") else self.corresponds[0][0]

    def known_in(self, version: str) -> str:
        """Its numbers; v8's and v9's own are the hypotheses."""
        own = [one for one in self.corresponds if one[0] == "N" or version not in ("v8", "v9")]
        return ", ".join(own or self.corresponds)


def causes() -> tuple[dict[str, Cause], dict[str, str]]:
    """Those of docs/versions.toml, and what each number of the corpus means."""
    data = _data()
    return {
        name: Cause(
            name,
            tuple(of["is"]),
            of["what"],
            of.get("rests", ""),
            {version: tuple(found) for version, found in of["found"].items()},
        )
        for name, of in data["cause"].items()
    }, data["meaning"]


def _data() -> dict[str, Any]:
    return tomllib.loads(PAGE.with_suffix(".toml").read_text())


def by_violation(every: Iterable[Cause]) -> dict[tuple[str, str], Cause]:
    """The cause of each, by version and name."""
    return {(version, name): one for one in every for version, names in one.found.items() for name in names}


def not_attributed(kept: Mapping[str, Version], every: Iterable[Cause]) -> list[str]:
    """What no cause has, and what a cause has that is not found any more."""
    attributed = by_violation(every)
    found = {(version, one.name) for version, of in kept.items() for one in of.found}
    return [
        *(f"{version}: {name}: not attributed" for version, name in sorted(found - set(attributed))),
        *(f"{version}: {name}: attributed, and not found" for version, name in sorted(set(attributed) - found)),
    ]


def page(kept: Mapping[str, Version]) -> str:
    """What docs/versions.md is to be."""
    every, meaning = causes()
    attributed = by_violation(every.values())
    head, mark, _ = PAGE.read_text().partition("<!-- versions -->\n")
    found = [_SEARCH, "", *_table(_summary(kept, attributed)), "", "## The numbers", ""]
    found += [*_table(_numbers(every.values(), meaning)), "", "## What this search does not come to", ""]
    found += [*_table(_missed()), ""]
    for version, of in kept.items():
        found += _of_version(version, of, attributed)
    return head + mark + "\n".join(found)


def _summary(kept: Mapping[str, Version], attributed: Mapping[tuple[str, str], Cause]) -> Iterator[Sequence[str]]:
    yield "", "violations", "causes", "reported (B)", "supposed (N)", "new", "emulated vPMU", "states", "actions"
    for version, of in kept.items():
        found = [attributed[version, one.name] for one in of.found]
        kinds = Counter("N" if _by_n(one, version) else one.kind for one in found)
        numbers = [f"{kinds[kind]}" for kind in ("B", "N", "new", "emulated")]
        yield (
            version,
            f"{len(found)}",
            f"{len({one.name for one in found})}",
            *numbers,
            f"{of.states:,}",
            f"{of.actions:,}",
        )


def _by_n(cause: Cause, version: str) -> bool:
    return cause.known_in(version)[0] == "N"


def _numbers(every: Iterable[Cause], meaning: Mapping[str, str]) -> Iterator[Sequence[str]]:
    yield "", "What it says", "Found in"
    versions: dict[str, set[str]] = {}
    for cause in every:
        for number in cause.corresponds:
            if number in meaning:
                versions.setdefault(number, set()).update(cause.found)
    for number in sorted(versions, key=lambda one: (one[0], int(one[1:]))):
        yield number, meaning[number], ", ".join(sorted(versions[number]))


def _missed() -> Iterator[Sequence[str]]:
    yield "Reported", "Of", "Why not"
    for one in _data()["missed"]:
        yield ", ".join(one["numbers"]), ", ".join(one["versions"]), one["why"]


def _of_version(version: str, of: Version, attributed: Mapping[tuple[str, str], Cause]) -> Iterator[str]:
    yield f"## {version}\n"
    order = list(dict.fromkeys(attributed[version, one.name].name for one in of.found))
    ranked = sorted(of.found, key=lambda one: order.index(attributed[version, one.name].name))
    for _, group in groupby(ranked, lambda one: attributed[version, one.name].name):
        found = sorted(group, key=lambda one: len(one.steps))
        cause = attributed[version, found[0].name]
        yield f"**{cause.known_in(version)}.** {cause.what}"
        if cause.rests:
            yield f"Not sent: {cause.rests}."
        yield ""
        yield from _table(_rows(found))
        yield ""


def _rows(found: Sequence[Kept]) -> Iterator[Sequence[str]]:
    """The one with the fewest steps, and the others as what follows from the same."""
    yield "Violation", "World, deck", "Steps", ""
    for number, one in enumerate(found):
        yield (
            f"{one.name}",
            f"{one.world}, {one.deck}",
            f"`{folded(one.told)}`",
            f"{one.broken}" if not number else "as above",
        )


def folded(told: Sequence[str]) -> str:
    """Steps in one line; those that follow each other and are the same are one."""
    runs = [(text, len(list(same))) for text, same in groupby(told)]
    return "; ".join(text if times == 1 else f"{text} \N{MULTIPLICATION SIGN}{times}" for text, times in runs)


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    header, *others = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return lines(header, others)


_SEARCH = (
    f"Every deck in each of its worlds, all states up to depth {posted.DEPTH}, and {posted.WALKS} walks, seed "
    f"{posted.SEED}: bounded by actions, not by time."
)


def _over(end: float) -> bool:
    return time.perf_counter() > end


def main(versions: Sequence[str]) -> int:
    kept = posted.read()
    for version in versions:
        if version not in posted.VERSIONS:
            print(f"there is no {version!r}: {', '.join(posted.VERSIONS)}", file=sys.stderr)
            return 2
        end = time.perf_counter() + SECONDS
        found = posted.searched(version, partial(_over, end))
        if found is None:
            print(f"{version}: put by after {SECONDS} s; the same command goes on from there", file=sys.stderr)
            return 3
        kept = {**kept, version: found}
        posted.write(kept)
    wrong = not_attributed(kept, causes()[0].values())
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    PAGE.write_text(page(posted.read()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
