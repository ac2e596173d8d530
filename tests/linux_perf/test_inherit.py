"""Events that are inherited by forked tasks, and the switch between tasks whose contexts are clones."""

from __future__ import annotations

from services.linux_perf import State
from tests.linux_perf.bench import INSTRUCTIONS, Kernel

BRACKET = ["r PMCR_EL0", "w PMCR_EL0", "w PMUSERENR_EL0", "r PMCR_EL0", "w PMCR_EL0"]
CHILD = 8


async def change(kernel: Kernel, previous: int, following: int) -> None:
    await kernel.perf.task_out(kernel.cpu, previous, following)
    await kernel.perf.settle(kernel.cpu)
    await kernel.perf.task_in(kernel.cpu, following)
    await kernel.done()


async def test_a_child_counts_for_its_parents_event() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, inherit=True)
    kernel.perf.fork(kernel.cpu, kernel.TASK, CHILD)
    kernel.bench.work(1_000_000)
    await change(kernel, kernel.TASK, CHILD)
    kernel.bench.work(2_000_000)
    reading = await kernel.perf.read(kernel.cpu, event)
    both = reading.count
    assert 3_000_000 <= both < 3_001_000
    assert both <= reading.truth < both + 1000
    await kernel.perf.task_exit(kernel.cpu, CHILD)
    await kernel.perf.settle(kernel.cpu)
    # The contexts were swapped, so the inherited event is the one that the parent's task goes on with.
    await kernel.perf.task_in(kernel.cpu, kernel.TASK)
    await kernel.done()
    kernel.bench.work(1_000_000)
    assert both + 1_000_000 <= (await kernel.perf.read(kernel.cpu, event)).count < both + 1_001_000
    await kernel.perf.release(kernel.cpu, event)
    await kernel.done()
    assert kernel.all_perf.events == {}


async def test_an_exited_child_leaves_its_result_with_its_parents_event() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, inherit=True)
    await kernel.open(INSTRUCTIONS)  # not inherited: the contexts are not swapped
    kernel.perf.fork(kernel.cpu, kernel.TASK, CHILD)
    await change(kernel, kernel.TASK, CHILD)
    kernel.bench.work(2_000_000)
    await kernel.perf.task_exit(kernel.cpu, CHILD)
    await kernel.done()
    assert event.children == []
    assert event.child_count >= 2_000_000
    assert event.child_truth >= event.child_count
    assert event.times()[0] >= 2_000_000


async def test_the_switch_between_clones_touches_no_event() -> None:
    kernel = await Kernel.boot()
    for _ in range(3):
        await kernel.open(INSTRUCTIONS, inherit=True)
    kernel.perf.fork(kernel.cpu, kernel.TASK, CHILD)
    kernel.accesses()
    await change(kernel, kernel.TASK, CHILD)
    assert kernel.accesses() == [*BRACKET, *BRACKET]


async def test_a_context_that_has_been_changed_is_nobodys_clone() -> None:
    kernel = await Kernel.boot()
    await kernel.open(INSTRUCTIONS, inherit=True)
    kernel.perf.fork(kernel.cpu, kernel.TASK, CHILD)
    await kernel.open(INSTRUCTIONS)
    kernel.accesses()
    await change(kernel, kernel.TASK, CHILD)
    assert kernel.accesses().count("w PMOVSCLR_EL0") == 2


async def test_children_that_have_lost_the_same_event_are_clones_of_each_other_though_not_of_their_parent() -> None:
    """list_del_event counts a context's generation, and context_equiv does not compare that of two children."""
    kernel = await Kernel.boot()
    leaves = await kernel.open(INSTRUCTIONS, inherit=True)
    await kernel.open(INSTRUCTIONS, inherit=True)
    for child in (CHILD, CHILD + 1):
        kernel.perf.fork(kernel.cpu, kernel.TASK, child)
    await kernel.perf.release(kernel.cpu, leaves)
    await kernel.done()
    kernel.accesses()
    await change(kernel, kernel.TASK, CHILD)
    assert kernel.accesses().count("w PMOVSCLR_EL0") == 1
    await change(kernel, CHILD, CHILD + 1)
    assert kernel.accesses() == [*BRACKET, *BRACKET]


async def test_an_event_that_is_not_inherited_stays_with_its_task() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS)
    kernel.perf.fork(kernel.cpu, kernel.TASK, CHILD)
    await change(kernel, kernel.TASK, CHILD)
    assert event.state == State.INACTIVE
    kernel.bench.work(1_000_000)
    assert (await kernel.perf.read(kernel.cpu, event)).count < 1000


async def test_a_child_inherits_that_its_parents_event_has_been_enabled_on_exec() -> None:
    """event_enable_on_exec clears the attribute, which inherit_event copies: the child's exec enables nothing again."""
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, disabled=True, enable_on_exec=True, inherit=True)
    await kernel.exec()
    await kernel.disable(event)
    kernel.perf.fork(kernel.cpu, kernel.TASK, CHILD)
    (child,) = event.children
    await change(kernel, kernel.TASK, CHILD)
    await kernel.exec()
    assert (event.state, child.state) == (State.OFF, State.OFF)


async def test_a_grandchild_has_the_period_of_the_event_that_its_parents_is_inherited_from() -> None:
    """inherit_event."""
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, frequency=1000, inherit=True)
    await kernel.open(INSTRUCTIONS)  # not inherited: the contexts are not swapped
    kernel.perf.fork(kernel.cpu, kernel.TASK, CHILD)
    await change(kernel, kernel.TASK, CHILD)
    kernel.bench.kernel_works(1_000_000)
    await kernel.tick()
    kernel.perf.fork(kernel.cpu, CHILD, CHILD + 1)
    child, grandchild = event.children
    assert child.sample_period > event.sample_period == grandchild.sample_period


async def test_an_exiting_childs_sibling_below_a_leader_that_is_off_counts_as_enabled() -> None:
    """perf_event_exit_event takes the leader first: its siblings are updated by their own state."""
    kernel = await Kernel.boot()
    leader = await kernel.open(INSTRUCTIONS, disabled=True, inherit=True)
    sibling = await kernel.open(INSTRUCTIONS, leader=leader, inherit=True)
    await kernel.open(INSTRUCTIONS)  # not inherited: the contexts are not swapped
    kernel.perf.fork(kernel.cpu, kernel.TASK, CHILD)
    await change(kernel, kernel.TASK, CHILD)
    kernel.bench.work(2_000_000)
    await kernel.perf.task_exit(kernel.cpu, CHILD)
    await kernel.done()
    assert 2_000_000 <= sibling.child_enabled < 2_000_200
