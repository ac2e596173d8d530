"""Every key that a scenario may have, by section. `docs/scenario.md` describes each; a test holds the two together."""

from __future__ import annotations

# No setting of the experiment: with other ones it is still what was published.
BESIDE = (("published",), ("known",), ("assumed",), ("fitted",), ("kvm", "designs"), ("seed",))
SCENARIO = ("seed", "machine", "host", "kvm", "guest", "step", "published", "known", "assumed", "fitted")
MACHINE = (
    "pcpus",
    "core",
    "counters",
    "pmuver",
    "fgt",
    "hpmn0",
    "icntr",
    "pmi_delay",
    "pmccntr_in_wfi",
    "clock_ghz",
    "costs",
    "perf_factor",
    "exit_irqs_off",
    "cost",
)
SYSCTLS = ("perf_event_max_sample_rate", "perf_cpu_time_max_percent", "perf_user_access")
POWERDOWN = ("powerdown_residency_us", "powerdown_exit_us")
HOST = (
    "hz",
    "accounting",
    "mux_interval_ms",
    *SYSCTLS,
    "perf_throttle",
    "perf_tool",
    "pseudo_nmi",
    "reserved_host_counters",
    *POWERDOWN,
    "sysfs",
    "offline",
    "task",
    "perf",
)
SYSFS_NOW = ("reserved_host_counters",)
SYSFS = ("at_ms", *SYSFS_NOW)
OFFLINE = ("pcpu", "from_ms", "to_ms")
HOST_TASK = (
    "pcpu",
    "name",
    "workload",
    "scale",
    "seconds",
    "ipc",
    "kernel_share",
    "repeat",
    "sleep_ms",
    "rdpmc_us",
    "perf",
)
TASK = (*HOST_TASK[1:], "threads")
TASK_PERF = ("verb", "events", "frequency", "period", "mmap_pages", "interval_ms")
HOST_PERF = ("pcpu", "guest", "vcpu", *TASK_PERF)
KVM = ("designs", "halt_poll_ns", "wfi_trap_policy")
GUEST = (
    "name",
    "hz",
    "accounting",
    "mux_interval_ms",
    *SYSCTLS,
    "perf_throttle",
    "counters",
    "pmuver",
    "denied",
    "vcpus",
    "pin",
    "task",
    "perf",
)
GUEST_TASK = ("vcpu", *TASK)
GUEST_PERF = ("vcpu", *TASK_PERF)
STEP = (
    "party",
    "action",
    "at",
    "register",
    "value",
    "el",
    "cycles",
    "workload",
    "rates",
    "until",
    "pcpu",
    "event",
    "count",
    "deny",
    "powerdown",
    "name",
    "thread",
    "disabled",
    "verb",
    "events",
    "frequency",
    "period",
    "mmap_pages",
    "reserved_host_counters",
)
PUBLISHED_TIMES = ("elapsed_seconds", "user_seconds", "system_seconds")
PUBLISHED_SHARES = ("host_kernel_percent", "guest_percent")
PUBLISHED = ("source", *PUBLISHED_TIMES, *PUBLISHED_SHARES, "relative_to", "fitted")
INJECTION = ("task", "perf", "sysfs")
