"""A result (`pmulab.result/2`) as text: the designs of a scenario side by side."""

from __future__ import annotations

from typing import Any

Run = dict[str, Any]

_CAUSES = ("multiplexing", "stopped", "surplus", "overflow", "frozen")
_TRAPS_SHOWN = 6  # registers, those that trap most
_PARTIES = (("guest", "guest"), ("host_kernel", "host kernel"), ("host_user", "host user"), ("idle", "idle"))
_GUEST_TIMES = (("real", "elapsed_seconds"), ("user", "user_seconds"), ("sys", "system_seconds"))


def render(result: dict[str, Any], *, why: bool = False) -> str:
    """The tables of a result. `why` adds the bill, kernel time by cause, and the errors of counts by cause."""
    runs = result["runs"]
    head = f"{result['scenario']}: seed {result['seed']}, {result['topology']}, pmulab {result['version']}"
    blocks = [head, _summary(runs), _times(runs), _traffic(runs)]
    if why:
        blocks += _bill(runs)
    for index, guest in enumerate(runs[0]["guests"]):
        blocks.append(_guest(runs, index))
        events = [(run, run["guests"][index]["events"]) for run in runs]
        blocks.append(_events(guest["name"], events))
        if why:
            blocks.append(_causes(guest["name"], events))
    events = [(run, run["host"]["events"]) for run in runs]
    blocks.append(_events("host", events))
    if why:
        blocks.append(_causes("host", events))
    blocks += [_interrupts(runs), _residency(runs)]
    blocks.append(_digests(runs))
    return "\n\n".join(block for block in blocks if block) + "\n"


def notes(title: str, words: dict[str, str]) -> str:
    """What a scenario assumes or has fitted, one line each; empty if it is nothing."""
    if not words:
        return ""
    return f"\n{title}\n" + "".join(f"  {what}: {text}\n" for what, text in words.items())


def columns(runs: list[Run]) -> list[str]:
    """The heads of the designs' columns: the name, with those axes in which designs of that name differ."""
    heads = []
    for run in runs:
        name, axes = run["design"]["name"], run["design"]["axes"]
        others = [other["design"]["axes"] for other in runs if other["design"]["name"] == name]
        differing = [axis for axis in axes if any(other.get(axis) != axes[axis] for other in others)]
        heads.append(",".join([name, *(f"{axis}={axes[axis]}" for axis in differing)]))
    return heads


def _summary(runs: list[Run]) -> str:
    rows = [["virtual time", *(_seconds(run["virtual_seconds"]) for run in runs)]]
    rows += _published("elapsed_seconds", runs)
    rows.append(["overhead", *(f"{overhead(run):.1f} %" for run in runs)])
    rows.append(["wall time", *(f"{run['wall_seconds']:.1f} s" for run in runs)])
    if any(run["host"]["refused"] for run in runs):
        rows.append(["refuses the host", *(", ".join(run["host"]["refused"]) or "nothing" for run in runs)])
    if any(run["design"]["fallbacks"] for run in runs):
        rows.append(["falls back", *("; ".join(run["design"]["fallbacks"]) or "no" for run in runs)])
    if any(run["choices"] for run in runs):
        rows.append(["left open by the Arm ARM", *(_counts(run["choices"]) for run in runs)])
    return _side_by_side("", runs, rows)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing"


def overhead(run: Run) -> float:
    """The share of busy CPU time that is not user code, in per cent."""
    time = run["time"]
    busy = time["guest"] + time["host_kernel"] + time["host_user"]
    user = time["host_user"] + sum(guest["true_user_seconds"] for guest in run["guests"])
    return 100.0 * (busy - user) / busy if busy else 0.0


def _times(runs: list[Run]) -> str:
    rows = []
    for key, name in _PARTIES:
        rows.append([name, *(_seconds(run["time"][key]) for run in runs)])
        rows.append(["  as accounted", *(_seconds(run["accounted"][key]) for run in runs)])
    return _side_by_side("CPU time", runs, rows)


