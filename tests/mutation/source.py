"""The mutants of `partitioned`'s own code: every statement deleted, and swapped with its neighbour; every mask and
every number of counters off by one; every operation done on the wrong CPU; every ISB missing.

Which functions these are of is a list, and what becomes of them none: all that can be generated is. A mutant is named
by its function, the text of its line and what has been done to it, so that the name outlives what is edited elsewhere.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_DESIGN = "services.kvm.designs.partitioned"

# What load, put, transition, traps and interrupts of `partitioned` are made of.
FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    f"{_DESIGN}.reviewed": (
        *(f"PartitionedPmu.{name}" for name in ("load", "_free_userenr", "_in_use", "_reside", "_takes")),
        *(
            f"PartitionedPmu.{name}"
            for name in ("_take_from_host", "_give_back", "_free_mdcr", "_set_traps", "_mdcr", "put", "_kick_if_due")
        ),
        *(f"PartitionedPmu.{name}" for name in ("access", "_first_access", "level", "guest_overflow")),
        "Partitioned.host_policy",
    ),
    f"{_DESIGN}.swap": (
        *("as_written", "without_el2", "enforced", "enables", "quiet"),
        *(f"SwapIn.{name}" for name in ("types", "counters", "selr", "pmcr", "clear_overflows", "overflows", "cnten")),
        *(f"SwapIn.{name}" for name in ("inten", "userenr", "done")),
        *(f"SwapOut.{name}" for name in ("counters", "selr", "pmcr", "cnten", "inten", "overflows", "userenr")),
        *(f"SwapOut.{name}" for name in ("clear_overflows", "disable", "host", "done", "_read", "_keep_counters")),
        *(f"SwapOut._keep_{name}" for name in ("selr", "pmcr", "cnten", "inten", "overflows", "userenr")),
    ),
    f"{_DESIGN}.host_pmcr": tuple(f"HostPmcr.{name}" for name in ("keep", "hpme", "hlp", "follow")),
    f"{_DESIGN}.context": (
        "_enables",
        *(f"PmuContext.{name}" for name in ("full", "resident", "set_traps", "more_traps", "lift_traps")),
        *(f"PmuContext.{name}" for name in ("_set_traps", "enables", "charged_to_swap", "overflow_status")),
        *(f"PmuContext.{name}" for name in ("may_interrupt", "take_overflows")),
    ),
    f"{_DESIGN}.trap_controls": ("free", "owned"),
    f"{_DESIGN}.guest_range": ("guest_range", "taken_from_host", "host_counters", "guest_flags", "every_counter"),
    f"{_DESIGN}.accesses": (
        *("selected", "selected_read", "selected_write", "has_counter", "read_counter", "write_counter"),
        *("read_type", "write_type", "keep_type", "types_written_through", "read_overflows", "clear_overflows"),
        *("set_overflows", "software_increment", "_counts_at_el1", "_increment", "read_register", "read_mask"),
        *("write_mask", "write_userenr", "write_selr", "read_pmcr", "write_pmcr", "reset_counters", "read_pmceid0"),
        *("read_pmceid1", "read_pmcr_in_memory", "write_pmcr_in_memory", "read_cnten_in_memory"),
        *("set_cnten_in_memory", "clear_cnten_in_memory", "apply_enables"),
    ),
    "services.linux_perf.interrupts": ("handle_irq",),
    "services.linux_perf.driver": ("_disable", "_enable", "_pmu_off", "_pmu_on", "_range"),
    "services.host_perf.kernel": ("HostCpu._guest_counters",),
}
_OF_GUESTS = ("guest", "split_irq", "own_flags", "off(cc)", "on(cc)")  # in the host's handler
_MADE_ONCE = ("selected_read", "selected_write", "types_written_through")  # what they have made is what is called
_MASKS = {"mask", "beyond", "event_mask"}
_NUMBERS = {"hpmn", "most"}
_OPERATIONS = {"kvm", "read", "write", "call"}
_RECEIVERS = {"context", "self.context", "vcpu", "self.vcpu", "context.vcpu"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one function."""

    name: str
    kind: str  # what has been done
    module: str
    function: str  # its qualified name, of the outermost one
    node: int  # in the order of ast.walk over the module
    change: str


