"""Entries on the wire are the entries of the port, whatever is in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.attend import Role
from services.attend.messages import entry_message, entry_of
from services.cpu import CALL_COLUMNS, Call, Entry, EntryKind, Timer
from services.wire import attend_pb2 as wire

u64 = st.integers(0, 2**64 - 1)
rows = st.lists(st.tuples(*[u64] * CALL_COLUMNS)).map(tuple)
entries = st.builds(
    Entry,
    kind=st.sampled_from(EntryKind),
    now=u64,
    argument=u64,
    el=st.integers(-1, 2),
    remaining=u64,
    previous_done=u64,
    calls=rows,
    payload=st.binary(),
)


@given(st.integers(1, 2**32 - 1), entries)
def test_an_entry_survives_the_wire(number: int, entry: Entry) -> None:
    message = wire.Entry.FromString(entry_message(number, entry).SerializeToString())
    assert message.id == number
    assert entry_of(message) == entry


def test_kinds_and_roles_have_the_same_numbers_on_both_sides() -> None:
    assert {f"ENTRY_{kind.name}": kind.value for kind in EntryKind} == dict(wire.EntryKind.items())
    assert {"ROLE_UNSPECIFIED": 0} | {f"ROLE_{role.name}": role.value for role in Role} == dict(wire.Role.items())


def test_what_the_wires_comments_say_of_timers_and_calls_holds() -> None:
    assert (Timer.TICK, Timer.MUX) == (0, 1)
    assert CALL_COLUMNS == 5
    assert max(Call) < 2**8


def test_a_kind_of_a_later_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="99"):
        entry_of(wire.Entry.FromString(b"\x10\x63"))
