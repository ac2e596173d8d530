"""Each way in which a counter changes hands, as steps that any design can be put through."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tests.handoff.ownership import count_from, read, reset, work

OPEN = "host perf_open name=own events=instructions:uH\n"  # exclude_guest, exclude_kernel: the host's programs alone
OWN = "host perf_read name=own\n"
SETS = ("PMCNTENSET_EL0", "PMINTENSET_EL1", "PMOVSSET_EL0")
CLEARS = ("PMCNTENCLR_EL0", "PMINTENCLR_EL1", "PMOVSCLR_EL0")
# Where the host has all six counters while no vCPU is loaded, and two while one uses four.
ALL = (
    "host perf_open name=all events="
    "{instructions:uH,branches:uH,branch-misses:uH,dTLB-loads:uH,iTLB-loads:uH,L1-dcache-loads:uH}\n"
)
GROUP = "host perf_open name=group events={instructions:uH,branches:uH,branch-misses:uH,dTLB-loads:uH}\n"


@dataclass(frozen=True, slots=True)
class Transition:
    """Steps, and with how many VMs (`vm0`, …) and pCPUs."""

    steps: str
    guests: int = 1
    pcpus: int = 1


def cleared(vcpu: str) -> str:
    """By KVM_SET_ONE_REG: up to 6.12 what sets bits for a guest does for the VMM, and what clears bits clears."""
    return "".join(f"{vcpu} set_one_reg register={name} value=0xffffffff\n" for name in CLEARS)


BOOT = Transition(
    OPEN
    + "host perf_open name=b events=branches:H period=100000\n"
    + cleared("vm0/0")
    + "".join(f"vm0/0 set_one_reg register={name} value={1 << n}\n" for n, name in enumerate(SETS))
    + "vm0/0 switch\n"
    + "".join(f"vm0/0 mrs register={name}\n" for name in SETS)
)

LOAD = Transition(f"""
    {OPEN}
    {work("host/0", 1000)}
    vm0/0 switch
    {work("vm0/0", 5000)}
    {OWN}
    {reset("vm0/0")}
    {count_from("vm0/0", 7)}
    {work("vm0/0", 300)}
    {OWN}
    {read("vm0/0")}
    """)

PUT = Transition(f"""
    {OPEN}
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 7, 8)}
    {work("vm0/0", 300)}
    vm0/0 preempt
    {work("host/0", 1000)}
    {OWN}
    vm0/0 switch
    {read("vm0/0", 2)}
    """)
# One of its counters is about to overflow, and is to interrupt it; in the end the host has no event any more.
PUT_ENABLED = Transition(f"""
    {OPEN}
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 7, 0xFFFF_FC00)}
    vm0/0 msr register=PMINTENSET_EL1 value=3
    {work("vm0/0", 300)}
    vm0/0 preempt
    {work("host/0", 1000)}
    {OWN}
    vm0/0 switch
    {read("vm0/0", 2)}
    vm0/0 irq
    vm0/0 preempt
    host perf_close name=own
    """)

FIRST_ACCESS = Transition(
    f"""
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100)}
    {work("vm0/0", 11)}
    vm1/0 switch
    {reset("vm1/0")}
    {count_from("vm1/0", 200)}
    {work("vm1/0", 22)}
    vm0/0 switch
    {read("vm0/0")}
    vm1/0 switch
    vm1/0 mrs register=PMEVTYPER0_EL0
    {read("vm1/0")}
    """,
    guests=2,
)

# A guest that counts, and one that does not, has its counters at 111 and 211 when it is put. The one is loaded with its
# registers, the other is FREE until its first access.
COUNTS = f"""
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100, 200)}
    {work("vm0/0", 11)}
    """
COUNTED = f"{COUNTS}\nvm0/0 preempt\n"
STOPPED = f"{COUNTS}\nvm0/0 msr register=PMCNTENCLR_EL0 value=3\nvm0/0 preempt\n"
RESTORED = cleared("vm0/0") + "".join(
    f"vm0/0 set_one_reg register={name} value={value}\n"
    for name, value in {
        **dict.fromkeys(SETS, 0),
        "PMEVTYPER0_EL0": 0x8000_0008,
        "PMEVTYPER1_EL0": 0x8000_0008,
        "PMEVCNTR0_EL0": 111,
        "PMEVCNTR1_EL0": 211,
        "PMSELR_EL0": 0,
        "PMUSERENR_EL0": 0,
        "PMCR_EL0": 0x2041,
    }.items()
)


@dataclass(frozen=True, slots=True)
class Amid:
    """What something comes amid: the last of these steps, of the first VM."""

    before: str
    step: str
    after: str = ""  # up to where that VM can be switched to
    guests: int = 1
    pcpus: int = 1
    whose: str = "vm0/0"  # vCPU's operations they are


AT_EL2 = GROUP.replace(":uH", ":H")  # where the host counts amid KVM's operations, too
AMID: Final = {
    "load": Amid(COUNTED, "vm0/0 switch\n"),
    "access": Amid(f"{STOPPED}\nvm0/0 switch\n", "vm0/0 mrs register=PMEVTYPER1_EL0\n"),
    "put": Amid(f"{COUNTED}\nvm0/0 switch\n", "vm0/0 preempt\n"),
    # What begins by a write counts from there on; the vCPU has not run before, its registers are what a VMM has set.
    "first-access": Amid(f"{RESTORED}\nvm0/0 switch\n", "vm0/0 msr register=PMCNTENSET_EL0 value=3\n"),
    "migration": Amid(
        f"{COUNTED}\nvm0/0 migrate pcpu=1\n",
        "vm0/0 switch\n",
        "vm0/0 switch\nvm0/0 preempt\nvm0/0 migrate pcpu=0\n",
        pcpus=2,
    ),
    "squeeze": Amid(f"{AT_EL2}\n{COUNTED}", "vm0/0 switch\n"),
    "squeeze-by-access": Amid(f"{AT_EL2}\n{STOPPED}\nvm0/0 switch\n", "vm0/0 mrs register=PMEVCNTR1_EL0\n"),
    "release": Amid(f"{AT_EL2}\n{COUNTED}\nvm0/0 switch\n", "vm0/0 preempt\n"),
    "arrival": Amid(f"{COUNTED}\nvm0/0 switch\n", "host perf_open name=late events=branches:uH\n"),
    "close": Amid(
        f"host perf_open name=watchdog events=branches:DH\n{COUNTED}\nvm0/0 switch\n", "host perf_close name=watchdog\n"
    ),
    # Its neighbour dies loaded, which counts on the same counters.
    "death": Amid(
        f"""
        {COUNTED}
        vm1/0 switch
        {reset("vm1/0")}
        {count_from("vm1/0", 300, 400)}
        {work("vm1/0", 33)}
        """,
        "vm1 kill\n",
        guests=2,
        whose="vm1/0",
    ),
    # One that has been saved of a VM that is no more, and set.
    "restore": Amid(
        f"{RESTORED}\nvm0/0 set_one_reg register=PMCNTENSET_EL0 value=3\n",
        "vm0/0 switch\n",
    ),
}


def amid(name: str, coming: str, before: str = "") -> Transition:
    """Something comes amid what is named, in which KVM's operations are counted; then the guest counts 22, and the host
    1000 alone, by its session `own`."""
    of = AMID[name]
    return Transition(
        f"""
        {before}
        {of.before}
        {coming}
        {of.step}
        {of.after}
        vm0/0 switch
        vm0/0 msr register=PMCNTENSET_EL0 value=3
        vm0/0 isb
        {work("vm0/0", 22)}
        vm0/0 preempt
        {work("host/0", 1000)}
        vm0/0 switch
        {read("vm0/0", 2)}
        {OWN}
        """,
        guests=of.guests,
        pcpus=of.pcpus,
    )


def preempted(name: str, at: int) -> Transition:
    """The vCPU is to be preempted before operation `at` of KVM's for it."""
    return amid(name, f"{AMID[name].whose} preempt at={at}\n", OPEN)


