"""`pmulab events`."""

from __future__ import annotations

import argparse
import sys

from services import events


def main(_arguments: argparse.Namespace) -> int:
    aliases: dict[str, list[str]] = {}
    for alias, name in events.aliases().items():
        aliases.setdefault(name, []).append(alias)
    _section(
        "Generic hardware events", {" or ".join([n, *aliases.get(n, [])]): e for n, e in events.hardware().items()}
    )
    _section("Generic cache events", events.cache_events())
    sys.stdout.write("Generic events that Arm's driver maps to none: opening one is ENOENT\n")
    for name in events.unmapped():
        sys.stdout.write(f"  {name}\n")
    sys.stdout.write("\n")
    _section("PMUv3 common events", {name.lower(): event for name, event in events.pmuv3().items()})
    software: dict[events.Software, list[str]] = {}
    for name, event in events.SOFTWARE.items():
        software.setdefault(event, []).append(name)
    sys.stdout.write("Software events, which are counted only\n")
    for names in software.values():
        sys.stdout.write(f"  {' or '.join(names)}\n")
    sys.stdout.write(
        "\nAny other event: rNN, or armv8_pmuv3_0/event=0xNN/. Modifiers: u k h G H D e W S p P. Groups: {a,b}:u.\n"
    )
    return 0


def _section(title: str, listed: dict[str, int]) -> None:
    sys.stdout.write(title + "\n")
    for name, event in listed.items():
        architectural = events.architectural_name(event)
        sys.stdout.write(
            f"  {name:48} {event:#06x}  {architectural if architectural.lower() != name else ''}".rstrip() + "\n"
        )
    sys.stdout.write("\n")
