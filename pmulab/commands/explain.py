"""`pmulab explain REGISTER`: its fields, a value of it field by field, or what an access would do and by which rule."""

from __future__ import annotations

import argparse
import sys
import textwrap

from pmulab.columns import WIDTH
from pmulab.commands.registers import encoding
from services import _pmu
from services.errors import UserError


def main(arguments: argparse.Namespace) -> int:
    name: str = arguments.register
    _require_register(name)
    lines = _about(name)
    if arguments.value is not None:
        lines += _fields(name, _number(arguments.value, "VALUE"))
    elif arguments.el is None:
        lines += _fields(name, None)
    if arguments.el is not None:
        lines += _access(name, arguments)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _require_register(name: str) -> None:
    try:
        _pmu.register_encoding(name)
    except KeyError:
        raise UserError("", f"no register {name}", "`pmulab registers` lists them, with n for the counter") from None


def _about(name: str) -> list[str]:
    packed = _pmu.register_encoding(name)
    return [f"{name}: {encoding(packed)} (op0,op1,CRn,CRm,op2), {packed:#06x} as KVM's ONE_REG packs it"]


def _fields(name: str, value: int | None) -> list[str]:
    lines = []
    for field in _pmu.register_fields(name):
        shift = (field.mask & -field.mask).bit_length() - 1
        top = field.mask.bit_length() - 1
        bits = f"[{top}]" if top == shift else f"[{top}:{shift}]"
        content = "" if value is None else f" = {(value & field.mask) >> shift:#x}"
        lines += textwrap.wrap(
            f"{field.name}{content}: {field.text}".replace("`", ""),
            WIDTH,
            initial_indent=f"  {bits:8} ",
            subsequent_indent=" " * 11,
        )
    return lines or ["  no fields: a value, or a bit per counter"]


def _access(name: str, arguments: argparse.Namespace) -> list[str]:
    features = dict(_assignment(text, "--feature", "pmuver=9") for text in arguments.features)
    settings: dict[str, int] = {}
    for text in arguments.settings:
        _set(settings, text, features)
    try:
        answer = _pmu.explain(name, arguments.el, write=arguments.write, features=features, settings=settings)
    except ValueError as error:
        raise UserError("--feature", str(error), "docs/pmu.md lists the features and their values") from None
    lines = [f"  {'written' if arguments.write else 'read'} at EL{arguments.el}: {_outcome(answer)}"]
    if answer.value is not None:
        lines.append(f"  reads {answer.value:#x}")
    if answer.visible is not None:
        lines.append(f"  sees the bits {answer.visible:#x}, the others are RAZ/WI:")
        lines.append(f"    {answer.accessible} event counters are accessible [MDCR_EL2.HPMN; at EL0 PMUACR_EL1 too]")
    if answer.rule is None:
        return [*lines, "  by no rule: nothing traps or forbids it"]
    lines.append(f"  by the rule: {answer.rule.name}{' (unverified)' if answer.rule.unverified else ''}")
    lines += textwrap.wrap(answer.rule.text, WIDTH, initial_indent="    ", subsequent_indent="    ")
    lines.append(f"    [{answer.rule.source}]")
    if answer.rule.choice:
        lines.append(f"    a choice that the architecture leaves open: --feature {answer.rule.choice}=0, 1, 2")
    return lines


def _outcome(answer: _pmu.Explanation) -> str:
    match answer.outcome:
        case "trapped":
            return f"trapped to EL{answer.target}, ESR_EL{answer.target} {answer.esr:#x}"
        case "UNDEFINED":
            return f"UNDEFINED, an exception to EL{answer.target}, ESR_EL{answer.target} {answer.esr:#x}"
        case outcome:
            return outcome


def _set(settings: dict[str, int], text: str, features: dict[str, int]) -> None:
    """Put one assignment into `settings`; a field leaves the rest of its register as it is after a reset."""
    target, value = _assignment(text, "--set", "MDCR_EL2.HPMN=4")
    register, dot, field_name = target.partition(".")
    _require_register(register)
    if not dot:
        settings[register] = value
        return
    field = next((field for field in _pmu.register_fields(register) if field.name == field_name), None)
    if field is None:
        known = ", ".join(field.name for field in _pmu.register_fields(register)) or "none"
        raise UserError(f"--set {text}", f"{register} has no field {field_name}", f"it has {known}")
    shift = (field.mask & -field.mask).bit_length() - 1
    if value > field.mask >> shift:
        raise UserError(
            f"--set {text}", f"{value:#x} does not fit {field_name}", f"it holds at most {field.mask >> shift:#x}"
        )
    if register not in settings:
        reset = _pmu.explain(register, 2, write=False, features=features, settings={})
        settings[register] = reset.value or 0
    settings[register] = settings[register] & ~field.mask | value << shift


def _assignment(text: str, option: str, example: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{option} {text}", "not of the form NAME=VALUE", f"write for example {example}")
    return name, _number(value, f"{option} {name}")


def _number(text: str, what: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise UserError(what, f"{text!r} is not a number", "write for example 4 or 0x84") from None
    if not 0 <= number < 1 << 64:
        raise UserError(what, f"{text} does not fit 64 bits", "give a number from 0 to 2^64 - 1")
    return number
