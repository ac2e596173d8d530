"""The ring buffer between a kernel and perf record's process (kernel/events/ring_buffer.c, Linux 6.12)."""

from __future__ import annotations

from services.experiment import EventSpec, SessionSpec
from services.linux_perf import RingBuffer, Session
from services.linux_perf.ring_buffer import LOST_BYTES
from tests.linux_perf.bench import INSTRUCTIONS, Kernel

RECORD = 48


def buffer() -> RingBuffer:
    return RingBuffer(0, size=20 * RECORD, watermark=10 * RECORD)


def test_the_reader_is_woken_each_time_that_more_than_the_watermark_is_there() -> None:
    """__perf_output_begin: head - wakeup > watermark."""
    rb = buffer()
    woken = []
    for _ in range(40):
        woken.append(rb.output(RECORD))
        rb.read()
        rb.read()
    assert [n for n, wakes in enumerate(woken, 1) if wakes] == [11, 21, 31]
    assert all(wakes is not None for wakes in woken)


def test_what_has_no_room_is_lost_and_told_with_the_next_record_that_has() -> None:
    """CIRC_SPACE leaves a byte free; a PERF_RECORD_LOST goes before the record that follows."""
    rb = buffer()
    assert sum(rb.output(RECORD) is not None for _ in range(30)) == 19
    assert (rb.head, rb.lost) == (19 * RECORD, 11)
    assert rb.read() == 19 * RECORD  # found, and not yet consumed
    assert rb.output(RECORD) is None
    assert rb.read() == 0
    assert rb.output(RECORD) is True  # 20 records, and the one about those that are lost
    assert (rb.head, rb.lost) == (20 * RECORD + LOST_BYTES, 0)


async def test_events_of_a_session_share_a_buffer_and_lose_alike() -> None:
    """PERF_EVENT_IOC_SET_OUTPUT; perf_event_output of a record without room leaves a count and no sample."""
    kernel = await Kernel.boot(record_bytes=4096 // 20)
    event = EventSpec("instructions", INSTRUCTIONS, leader=0, period=10_000)
    other = EventSpec("instructions", INSTRUCTIONS, leader=1, period=10_000)
    session = Session(SessionSpec("record", (event, other), cpu_wide=True, mmap_pages=1), None, kernel.perf)
    await session.open(kernel.cpu)
    for _ in range(40):
        await kernel.bench.work_until_interrupt(kernel.perf)
    events = (await session.report(kernel.cpu))["events"]
    assert sum(one["samples"] for one in events) == 20
    assert sum(one["lost"] for one in events) >= 40 - 20
    assert all(one["lost"] > 0 and one["lost_count"] == one["lost"] * 10_000 for one in events)
    (woken,) = kernel.perf.irq_work()
    assert woken is session.buffer
