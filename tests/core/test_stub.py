"""The stub of the extension against the extension."""

from __future__ import annotations

import re
import subprocess
import sys

from services import _pmu, registers


def test_the_stub_is_the_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "services._pmu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_constants_are_the_core_s_registers() -> None:
    named = {name: value for name, value in vars(registers).items() if re.fullmatch(r"[A-Z]\w+_EL[0-3]", name)}
    assert named == {name: _pmu.register_encoding(name) for name in named}
    assert {"PMCR_EL0", "MDCR_EL2", "ICC_SGI1R_EL1"} <= named.keys()
    for n in range(registers.EVENT_COUNTERS):
        assert registers.PMEVCNTR(n) == _pmu.register_encoding(f"PMEVCNTR{n}_EL0")
        assert registers.PMEVTYPER(n) == _pmu.register_encoding(f"PMEVTYPER{n}_EL0")


def test_the_constants_are_the_core_s_fields() -> None:
    prefixes = {
        "PMCR": ("PMCR_EL0",),
        "PMEVTYPER": ("PMEVTYPER0_EL0",),
        "PMUSERENR": ("PMUSERENR_EL0",),
        "MDCR_EL2": ("MDCR_EL2",),
        "HCR_EL2": ("HCR_EL2",),
    }
    for prefix, (register,) in prefixes.items():
        fields = {f"{prefix}_{field.name.upper()}": field.mask for field in _pmu.register_fields(register)}
        constants = {
            name: value
            for name, value in vars(registers).items()
            if name.startswith(f"{prefix}_") and not name.endswith(("_SHIFT", "_EL0"))
        }
        assert constants.items() <= fields.items()
