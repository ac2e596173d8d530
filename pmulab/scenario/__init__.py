"""A scenario: TOML that says what runs where, resolved to one `Experiment` for each vPMU design.

`docs/scenario.md` describes every key. Whatever does not fit is refused with a
`services.errors.UserError` that names the file and line (or the `--set`) and says what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmulab.scenario.resolve import resolve
from pmulab.scenario.source import open_source, shipped
from services.experiment import Experiment
from services.result import Failure, Published

__all__ = ["Scenario", "load", "shipped"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario as it was resolved: the same experiment once for each design that can be had."""

    name: str
    seed: int
    experiments: tuple[Experiment, ...]
    refused: tuple[Failure, ...]  # the designs that cannot be had with these settings
    published: dict[str, Published]  # by the label of the design
    assumed: dict[str, str]
    fitted: dict[str, str]


def load(
    scenario: str | Path,
    *,
    designs: Sequence[str] = (),
    overrides: Sequence[str] | Mapping[str, Any] = (),
    seed: int | None = None,
    every_event: bool = False,
    judge: bool = True,
    stop_on_violation: bool = False,
) -> Scenario:
    """Read a scenario by path or shipped name and resolve it.

    `designs` (each `NAME[,axis=value…]`) replaces the scenario's own list, `overrides` are values by key, or `--set`
    texts (`key=value`), `seed` replaces the scenario's. With `every_event` all PMUv3 events are tallied rather
    than those that its sessions name, for a topology whose clients may open others: not beside steps. Without `judge`
    no run is judged; with `stop_on_violation` each ends at its first violation that counts. Raises UserError.
    """
    document = open_source(str(scenario), overrides)
    resolved = resolve(document, designs, seed, every_event)
    return Scenario(
        name=Path(document.name).stem,
        seed=resolved.seed,
        experiments=tuple(
            replace(experiment, judged=judge, stop_on_violation=stop_on_violation)
            for experiment in resolved.experiments
        ),
        refused=resolved.refused,
        published=resolved.published,
        assumed=resolved.assumed,
        fitted=resolved.fitted,
    )
