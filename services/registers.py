"""Registers by their architectural names, as encodings, and the fields that drivers use.

An encoding is (op0, op1, CRn, CRm, op2) packed into 16 bits as KVM's ONE_REG ids pack it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final


def encoding(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The packed encoding."""
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


PMCR_EL0: Final = encoding(3, 3, 9, 12, 0)
PMCNTENSET_EL0: Final = encoding(3, 3, 9, 12, 1)
PMCNTENCLR_EL0: Final = encoding(3, 3, 9, 12, 2)
PMOVSCLR_EL0: Final = encoding(3, 3, 9, 12, 3)
PMSWINC_EL0: Final = encoding(3, 3, 9, 12, 4)
PMSELR_EL0: Final = encoding(3, 3, 9, 12, 5)
PMCEID0_EL0: Final = encoding(3, 3, 9, 12, 6)
PMCEID1_EL0: Final = encoding(3, 3, 9, 12, 7)
PMCCNTR_EL0: Final = encoding(3, 3, 9, 13, 0)
PMXEVTYPER_EL0: Final = encoding(3, 3, 9, 13, 1)
PMXEVCNTR_EL0: Final = encoding(3, 3, 9, 13, 2)
PMUSERENR_EL0: Final = encoding(3, 3, 9, 14, 0)
PMOVSSET_EL0: Final = encoding(3, 3, 9, 14, 3)
PMICNTR_EL0: Final = encoding(3, 3, 9, 4, 0)
PMICFILTR_EL0: Final = encoding(3, 3, 9, 6, 0)
PMZR_EL0: Final = encoding(3, 3, 9, 13, 4)
PMINTENSET_EL1: Final = encoding(3, 0, 9, 14, 1)
PMINTENCLR_EL1: Final = encoding(3, 0, 9, 14, 2)
PMUACR_EL1: Final = encoding(3, 0, 9, 14, 4)
PMECR_EL1: Final = encoding(3, 0, 9, 14, 5)
PMMIR_EL1: Final = encoding(3, 0, 9, 14, 6)
PMCCFILTR_EL0: Final = encoding(3, 3, 14, 15, 7)
MDCR_EL2: Final = encoding(3, 4, 1, 1, 1)
HCR_EL2: Final = encoding(3, 4, 1, 1, 0)
HDFGRTR_EL2: Final = encoding(3, 4, 3, 1, 4)
HDFGWTR_EL2: Final = encoding(3, 4, 3, 1, 5)
HDFGRTR2_EL2: Final = encoding(3, 4, 3, 1, 0)
HDFGWTR2_EL2: Final = encoding(3, 4, 3, 1, 1)
ICC_SGI1R_EL1: Final = encoding(3, 0, 12, 11, 5)

EVENT_COUNTERS: Final = 31  # that the architecture has room for
CYCLE_COUNTER: Final = 31  # its bit in PMCNTENSET_EL0 and the like
CYCLE_BIT: Final = 1 << CYCLE_COUNTER
INSTRUCTION_COUNTER: Final = 32  # FEAT_PMUv3_ICNTR
INSTRUCTION_BIT: Final = 1 << INSTRUCTION_COUNTER

MASK32: Final = (1 << 32) - 1  # a counter's values, by its width
MASK64: Final = (1 << 64) - 1
S64_MIN: Final = -(1 << 63)


def PMEVCNTR(n: int) -> int:  # noqa: N802 - the architectural name
    """PMEVCNTR<n>_EL0."""
    return _PMEVCNTR[n]


def PMEVTYPER(n: int) -> int:  # noqa: N802 - the architectural name
    """PMEVTYPER<n>_EL0."""
    return _PMEVTYPER[n]


def counter_register(n: int) -> int:
    """Where counter `n` counts: PMEVCNTR<n>_EL0, or of the cycle counter PMCCNTR_EL0."""
    return PMCCNTR_EL0 if n == CYCLE_COUNTER else PMEVCNTR(n)


def type_register(n: int) -> int:
    """What it counts: PMEVTYPER<n>_EL0, or of the cycle counter PMCCFILTR_EL0."""
    return PMCCFILTR_EL0 if n == CYCLE_COUNTER else PMEVTYPER(n)


def counter_mask(events: int) -> int:
    """The event counters below `events`, and the cycle counter, one bit each."""
    return ((1 << events) - 1) | CYCLE_BIT


