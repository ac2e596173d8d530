"""The bill: every cycle of the host's kernel under the name of what it was spent on, and the guests' beside it."""

from __future__ import annotations

from enum import IntEnum

from services._pmu import Machine
from services.costs import Cost


class Account(IntEnum):
    """What the host's kernel is at. The core charges to the current one; 0 is the guests'."""

    GUEST = 0
    KERNEL = 1  # boot, the scheduler, the tick, blocking
    TRAP = 2  # a guest's exit, until it is entered again
    PERF = 3  # host perf, called by KVM for a guest's access
    SWAP = 4  # a guest's PMU context, at vcpu_load and vcpu_put
    RESERVE = 5  # host perf, giving counters up to a guest and taking them back
    PMU_IRQ = 6  # host perf's interrupt handler
    SWITCH = 7  # host perf, at a switch of threads


BARRIER = frozenset({Cost.ISB})
INJECTION = frozenset({Cost.VIRQ_INJECT, Cost.SGI})
EXITS = frozenset({Cost.EXIT_FULL_NULL, Cost.EXIT_FULL_SYSREG, Cost.EXIT_FAST, Cost.EXIT_USER})

LINES = {
    Account.KERNEL: "kernel",
    Account.TRAP: "trap",
    Account.PERF: "perf calls",
    Account.SWAP: "swap",
    Account.RESERVE: "reserve",
    Account.PMU_IRQ: "pmu interrupt",
    Account.SWITCH: "switch",
}


def line(account: Account, cost: Cost) -> str:
    """The line of the bill for what was charged to `account` with the cause `cost`."""
    if cost in BARRIER:
        return "barrier"
    if cost in INJECTION:
        return "injection"
    if cost in EXITS:
        return "trap"
    if cost is Cost.PERF_RELEASE_CREATE:
        return "perf re-create"
    return LINES[account]


def host(machine: Machine, cpus: int, programs: int, polled: int) -> dict[str, int]:
    """Cycles of the host's kernel by line; their sum is all that it has run.

    `programs`: what its tasks ran there, `polled`: what halted vCPUs did.
    """
    bill = dict.fromkeys((*LINES.values(), "perf re-create", "injection", "barrier"), 0)
    bill |= {"programs": programs, "halt polling": polled}
    for cpu in range(cpus):
        for account in Account:
            if account is not Account.GUEST:
                for cost, cycles in zip(Cost, machine.charged(cpu, account), strict=False):
                    bill[line(account, cost)] += cycles
    return bill


def by_cost(machine: Machine, cpus: int, *, guests: bool) -> dict[str, int]:
    """Cycles charged, by the names of the cost table: the guests' kernels' or the host's."""
    bill = dict.fromkeys((cost.name.lower() for cost in Cost), 0)
    for cpu in range(cpus):
        for account in Account:
            if (account is Account.GUEST) is guests:
                for cost, cycles in zip(Cost, machine.charged(cpu, account), strict=False):
                    bill[cost.name.lower()] += cycles
    return bill