def first_event(name: str, at: int) -> Transition:
    """The first event of the host arrives before operation `at` of KVM's there."""
    return amid(name, f"{OPEN.strip()} at={at}\n")


MIGRATION = Transition(
    f"""
    {OPEN}
    host perf_open name=other events=instructions:uH pcpu=1
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100)}
    {work("vm0/0", 11)}
    vm0/0 preempt
    vm0/0 migrate pcpu=1
    {work("host/0", 1000)}
    {work("host/1", 2000)}
    vm0/0 switch
    {work("vm0/0", 22)}
    {read("vm0/0")}
    {OWN}
    host perf_read name=other
    """,
    pcpus=2,
)


def arrival(at: int | None) -> Transition:
    """Of an event of the host's while a vCPU is loaded, or before operation `at` of KVM's amid its load."""
    amid = "" if at is None else f"host perf_open name=own events=instructions:uH at={at}\n"
    return Transition(f"""
        vm0/0 switch
        {reset("vm0/0")}
        {count_from("vm0/0", 100, 200, 300, 400)}
        vm0/0 preempt
        {amid}
        vm0/0 switch
        {"" if amid else OPEN}
        {work("vm0/0", 50)}
        {read("vm0/0", 4)}
        vm0/0 preempt
        {work("host/0", 1000)}
        {OWN}
        """)


