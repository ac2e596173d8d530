"""A scenario: TOML that says what runs where, resolved to one `Experiment` for each vPMU design.

`docs/scenario.md` describes every key. Whatever does not fit is refused with a
`services.errors.UserError` that names the file and line (or the `--set`) and says what would be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pmulab.scenario.published import Published
from pmulab.scenario.resolve import resolve
from pmulab.scenario.source import open_source, shipped
from services.experiment import Experiment

__all__ = ["Published", "Scenario", "load", "shipped"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario as it was resolved: the same experiment once for each design."""

    name: str
    seed: int
    experiments: tuple[Experiment, ...]
    published: Published | None
    assumed: dict[str, str]
    fitted: dict[str, str]


def load(
    scenario: str | Path,
    *,
    designs: Sequence[str] = (),
    overrides: Sequence[str] = (),
    seed: int | None = None,
    every_event: bool = False,
) -> Scenario:
    """Read a scenario by path or shipped name and resolve it.

    `designs` (each `NAME[,axis=value…]`) replaces the scenario's own list, `overrides` are `--set`
    texts (`key=value`), `seed` replaces the scenario's. With `every_event` all PMUv3 events are tallied rather
    than those that its sessions name, for a topology whose clients may open others. Raises UserError.
    """
    document = open_source(str(scenario), overrides)
    resolved = resolve(document, designs, seed, every_event)
    return Scenario(
        name=Path(document.name).stem,
        seed=resolved.seed,
        experiments=resolved.experiments,
        published=resolved.published,
        assumed=resolved.assumed,
        fitted=resolved.fitted,
    )
