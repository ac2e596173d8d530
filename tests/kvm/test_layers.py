"""kvm's modules know those below them: imports run one way, and a design can be had without the rest."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KVM = ROOT / "services" / "kvm"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in KVM.rglob("*.py")
}
DESIGNS = sorted(name for name in MODULES if name.startswith("services.kvm.designs."))
# What a design may know of kvm.
FOR_DESIGNS = {
    "services.kvm.vpmu",
    "services.kvm.guest_pmu",
    "services.kvm.errors",
    "services.kvm.bill",
    "services.kvm.declared",
    "services.kvm.irqs",
    "services.kvm.trap_setup",
    "services.kvm.parameter",  # of their package
}


def imported(name: str) -> set[str]:
    """The modules of kvm that a module imports, within functions and for type checking, too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES else node.module for one in submodules}
    return {one for one in found if one in MODULES and one != "services.kvm"}


def names(name: str) -> set[str]:
    """Every name in a module, those in annotations that are strings, too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=used) | ast.Attribute(attr=used) | ast.alias(name=used) | ast.Constant(value=str(used)):
                found.add(used)
    return found


def test_no_module_of_kvm_but_the_topmost_names_the_simulation() -> None:
    users = {name for name in MODULES if "Simulation" in names(name)}
    assert users <= {"services.kvm.lab", "services.kvm.__main__"}


def test_no_modules_of_kvm_import_each_other() -> None:
    TopologicalSorter({name: imported(name) - {name} for name in MODULES}).prepare()  # raises CycleError


@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_knows_vpmu_and_nothing_else_of_kvm(name: str) -> None:
    others = imported(name) - FOR_DESIGNS
    assert {other for other in others if not other.startswith("services.kvm.designs")} == set()


@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_can_be_imported_alone(name: str) -> None:
    code = f"import sys, {name}; print(*(name for name in sys.modules if name.startswith('services.kvm.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    others = set(done.stdout.split()) - FOR_DESIGNS
    assert {other for other in others if not other.startswith("services.kvm.designs")} == set()
