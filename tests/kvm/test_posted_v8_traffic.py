"""What v8's own code did on an emulated CPU is what `partitioned-v8` does (`tests.kvm.posted_traffic`)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kvm.posted_traffic import RECORDINGS, replay

PARTITIONED = [
    one for one in RECORDINGS if one["accesses"] and "emulated" not in one["name"] and one["name"] != "no vPMU"
]


def named(recording: dict[str, Any]) -> str:
    return f"{recording['name']} {recording['run']}"


@pytest.mark.parametrize("recording", PARTITIONED, ids=named)
async def test_v8_does_what_was_recorded(recording: dict[str, Any]) -> None:
    assert (await replay(recording)).difference == ""
