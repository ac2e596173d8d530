"""How much the property tests try: `make fuzz` takes the profile "long"."""

from __future__ import annotations

from hypothesis import settings

# Deadlines are wall time: on a busy machine they fail what is right.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("long", deadline=None, max_examples=3000)
settings.load_profile("default")
