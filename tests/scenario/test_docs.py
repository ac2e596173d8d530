"""docs/scenario.md describes the keys that there are, its example resolves, and docs/result.md has every field."""

from __future__ import annotations

import re
from pathlib import Path

from pmulab import scenario
from pmulab.scenario import keys, steps

DOCS = Path(__file__).parents[2] / "docs"

SECTIONS = {
    "Top level": keys.SCENARIO,
    "`[machine]`": keys.MACHINE,
    "`[host]`": keys.HOST,
    "`[kvm]`": keys.KVM,
    "`[[guest]]`": keys.GUEST,
    "Tasks": {*keys.GUEST_TASK, *keys.HOST_TASK},
    "Sessions": {*keys.GUEST_PERF, *keys.HOST_PERF},
    "The parameter in sysfs": keys.SYSFS,
    "CPU hotplug": keys.OFFLINE,
    "Steps": keys.STEP,
    "Actions of steps": steps.ACTIONS,
    "`[published]`": keys.PUBLISHED,
}


def documented(section: str) -> set[str]:
    """The keys in the first column of a section's table."""
    text = (DOCS / "scenario.md").read_text()
    body = next(part for part in text.split("\n## ")[1:] if part.startswith(section))
    rows = [line.split("|")[1] for line in body.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`([a-z0-9_-]+)`", row)}


def test_every_key_is_described_and_no_other() -> None:
    assert {section: documented(section) for section in SECTIONS} == {
        section: set(known) for section, known in SECTIONS.items()
    }


def test_every_shipped_scenario_is_listed() -> None:
    assert documented("Shipped scenarios") == set(scenario.shipped())


def test_the_examples_resolve(tmp_path: Path) -> None:
    example, step = re.findall(r"```toml\n(.*?)```", (DOCS / "scenario.md").read_text(), re.DOTALL)
    path = tmp_path / "example.toml"
    path.write_text(f"[[guest]]\n{step}")
    assert [of.action for of in scenario.load(path).experiments[0].steps] == ["switch", "msr"]
    path.write_text(example)
    assert [experiment.design.name for experiment in scenario.load(path).experiments] == ["emulated", "partitioned"]
