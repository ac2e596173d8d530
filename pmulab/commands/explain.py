"""`pmulab explain REGISTER`: its fields, a value of it field by field, or what an access would do and by which rule."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping

import trio

from pmulab import effect
from pmulab.columns import WIDTH
from pmulab.commands.registers import encoding
from pmulab.designs import parse_design
from pmulab.explained import Explained
from pmulab.register_names import field, register
from services import _pmu
from services.errors import UserError
from services.experiment import CpuSpec
from services.kvm.designs import named
from services.registers import EVENT_COUNTERS, MASK64, counter_mask

_NO_WRITE, _NO_VALUE = None, ""  # of --write


def main(arguments: argparse.Namespace) -> int:
    if arguments.write and arguments.register[:1].isdigit():  # --write REGISTER VALUE
        arguments.register, arguments.value, arguments.write = arguments.write, arguments.register, _NO_VALUE
    name = register(arguments.register)
    value = _value(arguments)
    if arguments.design is None and (arguments.vcpu is not None or arguments.counters is not None):
        raise UserError("--vcpu, --counters", "they are of a design's vCPU", "add --design NAME")
    if arguments.design is None and arguments.el is None and (arguments.settings or arguments.features):
        raise UserError("--set, --feature", "they say where an access is made", "add for example --el 1")
    lines = _about(name)
    if value is not None:
        lines += _fields(name, value)
    elif arguments.el is None and arguments.design is None:
        lines += _fields(name, None)
    if arguments.design is not None:
        lines += trio.run(_under_design, name, value, arguments)
    elif arguments.el is not None:
        lines += _access(name, value, arguments)
    elif arguments.read or arguments.write is not _NO_WRITE:
        raise UserError("--read, --write", "an access from which exception level?", "add for example --el 1")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _value(arguments: argparse.Namespace) -> int | None:
    """The value to be taken apart or written: VALUE, or that of --write."""
    if arguments.write in (_NO_WRITE, _NO_VALUE):
        return None if arguments.value is None else _number(arguments.value, "VALUE")
    if arguments.value is not None:
        raise UserError("--write", f"{arguments.write}, and before it {arguments.value}", "give one value")
    return _number(arguments.write, "--write")


def _about(name: str) -> list[str]:
    packed = _pmu.register_encoding(name)
    return [f"{name}: {encoding(packed)} (op0,op1,CRn,CRm,op2), {packed:#06x} as KVM's ONE_REG packs it"]


def _fields(name: str, value: int | None) -> list[str]:
    lines = []
    for one in _pmu.register_fields(name):
        shift = (one.mask & -one.mask).bit_length() - 1
        top = one.mask.bit_length() - 1
        place = f"[{top}]" if top == shift else f"[{top}:{shift}]"
        content = "" if value is None else f" = {(value & one.mask) >> shift:#x}"
        lines += textwrap.wrap(
            f"{one.name}{content}: {one.text}".replace("`", ""),
            WIDTH,
            initial_indent=f"  {place:8} ",
            subsequent_indent=" " * 11,
        )
    return lines or ["  no fields: a value, or a bit per counter"]


def _access(name: str, value: int | None, arguments: argparse.Namespace) -> list[str]:
    features = _features(arguments)
    settings = _settings(arguments, features)
    write = arguments.write is not _NO_WRITE
    answer = _explain(name, arguments.el, write, features, settings)
    return _answer(name, value, arguments.el, answer, features, settings, write=write)


def _explain(name: str, el: int, write: bool, features: dict[str, int], settings: dict[str, int]) -> _pmu.Explanation:
    return _pmu.explain(name, el, write=write, features=features, settings=settings)


def _answer(
    name: str,
    value: int | None,
    el: int,
    answer: _pmu.Explanation,
    features: dict[str, int],
    settings: dict[str, int],
    *,
    write: bool,
) -> list[str]:
    lines = [f"  {'written' if write else 'read'} at EL{el}: {_outcome(answer)}"]
    if answer.value is not None:
        lines.append(f"  reads {answer.value:#x}")
    if answer.visible is not None:
        lines.append(f"  sees the bits {answer.visible:#x}, the others are RAZ/WI:")
        lines.append(f"    {answer.accessible} event counters are accessible [MDCR_EL2.HPMN; at EL0 PMUACR_EL1 too]")
    if write and value is not None and answer.outcome == "executed":
        changes = effect.of_write(name, value, el, features, settings)
        for change in changes:
            lines += textwrap.wrap(change, WIDTH, initial_indent="  ", subsequent_indent="    ")
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


# Under a design.


async def _under_design(name: str, value: int | None, arguments: argparse.Namespace) -> list[str]:
    el = 1 if arguments.el is None else arguments.el
    if el > 1:
        raise UserError("--el", "under a design a guest makes the access", "give 0 or 1, or leave --design out")
    features = _features(arguments)
    spec = _spec(features)
    saved = _settings(arguments, features)
    try:
        chosen = parse_design(arguments.design)
    except UserError as error:
        raise error.within(f"--design {arguments.design}") from None
    counters = spec.counters if arguments.counters is None else arguments.counters
    if not 0 <= counters <= EVENT_COUNTERS:
        raise UserError("--counters", f"{counters} event counters", f"give 0 to {EVENT_COUNTERS}")
    design = named(chosen.name).make(chosen.axes, counter_mask(counters))
    fallbacks = design.check(spec, counters)
    explained = Explained(design, spec, counters, features)
    for one in saved:
        if not explained.has(one):
            raise UserError(f"--set {one}", "under a design it sets registers of the guest's PMU", "leave --design out")
    await explained.load(used=arguments.vcpu != "free", saved=saved)
    write = arguments.write is not _NO_WRITE
    settings = explained.settings()
    answer = _explain(name, el, write, features, settings)
    controls = ("MDCR_EL2", "PMUSERENR_EL0", *(("HDFGRTR_EL2", "HDFGWTR_EL2") if spec.fgt else ()))
    state = "loaded again after its first access" if arguments.vcpu != "free" else "loaded, its PMU untouched"
    lines = [f"  under {arguments.design}, {counters} event counters, {state}:"]
    lines.append("    " + ", ".join(f"{control} {settings[control]:#x}" for control in controls))
    lines += [f"    falls back: {fallback}" for fallback in fallbacks]
    lines += _answer(name, value, el, answer, features, settings, write=write)
    if answer.outcome == "trapped" and answer.target == 2:
        lines += await _emulated(explained, name, value, el, write=write)
    return lines


async def _emulated(explained: Explained, name: str, value: int | None, el: int, *, write: bool) -> list[str]:
    """What KVM makes of an access that has trapped to it."""
    way = "on the fast path" if explained.fast(name, write) else "in the host's kernel"
    if el == 0 and explained.el0_disabled(name, write):
        return [f"  KVM, {way}: UNDEFINED at EL1, as the guest's PMUSERENR_EL0 has it (check_pmu_access_disabled)"]
    emulated = await explained.trapped(name, write, value or 0)
    of_what = " of 0, as no value is given" if write and value is None else ""
    if write and effect.start(name, value or 0):
        of_what = ", the guest's counters not being 0"
    lines = [f"  KVM, {way}{of_what}:", *(f"    {told}" for told in emulated.told)]
    if emulated.value is None:
        return [*lines, "    injects an UNDEFINED exception"]
    if write:
        changed = emulated.changed or ([] if emulated.told else ["nothing changes"])
        for one in changed:
            lines += textwrap.wrap(f"in memory: {one}", WIDTH, initial_indent="    ", subsequent_indent="      ")
        return lines
    return [*lines, f"    the guest reads {emulated.value:#x}"]


def _spec(features: Mapping[str, int]) -> CpuSpec:
    """The CPU of `_pmu`'s default features, but for `features`, as KVM sees it."""
    return CpuSpec(
        "the CPU",
        features.get("counters", 6),
        features.get("pmuver", 6),
        fgt=features.get("fgt", 1),
        hpmn0=bool(features.get("hpmn0", 0)),
        icntr=bool(features.get("icntr", 0)),
    )


