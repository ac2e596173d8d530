"""The mutants that are posted: each step in which a version differs from `partitioned`, in its place."""

from __future__ import annotations

from dataclasses import dataclass

from services.kvm.designs.partitioned.by_steps.steps import DOES


@dataclass(frozen=True, slots=True)
class Transplant:
    """One step of a version, or of several that do the same in it."""

    name: str
    design: str
    kind: str = "transplant"


def transplants() -> list[Transplant]:
    found = []
    for step, does in DOES.items():
        by_text: dict[str, list[str]] = {}
        for version, text in does.items():
            by_text.setdefault(text, []).append(version.value)
        for text, versions in by_text.items():
            of = ", ".join(versions)
            found.append(Transplant(f"{step} of {of}: {text}", f"partitioned-by-steps,{step}={versions[-1]}"))
    return found
