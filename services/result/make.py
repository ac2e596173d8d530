"""A result from what the simulation has told, in cycles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from services.core_pmus import no_vpmu
from services.costs import EXIT_IRQS_OFF
from services.experiment import IRQTIME, Experiment
from services.result.counts import events, intervals, refused, refused_sessions, warnings
from services.result.steps import steps
from services.result.types import (
    SCHEMA,
    Bill,
    CpuTime,
    Design,
    Failure,
    Guest,
    Host,
    KilledTask,
    Kvm,
    Latency,
    Parts,
    Result,
    RoundTrips,
    Run,
    Swaps,
    Traps,
)

_CHARGED_AS = {EXIT_IRQS_OFF: "exit_full_null"}  # a part of it


def of(experiment: Experiment, plain: Mapping[str, Any], topology: str) -> Result:
    """The result of one run, from what `services.embedded.run` returns."""
    return join(experiment, topology, [_run(experiment, plain)])


def join(
    experiment: Experiment,
    topology: str,
    runs: Iterable[Run],
    failures: Iterable[Failure] = (),
    *,
    assumed: Mapping[str, str] | None = None,
    fitted: Mapping[str, str] | None = None,
) -> Result:
    """The result of several designs' runs of one scenario, of which `experiment` is one."""
    return Result(
        schema=SCHEMA,
        version=version("pmulab"),
        scenario=experiment.scenario,
        seed=experiment.seed,
        topology=topology,
        runs=tuple(runs),
        failures=tuple(failures),
        assumed=dict(assumed or {}),
        fitted=dict(fitted or {}),
    )


def _run(experiment: Experiment, plain: Mapping[str, Any]) -> Run:
    hz = experiment.frequency_hz
    traps = plain["traps"]
    bill = {part: {what: cycles / hz for what, cycles in lines.items()} for part, lines in plain["bill"].items()}
    return Run(
        design=Design(
            experiment.design.name,
            dict(experiment.design.axes),
            tuple(plain["fallbacks"]),
            plain["unverified"],
            tuple(Parts(**part) for part in plain["parts"]),
        ),
        choices=plain["choices"],
        digest=plain["digest"],
        virtual_seconds=plain["virtual_cycles"] / hz,
        wall_seconds=plain["wall_seconds"],
        time=_cpu_time(plain["time"], hz),
        cputime=_cpu_time(plain["cputime"], hz),
        bill=Bill(**bill),
        kvm=Kvm(
            traps=Traps(sum(traps.values()), dict(traps)),
            swaps=Swaps(**plain["swaps"]),
            interrupts_injected=plain["interrupts_injected"],
        ),
        guests=tuple(
            _guest(guest, hz, no_vpmu(experiment.cpus) or ("" if spec.pmuver else "pmuver = 0"))
            for spec, guest in zip(experiment.guests, plain["guests"], strict=True)
        ),
        host=Host(
            events=events(plain["hosts"], [guest.name for guest in experiment.guests for _ in guest.vcpus]),
            refused=refused(experiment, plain["hosts"]),
            interrupt_latency=_latencies(plain["hosts"], "interrupt_latency", hz),
            refused_sessions=refused_sessions(plain["hosts"]),
            intervals=intervals(plain["hosts"]),
            warnings=warnings(experiment),
            irq=plain["irq"] / hz if experiment.host.accounting in IRQTIME else None,
            killed_tasks=_killed([plain]),
        ),
        round_trips=_round_trips(plain),
        assumed_costs={
            cost: source
            for cost, source in experiment.assumed_costs.items()
            if bill["host_by_cost"].get(_CHARGED_AS.get(cost, cost)) or bill["guests_by_cost"].get(cost)
        },
        steps=steps(experiment, plain.get("steps") or ()),
        **plain["judgement"],
    )


def _cpu_time(cycles: Mapping[str, int], hz: int) -> CpuTime:
    return CpuTime(**{mode: count / hz for mode, count in cycles.items()})


def _guest(guest: Mapping[str, Any], hz: int, without: str) -> Guest:
    """A VM: times summed over its vCPUs, except that what elapses elapses on all at once."""
    vcpus = guest["vcpus"]
    return Guest(
        name=guest["name"],
        elapsed_seconds=max(vcpu["elapsed"] for vcpu in vcpus) / hz,
        user_seconds=sum(vcpu["user"] for vcpu in vcpus) / hz,
        system_seconds=sum(vcpu["system"] for vcpu in vcpus) / hz,
        true_user_seconds=sum(vcpu["true_el0_cycles"] for vcpu in vcpus) / hz,
        true_system_seconds=sum(vcpu["true_el1_cycles"] for vcpu in vcpus) / hz,
        events=events(vcpus),
        interrupt_latency=_latencies(vcpus, "interrupt_latency", hz),
        vcpu_load=_latencies(vcpus, "vcpu_load", hz),
        vcpu_put=_latencies(vcpus, "vcpu_put", hz),
        refused_sessions=refused_sessions(vcpus),
        intervals=intervals(vcpus),
        no_vpmu=without,
        killed_tasks=_killed(vcpus),
    )


def _killed(parts: Iterable[Mapping[str, Any]]) -> tuple[KilledTask, ...]:
    """Those whose read of a counter at EL0 was UNDEFINED: what is there only if there are any."""
    return tuple(
        KilledTask(one["task"], one["session"], "SIGILL", one["reason"])
        for part in parts
        for one in part.get("killed") or []
    )


def _latencies(cpus: Iterable[Mapping[str, Any]], key: str, hz: int) -> tuple[Latency, ...]:
    """One for each CPU, in order."""
    return tuple(
        Latency(
            cpu[key]["times"],
            *(cpu[key][name] * 10**9 // hz if name in cpu[key] else None for name in ("p50", "p99", "max")),
        )
        for cpu in cpus
    )


def _round_trips(plain: Mapping[str, Any]) -> RoundTrips:
    trips, traps = plain["round_trips"], sum(plain["traps"].values())
    injected = plain["interrupts_injected"]
    return RoundTrips(
        total=trips["total"],
        per_trap=trips["traps"] / traps if traps else None,
        per_interrupt=trips["interrupts"] / injected if injected else None,
    )
