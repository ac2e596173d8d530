"""Every key that a scenario may have, by section. `docs/scenario.md` describes each; a test holds the two together."""

from __future__ import annotations

SCENARIO = ("seed", "machine", "host", "kvm", "guest", "published", "assumed", "fitted")
MACHINE = ("pcpus", "core", "counters", "pmuver", "fgt", "hpmn0", "icntr", "clock_ghz", "costs", "perf_factor", "cost")
HOST = ("hz", "mux_interval_ms", "task", "perf")
HOST_TASK = ("name", "pcpu", "workload", "scale", "seconds", "ipc", "repeat", "sleep_ms", "perf")
HOST_PERF = ("pcpu", "verb", "events", "frequency", "period")
KVM = ("designs",)
GUEST = ("name", "hz", "mux_interval_ms", "counters", "pmuver", "vcpus", "pin", "task", "perf")
GUEST_TASK = ("name", "vcpu", "workload", "scale", "seconds", "ipc", "repeat", "sleep_ms", "perf")
GUEST_PERF = ("vcpu", "verb", "events", "frequency", "period")
TASK_PERF = ("verb", "events", "frequency", "period")
PUBLISHED = ("source", "elapsed_seconds", "user_seconds", "system_seconds")
PUBLISHED_TIMES = PUBLISHED[1:]