SQUEEZE = Transition(f"""
    {GROUP}
    {work("host/0", 1000)}
    host perf_read name=group
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100, 200, 300, 400)}
    host perf_read name=group
    {work("vm0/0", 50)}
    host perf_read name=group
    {read("vm0/0", 4)}
    vm0/0 preempt
    host/0 mux
    {work("host/0", 1000)}
    host perf_read name=group
    """)

# One more pinned event than a guest with four counters leaves room for.
PINNED = Transition(f"""
    host perf_open name=pinned events=instructions:uDH,branches:uDH,branch-misses:uDH
    {work("host/0", 1000)}
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100, 200, 300, 400)}
    {work("vm0/0", 50)}
    {read("vm0/0", 4)}
    vm0/0 preempt
    {work("host/0", 1000)}
    host perf_read name=pinned
    """)

# One that a VMM has restored counts from its first entry on, before it has accessed its PMU.
RESTORED_COUNTING = Transition(f"""
    {OPEN}
    {RESTORED}
    vm0/0 set_one_reg register=PMCNTENSET_EL0 value=3
    vm0/0 switch
    {work("vm0/0", 300)}
    vm0/0 preempt
    {work("host/0", 1000)}
    vm0/0 switch
    {work("vm0/0", 22)}
    {read("vm0/0", 2)}
    {OWN}
    """)

# A flag that a guest sets itself interrupts it once it lets it, by PMINTENSET_EL1 and by PMCR_EL0.E. Its handler clears
# the flag.
OWN_FLAG = Transition(f"""
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100, 200)}
    vm0/0 msr register=PMINTENSET_EL1 value=2
    vm0/0 irq
    vm0/0 msr register=PMOVSSET_EL0 value=2
    vm0/0 irq
    vm0/0 msr register=PMINTENCLR_EL1 value=2
    vm0/0 msr register=PMOVSSET_EL0 value=2
    vm0/0 irq
    vm0/0 msr register=PMINTENSET_EL1 value=2
    vm0/0 irq
    vm0/0 msr register=PMCR_EL0 value=0
    vm0/0 msr register=PMOVSSET_EL0 value=2
    vm0/0 irq
    vm0/0 msr register=PMCR_EL0 value=1
    vm0/0 irq
    """)

# An operator leaves the host no counter, and a guest is loaded and put.
PARAMETER = Transition(f"""
    host perf_open name=pinned events=instructions:uDH
    {work("host/0", 1000)}
    host perf_read name=pinned
    vm0/0 switch
    host sysfs reserved_host_counters=0
    vm0/0 preempt
    {work("host/0", 1000)}
    host perf_read name=pinned
    """)

DEATH = Transition(
    f"""
    {OPEN}
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100)}
    {work("vm0/0", 11)}
    vm1/0 switch
    {reset("vm1/0")}
    {count_from("vm1/0", 200)}
    {work("vm1/0", 22)}
    host perf_open name=thread events=branches:uH thread=vm1/0
    vm1 kill
    {work("host/0", 1000)}
    {OWN}
    vm0/0 switch
    {work("vm0/0", 33)}
    {read("vm0/0")}
    """,
    guests=2,
)

# The host has every counter when the last VM is gone: a group of them all is on at once.
LAST_DEATH = Transition(f"""
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100, 200, 300, 400)}
    {work("vm0/0", 11)}
    vm0 kill
    {ALL}
    {work("host/0", 1000)}
    host perf_read name=all
    """)

OPENED_AFTER_DEATH = Transition("""
    vm0/0 switch
    host perf_open name=before events=instructions
    host perf_read name=before
    vm0 kill
    host perf_open name=after events=instructions
    host perf_read name=after
    """)

CLOSE = Transition(f"""
    {OPEN}
    host perf_open name=watchdog events=branches:DH
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100, 200, 300, 400)}
    {work("vm0/0", 11)}
    host perf_close name=watchdog
    {work("vm0/0", 22)}
    {read("vm0/0", 4)}
    vm0/0 preempt
    {work("host/0", 1000)}
    {OWN}
    host perf_close name=own
    {ALL}
    {work("host/0", 1000)}
    host perf_read name=all
    """)
