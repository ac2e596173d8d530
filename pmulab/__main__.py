"""`python -m pmulab`."""

from __future__ import annotations

import sys

from pmulab.cli import main

sys.exit(main())
