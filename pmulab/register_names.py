"""A register as a user may name it: by its architectural name in any case, or by its encoding, `S3_3_C9_C12_0`."""

from __future__ import annotations

import re
from functools import cache

from services import _pmu
from services.errors import UserError
from services.registers import encoding
from services.tables import meant

_GENERIC = re.compile(r"S(\d+)_(\d+)_C(\d+)_C(\d+)_(\d+)", re.IGNORECASE)
_LIMITS = (4, 8, 16, 16, 8)  # of op0, op1, CRn, CRm, op2


@cache
def _names() -> dict[str, str]:
    return {name.upper(): name for name in _pmu.register_names()}


@cache
def _by_encoding() -> dict[int, str]:
    return {_pmu.register_encoding(name): name for name in _pmu.register_names()}


def register(text: str) -> str:
    """The architectural name of the register that `text` names. Raises UserError."""
    name = _names().get(text.upper())
    generic = _GENERIC.fullmatch(text)
    if generic is not None:
        parts = [int(part) for part in generic.groups()]
        if all(part < limit for part, limit in zip(parts, _LIMITS, strict=True)):
            name = _by_encoding().get(encoding(*parts))
    if name is None:
        listed = "`pmulab registers` lists them, with n for the counter"
        raise UserError("", f"no register {text}", meant(text, _names().values()) or listed)
    return name


def field(register_name: str, text: str) -> _pmu.Field | None:
    """The field that `text` names in any case."""
    return next((one for one in _pmu.register_fields(register_name) if one.name.upper() == text.upper()), None)