CLOSED = Transition(CLOSE.steps + "host perf_close name=all\n")

COUNTERS = range(4)
# Each register of a guest's PMU that has a ONE_REG id, and is neither a view of another nor of the CPU; PMCR_EL0 comes
# last: what it enables counts from there on.
WRITTEN: Final = {
    **{
        f"PMEVTYPER{n}_EL0": filters | event
        for n, filters, event in zip(
            COUNTERS, (0x8000_0000, 0x4000_0000, 0xC000_0000, 0x8800_0000), (0x08, 0x21, 0x11, 0x10), strict=True
        )
    },
    **{
        f"PMEVCNTR{n}_EL0": value
        for n, value in zip(COUNTERS, (100, 0x1_2345_6780, 0xFEDC_BA98_0000_0002, 0xFFFF_FFFE), strict=True)
    },
    "PMCCFILTR_EL0": 0xC000_0000,
    "PMCCNTR_EL0": 0x1234_5678_9ABC_DEF0,
    "PMSELR_EL0": 2,
    "PMUSERENR_EL0": 0xD,
    "PMCNTENSET_EL0": 0x8000_0005,
    "PMINTENSET_EL1": 0x8000_0002,
    "PMOVSSET_EL0": 0xC,
    "PMCR_EL0": 0xE1,
}
GIVEN: Final = {**WRITTEN, "PMEVCNTR0_EL0": 111, "PMCR_EL0": 0x20E1}  # after 11 instructions


def save() -> Transition:
    """KVM_GET_ONE_REG of each register of a vCPU that has been put."""
    write = "".join(f"vm0/0 msr register={name} value={value}\n" for name, value in WRITTEN.items())
    get = "".join(f"vm0/0 get_one_reg register={name}\n" for name in WRITTEN)
    return Transition(
        f"""
    vm0/0 switch
    {reset("vm0/0")}
    {write}
    vm0/0 isb
    {work("vm0/0", 11)}
    vm0/0 preempt
    {work("host/0", 1000)}
    {get}
    """,
        guests=2,
    )


def restore(*saved: int) -> Transition:
    """And KVM_SET_ONE_REG, for another VM, of what it gave; its guest reads it, and goes on."""
    put = cleared("vm1/0") + "".join(
        f"vm1/0 set_one_reg register={name} value={value}\n" for name, value in zip(WRITTEN, saved, strict=True)
    )
    return Transition(
        f"""
    {save().steps}
    {put}
    vm1/0 switch
    {"".join(f"vm1/0 mrs register={name}" + chr(10) for name in WRITTEN)}
    {work("vm1/0", 22)}
    {read("vm1/0")}
    """,
        guests=2,
    )


# Those that any design can be put through, by name.
TRANSITIONS: Final = {
    "boot": BOOT,
    "load": LOAD,
    "put": PUT,
    "access": FIRST_ACCESS,
    "preempted-load": preempted("load", 2),
    "preempted-access": preempted("access", 20),
    "preempted-put": preempted("put", 2),
    "migration": MIGRATION,
    "arrival": arrival(None),
    "arrival-in-load": arrival(2),
    "squeeze": SQUEEZE,
    "death": DEATH,
    "last-death": LAST_DEATH,
    "close": CLOSE,
    "restore": restore(*GIVEN.values()),
}

# In which one follows the other where all are put through by the same two VMs: what needs a VM that has never run
# comes first, what kills it last.
_ORDER: Final = (
    "boot",
    "restore",
    *(name for name in TRANSITIONS if name not in ("boot", "restore", "death", "last-death")),
)


def all_of_them() -> Transition:
    """One after the other, in one run."""
    parts = ["vm1/0 migrate pcpu=0\n"]
    for name in (*_ORDER, "death", "last-death"):
        steps = TRANSITIONS[name].steps
        parts.append(steps)
        if name == "migration":
            parts.append("vm0/0 preempt\nvm0/0 migrate pcpu=0\n")
        if name != "last-death":
            parts.append("vm0/0 switch\nvm0/0 preempt\n")
        opened, closed = (re.findall(rf"perf_{action} name=(\w+)", steps) for action in ("open", "close"))
        parts += [f"host perf_close name={session}\n" for session in opened if session not in closed]
    return Transition("".join(parts), guests=2, pcpus=2)
