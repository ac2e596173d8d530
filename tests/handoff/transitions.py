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

AMID: Final = {  # the step of the vCPU's that comes after the preemption, and what comes before that
    "load": ("", "vm0/0 switch\n"),
    "access": ("vm0/0 switch\n", "vm0/0 mrs register=PMEVTYPER1_EL0\n"),
    "put": ("vm0/0 switch\n", "vm0/0 preempt\n"),
}


def preempted(amid: str, at: int) -> Transition:
    """It is to be preempted before operation `at` of KVM's amid a load, an access or a put."""
    before, step = AMID[amid]
    return Transition(f"""
        {OPEN}
        vm0/0 switch
        {reset("vm0/0")}
        {count_from("vm0/0", 100, 200)}
        {work("vm0/0", 11)}
        vm0/0 preempt
        {before}
        vm0/0 preempt at={at}
        {step}
        vm0/0 switch
        {work("vm0/0", 22)}
        vm0/0 preempt
        {work("host/0", 1000)}
        vm0/0 switch
        {read("vm0/0", 2)}
        {OWN}
        """)


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
    host perf_open name=group events={{instructions:uH,branches:uH,branch-misses:uH,dTLB-loads:uH,iTLB-loads:uH}}
    {work("host/0", 1000)}
    host perf_read name=group
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
    """)

SAVED = ("PMEVTYPER0_EL0", "PMEVCNTR0_EL0", "PMCNTENSET_EL0", "PMINTENSET_EL1", "PMOVSSET_EL0", "PMCR_EL0")


def save() -> Transition:
    """KVM_GET_ONE_REG of each register of a vCPU that has been put."""
    get = "".join(f"vm0/0 get_one_reg register={name}\n" for name in SAVED)
    return Transition(
        f"""
    vm0/0 switch
    {reset("vm0/0")}
    {count_from("vm0/0", 100)}
    {work("vm0/0", 11)}
    vm0/0 preempt
    {work("host/0", 1000)}
    {get}
    """,
        guests=2,
    )


def restore(*saved: int) -> Transition:
    """And KVM_SET_ONE_REG, for another VM, of what it gave."""
    put = cleared("vm1/0") + "".join(
        f"vm1/0 set_one_reg register={name} value={value}\n" for name, value in zip(SAVED, saved, strict=True)
    )
    return Transition(
        f"""
    {save().steps}
    {put}
    vm1/0 switch
    vm1/0 mrs register=PMEVTYPER0_EL0
    {read("vm1/0")}
    {work("vm1/0", 22)}
    {read("vm1/0")}
    """,
        guests=2,
    )


AS_WRITTEN = (0x8000_0008, 111, 1, 0, 0, 0x2041)  # what `save` gives where it is right, by SAVED

# Those that any design can be put through, by name.
TRANSITIONS: Final = {
    "boot": BOOT,
    "load": LOAD,
    "put": PUT,
    "access": FIRST_ACCESS,
    "preempted-load": preempted("load", 2),
    "preempted-access": preempted("access", 2),
    "preempted-put": preempted("put", 2),
    "migration": MIGRATION,
    "arrival": arrival(None),
    "arrival-in-load": arrival(2),
    "squeeze": SQUEEZE,
    "death": DEATH,
    "last-death": LAST_DEATH,
    "close": CLOSE,
    "restore": restore(*AS_WRITTEN),
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
