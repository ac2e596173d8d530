"""A cost table from what kvm-unit-tests' arm micro-bench measured on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from services import costs
from services.errors import UserError

_ROWS: Final = {
    "hvc": "hyp_call",  # its name before 2025
    "hyp_call": "hyp_call",
    "mmio_read_vgic": "mmio_read_vgic",
    "mmio_read_user": "mmio_read_user",
    "timer_10ms": "timer_10ms",
    "ipi": "ipi",
}

_REMEDY: Final = "give what kvm-unit-tests' arm micro-bench printed"


def derive(text: str, base: str = costs.DEFAULT, title: str = "from kvm-unit-tests micro-bench") -> dict[str, Any]:
    """A cost table, as data for TOML, from what kvm-unit-tests' arm micro-bench printed on a machine.

    Its rows are `name  total ns  avg ns`; what no row measures is taken from the table `base`. Raises UserError if
    no row of it is there.
    """
    averages: dict[str, Decimal] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[0] in _ROWS:
            try:
                averages[_ROWS[fields[0]]] = Decimal(fields[2])
            except ArithmeticError:
                raise UserError(
                    f"micro-bench row {line.strip()!r}", f"{fields[2]!r} is not a number of ns", _REMEDY
                ) from None
    if "hyp_call" not in averages:
        raise UserError("micro-bench", "there is no row hyp_call or hvc", _REMEDY)
    measured: dict[str, Any] = {"title": title, "base": base, "clock_hz": costs.table(base).clock_hz}
    null = averages["hyp_call"]
    measured["exit_full_null"] = _measured(null, "hyp_call")
    if "mmio_read_vgic" in averages:
        middle = (null + averages["mmio_read_vgic"]) / 2
        measured["exit_full_sysreg"] = _measured(middle, "")
        measured["exit_full_sysreg"]["source"] = "assumed: midway between micro-bench's hyp_call and mmio_read_vgic"
    if "mmio_read_user" in averages:
        measured["exit_user"] = _measured(averages["mmio_read_user"], "mmio_read_user")
    if "timer_10ms" in averages:
        measured["virq_inject"] = _measured(averages["timer_10ms"], "timer_10ms", ("exit_full_null", "irq_entry"))
    if "ipi" in averages:
        measured["sgi"] = _measured(averages["ipi"], "ipi", ("msr", "exit_full_sysreg", "exit_full_null", "irq_entry"))
    return measured


def _measured(value: Decimal, row: str, contains: tuple[str, ...] = ()) -> dict[str, Any]:
    figure: dict[str, Any] = {"value": value, "unit": "ns", "source": f"kvm-unit-tests micro-bench: {row}"}
    return {**figure, "contains": list(contains)} if contains else figure


def to_toml(data: Mapping[str, Any]) -> str:
    """A table as `derive` made it, as TOML that `costs.table` reads."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in data.items())


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
