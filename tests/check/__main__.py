"""Is the key of `pmulab check` sound? python -m tests.check [DESIGN…]

In each deck and world pairs of states that have the same key are come to, and from both every action is taken: they
must have the same key again, and the same violations. Exit status 1 if a pair has not.
"""

from __future__ import annotations

import argparse
import sys
import time
from random import Random

import trio

from pmulab.check import worlds
from pmulab.check.audit import Audit, Difference, actions_of, same_keys
from services.errors import UserError
from tests.check.levels import POSTED, opened

DESIGNS = ("partitioned", "partitioned,reservation=static", "emulated", "mediated", *POSTED)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.check", description=__doc__.partition("\n")[0])
    parser.add_argument("designs", nargs="*", default=DESIGNS, metavar="DESIGN")
    parser.add_argument("--deck", action="append", metavar="NAME", help="only this deck")
    parser.add_argument("--depth", type=int, default=4, help="actions up to a pair (%(default)s)")
    parser.add_argument("--most", type=int, default=40, help="new states of a level to go on from (%(default)s)")
    parser.add_argument("--pairs", type=int, default=200, help="of each deck, world and design (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="by which they are chosen (%(default)s)")
    arguments = parser.parse_args()
    known = worlds.decks()
    unknown = [name for name in arguments.deck or () if name not in known]
    if unknown:
        parser.error(f"there is no deck {unknown[0]!r}: {', '.join(known)}")
    apart = 0
    for design in arguments.designs:
        for deck in known.values():
            if deck.every_register or deck.name not in (arguments.deck or known):
                continue
            for world in deck.worlds:
                apart += trio.run(_audit, design, deck.name, world, arguments)
    return 1 if apart else 0


async def _audit(design: str, deck: str, world: str, arguments: argparse.Namespace) -> int:
    """How many of the pairs have different futures; told, with an action and a field of each."""
    began = time.process_time()
    try:
        play = await opened(deck, world, design)
    except UserError as error:
        print(f"{design} {deck} {world}: {error.problem}", flush=True)
        return 0
    chance = Random(arguments.seed)
    actions = actions_of(play, chance)
    pairs = await same_keys(play, actions, arguments.depth, arguments.most, arguments.pairs, chance)
    audit = Audit(play, actions)
    apart, told = 0, dict[tuple[str, str], Difference]()
    for pair in pairs:
        differences = await audit.differences(*pair)
        apart += bool(differences)
        told |= {(one.action, one.field): one for one in differences}
    seconds = time.process_time() - began
    print(f"{design} {deck} {world}: {audit.pairs} pairs, {apart} apart, {seconds:.1f} s", flush=True)
    for difference in told.values():
        print(f"  {difference}", flush=True)
    return apart


if __name__ == "__main__":
    sys.exit(main())
