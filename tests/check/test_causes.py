"""What docs/versions.toml attributes v8's and v9's violations to is what they vanish without."""

from __future__ import annotations

import pytest

from docs import posted, versions
from tests.check.mended import MENDED, types

CAUSES, _ = versions.causes()
KEPT = posted.read()

# Those on whose path a second cause has the same effect.
OVS = "I7 guest_read PMOVS{}_EL0 too little: vcpu by kvm"
ALSO = {
    ("v8", OVS.format("SET")): types,
    ("v8", OVS.format("CLR")): types,
}


@pytest.mark.parametrize("cause", MENDED)
@pytest.mark.parametrize("version", ["v8", "v9"])
def test_a_violation_is_gone_where_its_cause_is_mended(
    version: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {one.name: one for one in KEPT[version].found}
    left = []
    for name in CAUSES[cause].found.get(version, ()):
        with monkeypatch.context() as patch:
            MENDED[cause](patch)
            ALSO.get((version, name), lambda _: None)(patch)
            if found[name].replayed(version) is not None:
                left.append((version, name))
    assert left == []


def test_what_is_not_mended_is_said() -> None:
    """`driver` is the host's, and the others are of one hypothesis with a script of its own."""
    others = {name for name, cause in CAUSES.items() if {"v8", "v9"} & set(cause.found)} - set(MENDED)
    assert others == {"driver", "type-free", "swinc"}
