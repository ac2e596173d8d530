"""Entries and bursts as the wire has them."""

from __future__ import annotations

from collections.abc import Sequence

from services._pmu import OP_DONE
from services.cpu import CALL_COLUMNS, OPERATION_SHIFT, Entry, EntryKind
from services.wire import attend_pb2 as wire


def ends_entry(codes: Sequence[int]) -> bool:
    """Whether a burst is the last of its entry."""
    return bool(codes) and codes[-1] >> OPERATION_SHIFT == OP_DONE


def entry_message(number: int, entry: Entry) -> wire.Entry:
    """`entry` as the wire has it, with the id `number`. Raises ValueError for what does not fit in 64 bits."""
    return wire.Entry(
        id=number,
        kind=wire.EntryKind.Name(entry.kind),
        now=entry.now,
        argument=entry.argument,
        el=entry.el,
        remaining=entry.remaining,
        previous_done=entry.previous_done,
        calls=[value for row in entry.calls for value in row],
        payload=entry.payload,
    )


def entry_of(message: wire.Entry) -> Entry:
    """Raises ValueError for a kind that is not known here."""
    return Entry(
        EntryKind(message.kind),
        message.now,
        message.argument,
        message.el,
        message.remaining,
        message.previous_done,
        tuple(zip(*[iter(message.calls)] * CALL_COLUMNS, strict=True)),
        message.payload,
    )
