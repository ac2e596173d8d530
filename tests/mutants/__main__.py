"""`pmulab check` of one mutant: python -m tests.mutants NAME [OPTION…]"""

import sys

from pmulab.cli import main
from tests.mutants.driver import in_force
from tests.mutants.table import TABLE, offered

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TABLE:
        sys.exit(f"{__doc__}\nNAME is one of {' '.join(TABLE)}")
    with offered(), in_force(TABLE[sys.argv[1]]):
        sys.exit(main(["check", *sys.argv[1:]]))
