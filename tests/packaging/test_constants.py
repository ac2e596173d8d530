"""A constant has one home: who else needs it imports it from there."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = [path for room in ("services", "pmulab") for path in (ROOT / room).rglob("*.py") if "wire" not in path.parts]
REGISTERS = ROOT / "services" / "registers.py"


def constants(path: Path) -> Iterator[tuple[str, ast.expr]]:
    """The constants that a module assigns, by name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value) if name.isupper():
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if name.isupper():
                yield name, value


def number(expression: ast.expr) -> int | float | None:
    """The value of an expression of numbers alone, None if it is another."""
    if any(isinstance(node, ast.Name | ast.Call | ast.Attribute) for node in ast.walk(expression)):
        return None
    value = eval(compile(ast.Expression(expression), "constant", "eval"), {"__builtins__": {}})
    return value if isinstance(value, int | float) else None


def test_no_two_modules_give_a_number_the_same_name() -> None:
    homes = defaultdict(list)
    for path in MODULES:
        for name, expression in constants(path):
            value = number(expression)
            if value is not None:
                homes[name.lstrip("_"), value].append(str(path.relative_to(ROOT)))
    assert {constant: paths for constant, paths in homes.items() if len(paths) > 1} == {}


def test_what_the_architecture_names_is_defined_in_registers_alone() -> None:
    architectural = {name for name, _ in constants(REGISTERS)}
    assert {"PMUVER_P5", "CYCLE_BIT", "MASK64", "CPU_CYCLES"} <= architectural
    elsewhere = [
        (str(path.relative_to(ROOT)), name)
        for path in MODULES
        if path != REGISTERS
        for name, _ in constants(path)
        if name in architectural
    ]
    assert elsewhere == []
