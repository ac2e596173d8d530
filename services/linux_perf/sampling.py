"""Sampling by period and frequency: adaptation, limits and throttling."""

from __future__ import annotations

MAX_SAMPLE_RATE = 100_000  # perf_event_max_sample_rate, per second
CPU_TIME_MAX_PERCENT = 25  # perf_cpu_time_max_percent
ACCUMULATED_SAMPLES = 128  # window of the running average of the handler's length


class SampleLimits:
    """max_samples_per_tick, and how perf_sample_event_took lowers it for all CPUs of a kernel."""

    def __init__(self, hz: int) -> None:
        self.hz = hz
        self.max_samples_per_tick = -(-MAX_SAMPLE_RATE // hz)
        self.allowed_ns = 10**9 // MAX_SAMPLE_RATE * CPU_TIME_MAX_PERCENT // 100

    def lower(self, average_ns: int) -> None:
        """A CPU's average handler took longer than allowed: allow a quarter more than that, and fewer samples."""
        average_ns += average_ns // 4
        budget = 10**9 // self.hz // 100 * CPU_TIME_MAX_PERCENT
        self.max_samples_per_tick = budget // average_ns if average_ns < budget else 1
        self.allowed_ns = average_ns


def adapted_period(period: int, frequency: int, ns: int, count: int) -> int:
    """perf_calculate_period and the low-pass filter of perf_adjust_period: an eighth of the way to the ideal period.

    `count` occurrences took `ns`; `frequency` samples per second are wanted.
    """
    gap = count * 1_000_000_000 // (ns * frequency) - period
    step = (gap + 7) // 8 if gap >= 0 else -((7 - gap) // 8)
    return period + step or 1
