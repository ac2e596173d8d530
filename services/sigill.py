"""Why a kernel kills a program whose read of a counter at EL0 is UNDEFINED (el0_sys, do_el0_undef; Linux 6.12)."""

from __future__ import annotations

from typing import Final

from services._pmu import register_name
from services.registers import encoding

EC_SHIFT: Final = 26
EC_SYS64: Final = 0x18  # a trapped MSR, MRS or system instruction: the syndrome says which


def reason(esr: int) -> str:
    """What its kernel knows of it: the syndrome of the exception. Not an ID register, so it is not emulated."""
    if esr >> EC_SHIFT != EC_SYS64:
        return f"its read of a counter at EL0 is UNDEFINED (ESR {esr:#x})"
    register = encoding(esr >> 20 & 3, esr >> 14 & 7, esr >> 10 & 15, esr >> 1 & 15, esr >> 17 & 7)
    return f"PMUSERENR_EL0 on the CPU does not let EL0 read {register_name(register)} (ESR {esr:#x})"