Change = Callable[[ast.AST], ast.AST]


def mutants() -> list[Mutant]:
    """All, in the order of the source."""
    found = [one for module, functions in FUNCTIONS.items() for one in _of_module(module, functions)]
    seen: Counter[str] = Counter()
    named = []
    for one in found:
        seen[one.name] += 1
        number = f" #{seen[one.name]}" if seen[one.name] > 1 else ""
        named.append(Mutant(one.name + number, one.kind, one.module, one.function, one.node, one.change))
    return named


@cache
def path_of(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def _of_module(module: str, functions: tuple[str, ...]) -> Iterator[Mutant]:
    tree = _tree(module)
    numbers = {id(node): number for number, node in enumerate(ast.walk(tree))}
    lines = path_of(module).read_text(encoding="utf-8").splitlines()
    of = dict(_functions(tree))
    for function in functions:
        short = function.rpartition("PartitionedPmu.")[2]
        for node, kind, change in _changes(of[function], module):
            text = " ".join(lines[getattr(node, "lineno", 1) - 1].split())
            if function == "handle_irq" and not any(part in text for part in _OF_GUESTS):
                continue
            yield Mutant(f"{short}: {text}: {change}", kind, module, function, numbers[id(node)], change)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def _changes(function: ast.AST, module: str) -> Iterator[tuple[ast.AST, str, str]]:
    """The nodes of a function that are changed: what kind of a change, and which."""
    isb_alone = module.endswith(".driver")
    for node in _walk(_inner(function)):
        for statements in _blocks(node):
            real = [one for one in statements if not _says_nothing(one)]
            for one, after in zip(real, (*real[1:], None), strict=False):
                if ast.unparse(one) == "burst.isb()":
                    yield one, "ISB missing", "ISB missing"
                elif not isb_alone:
                    if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                        yield one, "deleted", "deleted"
                    if after is not None and not _same_swapped(one, after):
                        yield one, "swapped", "swapped with the next"
        if not isb_alone:
            yield from ((node, kind, change) for kind, change in _of_expression(node))


def _inner(function: ast.AST) -> ast.AST:
    """The function that is called."""
    if not isinstance(function, ast.FunctionDef) or function.name not in _MADE_ONCE:
        return function
    return next(one for one in function.body if isinstance(one, ast.AsyncFunctionDef))


def _walk(function: ast.AST) -> Iterator[ast.AST]:
    """In the order of the source, without annotations and decorators."""
    for name, value in ast.iter_fields(function):
        if name in ("annotation", "returns", "decorator_list", "args"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from _walk(child)
    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        yield function  # of which only the body is looked at


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        statements = getattr(node, name, None)
        if isinstance(statements, list):
            yield statements


def _same_swapped(one: ast.stmt, after: ast.stmt) -> bool:
    """Is it the same in either order, or the same as the first deleted?"""
    if isinstance(after, ast.FunctionDef | ast.AsyncFunctionDef | ast.Return | ast.Raise | ast.Continue):
        return True
    if not (isinstance(one, ast.Assign) and isinstance(after, ast.Assign)):
        return False
    either = (*ast.walk(one), *ast.walk(after))
    if any(isinstance(node, ast.Call | ast.Await | ast.NamedExpr) for node in either):
        return False
    return not (_stored(one) & _named(after) or _stored(after) & _named(one))


def _stored(one: ast.stmt) -> set[str]:
    """What it assigns to; whatever may alias an attribute has its name."""
    stores = (node for node in ast.walk(one) if isinstance(getattr(node, "ctx", None), ast.Store))
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in stores}


def _named(one: ast.stmt) -> set[str]:
    every = ast.walk(one)
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in every} - {""}