def _traffic(runs: list[Run]) -> str:
    kvm = [run["kvm"] for run in runs]
    traps: list[dict[str, int]] = [one["traps"]["by_register"] for one in kvm]
    registers = {register for of_run in traps for register in of_run}
    most = sorted(registers, key=lambda register: (-sum(t.get(register, 0) for t in traps), register))[:_TRAPS_SHOWN]
    rows = [["traps", *(f"{one['traps']['total']:,}" for one in kvm)]]
    rows += [[f"  {register}", *(f"{of_run.get(register, 0):,}" for of_run in traps)] for register in most]
    if len(registers) > len(most):
        others = (sum(of_run.values()) - sum(of_run.get(register, 0) for register in most) for of_run in traps)
        rows.append(["  others", *(f"{count:,}" for count in others)])
    rows.append(["swaps (loads + puts)", *(_pair(one["swaps"], "loads", "puts") for one in kvm)])
    rows.append(["  writes + reads", *(_pair(one["swaps"], "register_writes", "register_reads") for one in kvm)])
    rows.append(["interrupts injected", *(f"{one['interrupts_injected']:,}" for one in kvm)])
    rows.append(["round trips", *(f"{run['round_trips']['total']:,}" for run in runs)])
    return _side_by_side("KVM", runs, rows)


def _bill(runs: list[Run]) -> list[str]:
    """The host kernel's time by what it was spent on, then by cost; the guests' kernels' by cost."""
    parts = {
        "host": "Bill: host kernel (share of busy time)",
        "host_by_cost": "Bill: host kernel by cost",
        "guests_by_cost": "Bill: guest kernels by cost",
    }
    return [_bill_part(title, part, runs) for part, title in parts.items()]


def _bill_part(title: str, part: str, runs: list[Run]) -> str:
    lines = {line for run in runs for line, seconds in run["bill"][part].items() if seconds}
    dear = sorted(lines, key=lambda line: (-sum(run["bill"][part][line] for run in runs), line))
    rows = [[line, *(_charged(run, run["bill"][part][line]) for run in runs)] for line in dear]
    rows.append(["total", *(_charged(run, sum(run["bill"][part].values())) for run in runs)])
    return _side_by_side(title, runs, rows)


def _charged(run: Run, seconds: float) -> str:
    busy = sum(run["time"].values()) - run["time"]["idle"]
    return f"{_seconds(seconds)} {100 * seconds / busy if busy else 0:5.1f} %"


def _guest(runs: list[Run], index: int) -> str:
    guests = [run["guests"][index] for run in runs]
    rows = []
    for name, key in _GUEST_TIMES:
        rows.append([name, *(_seconds(guest[key]) for guest in guests)])
        if key == "elapsed_seconds":
            continue
        if index == 0:
            rows += _published(key, runs)
        rows.append(["  true", *(_seconds(guest[f"true_{key}"]) for guest in guests)])
    return _side_by_side(f"{guests[0]['name']} (as `time` prints it)", runs, rows)


def _published(key: str, runs: list[Run]) -> list[list[str]]:
    """The published number of the first guest and how far ours is from it; nothing if none is published."""
    numbers = [run["published"].get(key) if run["published"] else None for run in runs]
    if not any(number is not None for number in numbers):
        return []
    deviations = [
        "" if not number else f"{100 * (run['guests'][0][key] - number) / number:+.1f} %"
        for run, number in zip(runs, numbers, strict=True)
    ]
    return [
        ["  published", *("" if number is None else _seconds(number) for number in numbers)],
        ["  deviation", *deviations],
    ]


def _events(party: str, of_runs: list[tuple[Run, list[dict[str, Any]]]]) -> str:
    """One line per event and design: what was counted beside what happened."""
    if not any(events for _, events in of_runs):
        return ""
    heads = columns([run for run, _ in of_runs])
    table = [[f"{party}: event", "design", "count", "scaled", "truth", "error", "running", "samples"]]
    for index, event in enumerate(of_runs[0][1]):
        for number, (_, events) in enumerate(of_runs):
            table.append([event["event"] if number == 0 else "", heads[number], *_event(events[index])])
    return _align(table, left=2)