@lru_cache(maxsize=4096)
def bits(mask: int) -> tuple[int, ...]:
    """The positions of the bits that are set, ascending: the counters of a mask."""
    return tuple(position for position in range(mask.bit_length()) if mask >> position & 1)


_PMEVCNTR: Final = tuple(encoding(3, 3, 14, 8 | n >> 3, n & 7) for n in range(EVENT_COUNTERS))
_PMEVTYPER: Final = tuple(encoding(3, 3, 14, 12 | n >> 3, n & 7) for n in range(EVENT_COUNTERS))

# ID_AA64DFR0_EL1.PMUVer
PMUVER_NONE: Final = (0x0, 0xF)  # no PMU, or none of the architecture's
PMUVER_P1: Final = 4
PMUVER_P4: Final = 5
PMUVER_P5: Final = 6
PMUVER_P9: Final = 9

# PMCR_EL0
PMCR_E: Final = 1 << 0
PMCR_P: Final = 1 << 1
PMCR_C: Final = 1 << 2
PMCR_D: Final = 1 << 3
PMCR_X: Final = 1 << 4
PMCR_DP: Final = 1 << 5
PMCR_LC: Final = 1 << 6
PMCR_LP: Final = 1 << 7
PMCR_N_SHIFT: Final = 11
PMCR_N: Final = 0x1F << PMCR_N_SHIFT

# PMEVTYPER<n>_EL0, PMCCFILTR_EL0, PMICFILTR_EL0
PMEVTYPER_EVTCOUNT: Final = 0xFFFF
PMEVTYPER_NSH: Final = 1 << 27
PMEVTYPER_NSU: Final = 1 << 28
PMEVTYPER_NSK: Final = 1 << 29
PMEVTYPER_U: Final = 1 << 30
PMEVTYPER_P: Final = 1 << 31

# PMUSERENR_EL0
PMUSERENR_EN: Final = 1 << 0
PMUSERENR_SW: Final = 1 << 1
PMUSERENR_CR: Final = 1 << 2
PMUSERENR_ER: Final = 1 << 3

# PMMIR_EL1
PMMIR_SLOTS: Final = 0xFF

# MDCR_EL2
MDCR_EL2_HPMN: Final = 0x1F
MDCR_EL2_TPMCR: Final = 1 << 5
MDCR_EL2_TPM: Final = 1 << 6
MDCR_EL2_HPME: Final = 1 << 7
MDCR_EL2_HPMD: Final = 1 << 17
MDCR_EL2_HCCD: Final = 1 << 23
MDCR_EL2_HLP: Final = 1 << 26

# What traps every access of a guest to the PMU
PMU_TRAPS: Final = MDCR_EL2_TPM | MDCR_EL2_TPMCR

# HDFGRTR_EL2 and HDFGWTR_EL2: 1 traps
HDFG_PMEVCNTRN: Final = 1 << 12
HDFG_PMEVTYPERN: Final = 1 << 13
HDFG_PMCCFILTR: Final = 1 << 14
HDFG_PMCNTEN: Final = 1 << 16
HDFG_PMINTEN: Final = 1 << 17
HDFG_PMOVS: Final = 1 << 18
HDFGRTR_PMMIR: Final = 1 << 22
HDFGRTR_PMCEIDN: Final = 1 << 58
HDFGRTR_PMU: Final = 0xFF << 12 | HDFGRTR_PMMIR | 1 << 57 | HDFGRTR_PMCEIDN  # all of the PMU
HDFGWTR_PMU: Final = 0x3FF << 12 | 1 << 57

# HDFGRTR2_EL2 and HDFGWTR2_EL2: 0 traps. All of the PMU: PMECR_EL1, PMICNTR_EL0, PMICFILTR_EL0, PMUACR_EL1; PMZR_EL0
HDFGRTR2_PMU: Final = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4
HDFGWTR2_PMU: Final = HDFGRTR2_PMU | 1 << 21

# Events that the architecture itself uses
SW_INCR: Final = 0x0000
INST_RETIRED: Final = 0x0008
PC_WRITE_RETIRED: Final = 0x000C
CPU_CYCLES: Final = 0x0011
CHAIN: Final = 0x001E
BR_RETIRED: Final = 0x0021
