"""Which mutants there are to be, and which third of them is blind.

The numbers are those of the corpus of reported defects (B) and of hypotheses (N). This list, the seed, the judge, the
worlds and the decks were committed before any of the mutants was written.
"""

from __future__ import annotations

import random

SEED = 12

REPORTED = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    11,
    12,
    18,
    19,
    20,
    22,
    23,
    24,
    27,
    28,
    29,
    30,
    31,
    32,
    33,
    34,
    36,
    37,
    39,
    40,
    41,
]
REPORTED += [42, 46, 47, 49, 51, 54, 55, 56, 58, 59, 61, 62, 63, 64, 65, 66, 68, 69, 70, 73, 75]
HYPOTHESES = [1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 34, 36, 38]

MUTANTS = tuple([f"B{n}" for n in REPORTED] + [f"N{n}" for n in HYPOTHESES])

BLIND = frozenset(random.Random(SEED).sample(MUTANTS, len(MUTANTS) // 3))

# Reported, and no mutant: what is wrong with them is not what a PMU does.
SKIPPED = {
    "B13": "cost alone",
    "B14": "the text of a parameter",
    "B15": "a build",
    "B16": "a build",
    "B17": "nVHE",
    "B25": "a build",
    "B38": "nesting",
    "B43": "a build's warnings",
    "B45": "a selftest",
    "B48": "a type in the uAPI, without effect",
    "B52": "a log",
    "B71": "a name",
    "B72": "a build",
    "B74": "a default, and its documentation",
}

if __name__ == "__main__":
    for name in MUTANTS:
        print(name, "blind" if name in BLIND else "")