def _event(event: dict[str, Any]) -> list[str]:
    scaled, truth = event["scaled"], event["truth"]
    share = 100 * event["running_ns"] / event["enabled_ns"] if event["enabled_ns"] else 0.0
    return [
        f"{event['count']:,}",
        "<not counted>" if scaled is None else f"{scaled:,}",
        f"{truth:,}",
        "" if scaled is None or not truth else f"{100 * (scaled - truth) / truth:+.2f} %",
        f"({share:.2f}%)" + (" ERROR" if event["in_error"] else ""),
        f"{event['samples']:,}",
    ]


def _causes(party: str, of_runs: list[tuple[Run, list[dict[str, Any]]]]) -> str:
    """The error of each scaled count by cause, in per cent of the truth."""
    if not any(events for _, events in of_runs):
        return ""
    heads = columns([run for run, _ in of_runs])
    table = [[f"{party}: error by cause", "design", "got", *_CAUSES]]
    for index, event in enumerate(of_runs[0][1]):
        for number, (_, events) in enumerate(of_runs):
            of_event = events[index]
            share = of_event["running_ns"] / of_event["enabled_ns"] if of_event["enabled_ns"] else 0.0
            parts = ["" for _ in _CAUSES]
            if of_event["error"] is not None and of_event["truth"]:
                parts = [f"{100 * of_event['error'][cause] / of_event['truth']:+.2f} %" for cause in _CAUSES]
            table.append([event["event"] if number == 0 else "", heads[number], f"{100 * share:.2f} %", *parts])
    return _align(table, left=2)


def _interrupts(runs: list[Run]) -> str:
    """From overflow to its owner's handler, for each CPU that had any."""
    rows = []
    for n in range(len(runs[0]["host"]["interrupt_latency"])):
        rows += _took(f"pCPU {n}", "interrupts", [run["host"]["interrupt_latency"][n] for run in runs])
    for name, guests, n in _vcpus(runs):
        rows += _took(name, "interrupts", [guest["interrupt_latency"][n] for guest in guests])
    return _side_by_side("PMU interrupts, overflow to handler", runs, rows) if rows else ""


def _residency(runs: list[Run]) -> str:
    """The PMU's part of vcpu_load and vcpu_put, for each vCPU that was put more than once."""
    rows = []
    for name, guests, n in _vcpus(runs):
        if any(guest["vcpu_put"][n]["times"] > 1 for guest in guests):
            for step in ("vcpu_load", "vcpu_put"):
                rows += _took(f"{name} {step}", "times", [guest[step][n] for guest in guests])
    return _side_by_side("The PMU's part of vcpu_load and vcpu_put", runs, rows) if rows else ""


def _vcpus(runs: list[Run]) -> list[tuple[str, list[dict[str, Any]], int]]:
    """Each vCPU: its name, its guest in each run, its number."""
    return [
        (f"{guest['name']}/{n}", [run["guests"][index] for run in runs], n)
        for index, guest in enumerate(runs[0]["guests"])
        for n in range(len(guest["interrupt_latency"]))
    ]


def _took(name: str, count: str, latencies: list[dict[str, Any]]) -> list[list[str]]:
    if not any(latency[count] for latency in latencies):
        return []
    return [
        [name, *(f"{latency[count]:,}" for latency in latencies)],
        ["  p50 / p99 / max", *(_microseconds(latency) for latency in latencies)],
    ]


def _microseconds(latency: dict[str, Any]) -> str:
    if latency["p50_ns"] is None:
        return ""
    return " / ".join(f"{latency[key] / 1000:.2f}" for key in ("p50_ns", "p99_ns", "max_ns")) + " µs"


def _digests(runs: list[Run]) -> str:
    return _align(
        [["digest", ""], *([head, run["digest"]] for head, run in zip(columns(runs), runs, strict=True))], left=2
    )


def _side_by_side(title: str, runs: list[Run], rows: list[list[str]]) -> str:
    return _align([[title, *columns(runs)], *rows], left=1)


def _align(table: list[list[str]], left: int) -> str:
    """Columns two spaces apart; the first `left` to the left, the others to the right."""
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s"


def _pair(counts: dict[str, int], first: str, second: str) -> str:
    return f"{counts[first]:,} + {counts[second]:,}"
