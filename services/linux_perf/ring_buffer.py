"""The buffer between the kernel and the process that reads it (kernel/events/ring_buffer.c, Linux 6.12)."""

from __future__ import annotations

from dataclasses import dataclass

LOST_BYTES = 40  # of a PERF_RECORD_LOST with its sample_id: header, id, lost, tid, time
RECORDS_PAGE = 4096  # bytes of a page of it, and that the reader writes out at a time (Cost.PERF_READER_PAGE)
NOBODY = -1


@dataclass(slots=True, eq=False)
class RingBuffer:
    """`struct perf_buffer` of one session on one CPU. Positions are bytes since it was mapped."""

    id: int
    reader: int = NOBODY  # the number of the perf process that has mapped it, where a kernel counts them
    size: int = 0
    watermark: int = 0
    head: int = 0
    tail: int = 0  # up to which its reader is through
    found: int = 0  # up to which it has found records when it last looked
    wakeup: int = 0
    lost: int = 0  # records since the last one that had room

    def output(self, size: int) -> bool | None:
        """perf_output_begin of a record: None without room for it, else whether the reader is to be woken.

        The first record that has room again is written behind a PERF_RECORD_LOST.
        """
        if self.lost:
            size += LOST_BYTES
        if self.head + size - self.tail >= self.size:  # CIRC_SPACE leaves one byte free
            self.lost += 1
            return None
        self.head += size
        self.lost = 0
        if self.head - self.wakeup <= self.watermark:
            return False
        self.wakeup += self.watermark
        return True

    def read(self) -> int:
        """perf_mmap__consume of what the reader found before, and how many bytes it finds now."""
        self.tail = self.found
        self.found = self.head
        return self.head - self.tail
