"""What posted versions and `raw` are known to break when counters change hands, and why: by the numbers of the defects
that reviewers reported (B) or that are candidates (N)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.handoff.transitions import TRANSITIONS

B18 = "B18: MDCR_EL2 has no HPME: the host's range stands still while the vCPU is loaded"
B39 = "B39: the access that has the guest's registers loaded is carried out before they are"
B46 = "B46: PMXEVCNTR_EL0 with PMSELR_EL0.SEL = 31, which is UNDEFINED on this CPU"
B49 = "B49: no ISB between the write of PMSELR_EL0 and the access of PMXEVCNTR_EL0"
N1 = "N1, B54: the first access loads nothing and squeezes nothing: what is on the CPU is taken for the guest's"
N6 = "N6: while the vCPU is FREE, MDCR_EL2.HPMD keeps the host's events from counting at EL2"
N8 = "N8: what has been restored, or written while the vCPU was FREE, is in memory and not on the CPU"
N10 = "N10: an event type goes to memory, and reaches the CPU at the next load"
N19 = "N19: MDCR_EL2 has no HLP: host events that are long by PMCR_EL0.LP overflow at bit 31 meanwhile"
N21 = "N21: PMUSERENR_EL0 is what KVM's trap set-up has written"
SAVED = "up to v4 kvm_pmu_put() finds the host's PMUSERENR_EL0, and saves it as the guest's"
STAYS = "v5 leaves the guest's PMUSERENR_EL0 on the CPU at put"
TYPES = "event types are no part of the swap: on another CPU the guest has none of them"
RAW = "nothing is saved or restored, and nothing traps"


@dataclass(frozen=True, slots=True)
class Known:
    """One thing that the judge finds of some designs in some transitions, and nowhere else."""

    designs: str
    found: str  # invariant and kind
    transitions: str
    why: str


def but(names: str = "") -> str:
    """All transitions but these."""
    return " ".join(name for name in TRANSITIONS if name not in names.split())


KNOWN: Final = (
    Known("raw", "I1 guest_entry", but(), RAW),
    Known("v4 v8 v9", "I1 guest_entry", but(), N1),
    Known("v7", "I1 guest_entry", but("boot"), N1),
    Known("raw", "I1 guest_read", but("boot load arrival-in-load squeeze last-death close"), RAW),
    Known("v4", "I1 guest_read", "boot restore", N1),
    Known("v6", "I1 guest_entry", "restore", N8),
    Known("v6 v7 v8 v9", "I1 guest_read", "restore", N8),
    Known("raw", "I2 event_count", but("boot access arrival arrival-in-load last-death restore"), RAW),
    Known("v4", "I2 event_count", "put preempted-load preempted-access preempted-put migration death close", N1),
    Known("v7", "I2 event_count", "load put migration squeeze death close", N1),
    Known("v8 v9", "I2 event_count", "squeeze", N1),
    Known("raw", "I2 host_read", but("boot access arrival arrival-in-load last-death restore"), RAW),
    Known("v4", "I2 host_read", "put preempted-load preempted-access preempted-put migration death close", N1),
    Known("v7", "I2 host_read", "load put migration squeeze death close", N1),
    Known("v8 v9", "I2 host_read", "squeeze", N1),
    Known("raw", "I2 host_state", but("boot access arrival arrival-in-load last-death"), RAW),
    Known("v5", "I2 host_state", "restore", STAYS),
    Known("v4", "I2 host_state", but("boot access arrival arrival-in-load squeeze last-death restore"), N1),
    Known("v7", "I2 host_state", but("boot access arrival arrival-in-load last-death restore"), N1),
    Known("v8 v9", "I2 host_state", "squeeze", N1),
    Known("v1 v2 v3", "I3 event_count", "boot close", B18),
    Known("v4", "I3 event_count", "boot", B18),
    Known("v7", "I3 event_count", "boot preempted-load preempted-access preempted-put migration death", f"{N6}; {N1}"),
    Known("v8 v9", "I3 event_count", "boot close", f"{N6}; {N1}"),
    Known("raw", "I3 host_state", "put preempted-load preempted-access preempted-put death", RAW),
    Known(
        "v1 v2 v3 v4",
        "I3 host_state",
        but("access arrival arrival-in-load squeeze last-death restore"),
        f"{B18}; {N19}",
    ),
    Known("v5 v6", "I3 host_state", but("access arrival arrival-in-load squeeze last-death restore"), N19),
    Known("v7", "I3 host_state", but("load access arrival arrival-in-load last-death restore"), N19),
    Known("v8 v9", "I3 host_state", but("access arrival arrival-in-load last-death"), N19),
    Known("v6 v7", "I4 guest_entry", but("boot arrival arrival-in-load last-death restore"), N10),
    Known("v8", "I4 guest_entry", but("boot arrival arrival-in-load last-death"), N10),
    Known("raw", "I4 guest_entry", "close", RAW),
    Known("v1", "I4 guest_entry", "migration", TYPES),
    Known("raw", "I4 guest_read", "close", RAW),
    Known("v1", "I4 guest_read", "migration", TYPES),
    Known("v6", "I4 guest_read", but("boot arrival arrival-in-load last-death restore"), N10),
    Known("v7 v8", "I4 guest_read", but("boot arrival arrival-in-load last-death"), N10),
    Known("v6", "I6 unsynchronised", but(), B49),
    Known("v7", "I6 unsynchronised", but("boot load"), B49),
    Known("v6 v7 v8", "I6 without_effect", but("boot"), N10),
    Known("raw", "I6 without_effect", "preempted-access", RAW),
    Known("raw", "I7 guest_entry", "boot close", RAW),
    Known("v4 v6 v8 v9", "I7 guest_entry", but(), f"{N21}; {N8}"),
    Known("v7", "I7 guest_entry", but("boot"), f"{N21}; {N8}"),
    Known("raw", "I7 guest_read", "boot", RAW),
    Known("v4 v5 v8 v9", "I7 guest_read", "boot", f"{B39}; {N8}"),
    Known("v4 v6 v7 v8 v9", "I7 guest_read", "restore", f"{N21}; {N8}"),
    Known("v8", "I7 restored", "put access preempted-load preempted-access preempted-put migration death", N10),
    Known("v6", "I8 undefined", but(), B46),
    Known("raw", "I8 guest_entry", "restore", RAW),
    Known("raw", "I8 guest_read", "restore", RAW),
    Known("raw", "I10 host_placement", but("access arrival-in-load last-death restore"), RAW),
    Known("v7", "I10 host_placement", but("boot access arrival arrival-in-load last-death restore"), N1),
    Known("v8 v9", "I10 host_placement", "squeeze restore", N1),
    Known("raw", "I11 one_reg", "restore", RAW),
    Known("v1 v2 v3 v4", "I11 one_reg", "restore", SAVED),
    Known("v9", "I11 one_reg", "restore", N21),
    Known("v6 v7 v8", "I11 one_reg", "restore", N10),
)


def known_of(design: str, transition: str) -> set[str]:
    """What is found of it there."""
    short = design.removeprefix("partitioned-")
    return {
        known.found for known in KNOWN if short in known.designs.split() and transition in known.transitions.split()
    }