# Options.


def _features(arguments: argparse.Namespace) -> dict[str, int]:
    features: dict[str, int] = {}
    for text in arguments.features:
        name, value = _assignment(text, "--feature", "pmuver=9")
        if name in features:
            raise UserError(f"--feature {text}", f"{name} is given twice", "leave one out")
        features[name] = value
    try:
        _pmu.explain("PMCR_EL0", 2, write=False, features=features, settings={})
    except ValueError as error:
        raise UserError("--feature", str(error), "docs/pmu.md lists the features and their values") from None
    return features


def _settings(arguments: argparse.Namespace, features: dict[str, int]) -> dict[str, int]:
    """A field that is set leaves the rest of its register as it is after a reset."""
    settings: dict[str, int] = {}
    given: dict[str, int] = {}  # the bits
    for text in arguments.settings:
        name, mask, value = _setting(text)
        if given.setdefault(name, 0) & mask:
            raise UserError(f"--set {text}", "it is set twice", "leave one out")
        given[name] |= mask
        if name not in settings:
            reset = _explain(name, 2, False, features, {})
            settings[name] = reset.value or 0
        settings[name] = settings[name] & ~mask | value
    return settings


def _setting(text: str) -> tuple[str, int, int]:
    """The register, and which bits of it become what."""
    target, value = _assignment(text, "--set", "MDCR_EL2.HPMN=4")
    named_register, dot, field_name = target.partition(".")
    name = register(named_register)
    if not dot:
        return name, MASK64, value
    found = field(name, field_name)
    if found is None:
        known = ", ".join(one.name for one in _pmu.register_fields(name)) or "none"
        raise UserError(f"--set {text}", f"{name} has no field {field_name}", f"it has {known}")
    shift = (found.mask & -found.mask).bit_length() - 1
    if value > found.mask >> shift:
        raise UserError(
            f"--set {text}", f"{value:#x} does not fit {found.name}", f"it holds at most {found.mask >> shift:#x}"
        )
    return name, found.mask, value << shift


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
