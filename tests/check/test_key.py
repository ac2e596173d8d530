"""The canonical key of a world in motion: what it tells apart, and what it does not."""

from __future__ import annotations

from pmulab.check.audit import differing
from pmulab.check.exhaustive import FAR
from pmulab.check.key import Key
from tests.check.levels import act, action, opened


async def test_a_state_that_is_come_to_in_another_order_has_the_same_key() -> None:
    play = await opened("overflow")
    key, saved = Key(play), play.save()
    enable, interrupt = action(play, "PMCNTENSET_EL0"), action(play, "PMINTENSET_EL1")
    await act(play, enable, interrupt)
    first = key.of()
    play.restore(saved)
    await act(play, interrupt, enable)
    assert key.of() == first


async def test_time_that_passes_while_nothing_counts_changes_no_key() -> None:
    play = await opened("overflow")
    run = action(play, "run", 100)
    await act(play, run)  # the guest has been loaded and has run
    key = Key(play)
    before = key.of()
    await act(play, run, run)
    assert key.of() == before


async def test_a_restored_state_has_the_key_that_it_had() -> None:
    play = await opened("squeeze")
    key = Key(play)
    await act(play, action(play, "vm0/0", "switch"), action(play, "perf_open", "pinned"))
    saved, before = play.save(), key.of()
    await act(play, action(play, "perf_close", "pinned"), action(play, "vm0/0", "preempt"))
    assert key.of() != before
    play.restore(saved)
    assert key.of() == before


async def test_keys_are_the_same_in_another_play_of_the_same_world() -> None:
    keys = []
    for _ in range(2):
        play = await opened("squeeze")
        await act(play, action(play, "perf_open", "user"))
        keys.append(Key(play).of())
    assert keys[0] == keys[1]


async def test_what_a_guest_has_lost_is_in_its_key_though_values_are_not() -> None:
    play = await opened("restore")
    key = Key(play)
    await act(play, action(play, "PMEVCNTR0_EL0", "set_one_reg"))
    before, parts = key.of(), key.parts()
    play.simulation.vcpus[0].pmu.counter[0] -= 1
    assert key.of() != before
    assert any(name.startswith("machine.guest.memory") for name in differing(parts, key.parts()))


async def test_a_session_that_is_opened_again_is_no_new_state() -> None:
    play = await opened("squeeze")
    key = Key(play)
    reopened = action(play, "perf_open", "pinned"), action(play, "perf_close", "pinned")
    await act(play, *reopened)
    closed = key.of()
    await act(play, *reopened)
    assert key.of() == closed


async def test_an_event_is_restored_that_has_the_id_of_another_which_is_open() -> None:
    """What follows from its attributes is that of the saved one."""
    play = await opened("squeeze")
    root = play.save()
    await act(play, action(play, "perf_open", "pinned"))
    saved, parts = play.save(), Key(play).parts()
    play.restore(root)
    await act(play, action(play, "perf_open", "user"))
    play.restore(saved)
    assert Key(play).parts() == parts
    perf = play.embedded.host.perf
    assert perf is not None
    assert all(event.hw.attr == event.attr for event in perf.events.values())


async def test_whoever_asks_for_keys_changes_nothing() -> None:
    """The judge is brought up to now by that, and finds the same."""
    ends = []
    for keyed in (False, True):
        play = await opened("squeeze", design="partitioned-v8")
        key = Key(play)
        for words in (
            ("vm0/0", "switch"),
            ("PMCR_EL0",),
            ("vm0/0", "run"),
            ("perf_open", "pinned"),
            ("perf_read", "many"),
        ):
            await act(play, action(play, *words))
            if keyed:
                key.of()
        machine = play.simulation.board.machine
        ends.append((machine.digest(), machine.judgement()))
    assert ends[0] == ends[1]


async def test_a_session_that_a_step_has_opened_and_kvm_has_not_come_to_cannot_be_opened_again() -> None:
    play = await opened("amid")
    key = Key(play)
    write, opens = action(play, "PMCR_EL0"), action(play, "perf_open")
    root = play.save()
    assert await play.act([write])
    without = key.of()
    play.restore(root)
    assert await play.act([opens.at(FAR), write])
    assert not await play.act([opens])
    assert key.of() != without
