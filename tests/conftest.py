"""How much the property tests try: `make fuzz` takes the profile "long". And Ctrl-C reaches what tests start."""

from __future__ import annotations

import signal

from hypothesis import settings

# Deadlines are wall time: on a busy machine they fail what is right.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("long", deadline=None, max_examples=3000)
settings.load_profile("default")

# A shell's background job ignores it, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