def _says_nothing(one: ast.stmt) -> bool:
    if isinstance(one, ast.AnnAssign):
        return False
    return isinstance(one, ast.Pass) or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))


LESS, MORE, SHIFTED = "the mask one bit less", "the mask one bit more", "the mask shifted"


def _of_expression(node: ast.AST) -> Iterator[tuple[str, str]]:
    text = ast.unparse(node) if isinstance(node, ast.expr) else ""
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        last = text.rpartition(".")[2]
        if last in _MASKS:
            yield from (("mask", f"{change} ({text})") for change in (LESS, MORE, SHIFTED))
        elif last in _NUMBERS:
            yield from (("mask", f"{change} ({text})") for change in ("one less", "one more"))
        elif _is_flags(text):
            yield "mask", f"{SHIFTED} ({text})"
    if isinstance(node, ast.Call) and _is_operation(node.func):
        yield "wrong CPU", f"on the wrong CPU ({ast.unparse(node.func)})"


def _is_operation(of: ast.expr) -> bool:
    """KVM's, on the pCPU that the vCPU is on."""
    return isinstance(of, ast.Attribute) and of.attr in _OPERATIONS and ast.unparse(of.value) in _RECEIVERS


def _is_flags(text: str) -> bool:
    """A constant of bits, and not a register or a function."""
    prefix, _, last = text.rpartition(".")
    register = last.endswith(("_EL0", "_EL1", "_EL2")) or last in ("PMEVCNTR", "PMEVTYPER")
    return prefix in ("", "r") and last.isupper() and not register and last not in ("CYCLE_COUNTER", "CPU_CYCLES")


def mutated(one: Mutant) -> ast.Module:
    """The module with that change."""
    tree = copy.deepcopy(_tree(one.module))
    node = next(found for number, found in enumerate(ast.walk(tree)) if number == one.node)
    if isinstance(node, ast.stmt):
        _statement(tree, node, one.kind)
    else:
        assert isinstance(node, ast.expr)
        _Replaced(node, _expression(node, one.change)).visit(tree)
    return ast.fix_missing_locations(tree)


def _statement(tree: ast.Module, node: ast.stmt, kind: str) -> None:
    for parent in ast.walk(tree):
        for statements in _blocks(parent):
            at = next((n for n, one in enumerate(statements) if one is node), None)
            if at is None:
                continue
            if kind == "swapped":
                after = next(n for n in range(at + 1, len(statements)) if not _says_nothing(statements[n]))
                statements[at], statements[after] = statements[after], statements[at]
            else:
                statements[at] = ast.copy_location(ast.Pass(), node)
            return


def _expression(node: ast.expr, change: str) -> ast.expr:
    text = ast.unparse(node)
    if change.startswith("on the wrong CPU"):
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Attribute)
        receiver = ast.unparse(node.func.value)
        vcpu = receiver if receiver.endswith("vcpu") else f"{receiver}.vcpu"
        there = f"__import__('tests.mutation.elsewhere', fromlist=['of']).of({vcpu}).{node.func.attr}"
        node.func = ast.parse(there, mode="eval").body
        return node
    made = {
        LESS: f"(_m := {text}) & ~(1 << (_m & 0x7fffffff).bit_length() >> 1)",  # the highest event counter
        MORE: f"(_m := {text}) | _m + 1",  # the lowest that is not there: counter HPMN
        SHIFTED: f"({text}) << 1",
        "one less": f"({text}) - 1",
        "one more": f"({text}) + 1",
    }[change.partition(" (")[0]]
    return ast.copy_location(ast.parse(made, mode="eval").body, node)


class _Replaced(ast.NodeTransformer):
    """One node in the place of another."""

    def __init__(self, old: ast.expr, new: ast.expr) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)
