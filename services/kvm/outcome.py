"""What came of a run, as plain data, and the digest over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import orjson

from services._pmu import register_name
from services.experiment import VTIME, Experiment
from services.kvm import bill
from services.kvm.board import Board
from services.kvm.host_task import HostTask
from services.kvm.parts import parts
from services.kvm.pcpu import PCpu
from services.kvm.requests import Taken
from services.kvm.vcpu import VCpu
from services.kvm.vpmu import Design
from services.registers import CPU_CYCLES
from services.sigill import reason

SWAPS = ("loads", "puts", "register_writes", "register_reads")


def result(
    board: Board,
    pcpus: Sequence[PCpu],
    vcpus: Sequence[VCpu],
    tasks: Sequence[HostTask],
    *,
    hosts: Sequence[dict[str, Any]],
    fallbacks: Sequence[str],
    injected: Sequence[Taken],
    steps: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """All that is in the digest; times in cycles, counts as they are. `hosts`: what each pCPU's perf has reported,
    `steps`: what a script's steps gave."""
    machine = board.machine
    swaps = [vcpu.vpmu.swaps for vcpu in vcpus]
    by_ticks = board.experiment.host.accounting not in VTIME
    cputime = _summed(machine.cputime(pcpu.cpu, by_ticks) for pcpu in pcpus)
    irq = cputime.pop("irq")
    killed = [
        {"task": task.spec.name, "session": task.spec.session_name, "reason": reason(task.undefined)}
        for task in tasks
        if task.undefined
    ]
    return {
        "log": machine.digest(),
        "virtual_cycles": max(pcpu.now for pcpu in pcpus),
        "interactions": board.interactions,
        "time": _summed(machine.cycles(pcpu.cpu) for pcpu in pcpus),
        "cputime": cputime,
        "irq": irq,
        "bill": {
            "host": bill.host(
                machine, len(pcpus), sum(task.in_kernel for task in tasks), sum(vcpu.halt.polled for vcpu in vcpus)
            ),
            "host_by_cost": bill.by_cost(machine, len(pcpus), guests=False),
            "guests_by_cost": bill.by_cost(machine, len(pcpus), guests=True),
        },
        "traps": dict(sorted(_summed(_traps(vcpu) for vcpu in vcpus).items())),
        "swaps": {name: sum(getattr(swap, name) for swap in swaps) for name in SWAPS},
        "interrupts_injected": sum(vcpu.vgic.injected for vcpu in vcpus),
        "fallbacks": list(fallbacks),
        "choices": _choices(board, pcpus),
        "guests": [
            {"name": guest.name, "vcpus": [_vcpu(board, vcpu) for vcpu in vcpus if vcpu.vm == vm]}
            for vm, guest in enumerate(board.experiment.guests)
        ],
        "hosts": [
            report | {"interrupt_latency": pcpu.latencies.summary()} for pcpu, report in zip(pcpus, hosts, strict=True)
        ],
        "injected": [_taken(taken) for taken in injected],
        **({"killed": killed} if killed else {}),
        **({} if steps is None else {"steps": steps}),
    }


def measured(
    result: dict[str, Any],
    wall_seconds: float,
    design: Design,
    experiment: Experiment,
    pcpus: Sequence[PCpu],
    vcpus: Sequence[VCpu],
    written: Iterable[tuple[int, ...]],
    judgement: Mapping[str, Any],
) -> dict[str, Any]:
    """`result` with its digest and what is outside of that: `judgement` is what the judge has found."""
    return {
        "digest": digest(result),
        "wall_seconds": wall_seconds,
        "unverified": design.unverified,
        "parts": list(parts(design, experiment, written)),
        "round_trips": round_trips(pcpus, vcpus),
        "judgement": dict(judgement),
        **result,
    }


def _taken(taken: Taken) -> dict[str, Any]:
    """As plain data, without what it leaves open that not every version could ask for."""
    plain = asdict(taken)
    if taken.request.parameter is None:
        del plain["request"]["parameter"]
    return plain


def digest(result: dict[str, Any]) -> str:
    """One number over a run's results and its ordered event log."""
    return sha256(orjson.dumps(result, option=orjson.OPT_SORT_KEYS)).hexdigest()


def round_trips(pcpus: Sequence[PCpu], vcpus: Sequence[VCpu]) -> dict[str, int]:
    """Messages that software sent in answer to one of kvm's, or would have sent: one for each burst.

    All; the host's within traps of guests; the guests' in their PMU interrupt handlers.
    """
    return {
        "total": sum(pcpu.executor.bursts for pcpu in pcpus) + sum(vcpu.executor.bursts for vcpu in vcpus),
        "traps": sum(pcpu.executor.bursts - pcpu.handler_bursts for pcpu in pcpus)
        - sum(vcpu.swap_bursts for vcpu in vcpus),
        "interrupts": sum(vcpu.irq_bursts for vcpu in vcpus),
    }


def _vcpu(board: Board, vcpu: VCpu) -> dict[str, Any]:
    return {
        **vcpu.report,
        "interrupt_latency": vcpu.vgic.latencies.summary(),
        "vcpu_load": vcpu.load_times.summary(),
        "vcpu_put": vcpu.put_times.summary(),
        **{f"true_el{el}_cycles": board.machine.truth(vcpu.context, el, CPU_CYCLES) for el in (0, 1)},
    }


def _traps(vcpu: VCpu) -> dict[str, int]:
    """How often each register's accesses have trapped, by its name and r or w."""
    return {f"{register_name(key >> 1)}:{'w' if key & 1 else 'r'}": count for key, count in vcpu.traps.items()}


def _choices(board: Board, pcpus: Sequence[PCpu]) -> dict[str, int]:
    """How often a CPU did what the architecture leaves open, by the choice's name; those that were made."""
    made = _summed(board.machine.choices_made(pcpu.cpu) for pcpu in pcpus)
    return {choice: count for choice, count in sorted(made.items()) if count}


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total
