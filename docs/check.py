"""Bring the example in docs/check.md up to date.

python -m docs.check
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import trio

from pmulab.check.finding import replayed, shortest_of
from pmulab.check.job import Job, search
from pmulab.check.mail import mail
from pmulab.check.worlds import decks, worlds

PAGE = Path(__file__).with_suffix(".md")
DESIGN, DECK, WORLD, WALKS = "partitioned-v8", "swap", "pair", 20


def example() -> str:
    """The first finding of one deck that is about a counter, as `pmulab check` prints it."""
    found = trio.run(search, Job(DESIGN, worlds()[WORLD], decks()[DECK], 0, 0, WALKS, 1, None))
    shortest, of = next(one for one in shortest_of([found]) if one[0].violation.counter is not None)
    with tempfile.TemporaryDirectory() as folder:
        return mail(replayed(DESIGN, shortest, of, Path(folder))).replace(folder, "pmulab-check")


def page() -> str:
    """The page with what is printed today."""
    command = f"$ pmulab check {DESIGN} --deck {DECK} --world {WORLD} --depth 0 --walks {WALKS}"
    block = f"<!-- check -->\n```\n{command}\n…\n{example()}\n…\n```\n<!-- /check -->"
    return re.sub(r"<!-- check -->\n.*?<!-- /check -->", lambda _: block, PAGE.read_text(), flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page())
