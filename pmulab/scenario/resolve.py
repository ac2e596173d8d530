"""A scenario's sections to one experiment for each of its designs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from pmulab import designs
from pmulab.scenario import keys
from pmulab.scenario.actors import read_guests, read_host
from pmulab.scenario.hotplug import check_offline
from pmulab.scenario.known import read_known
from pmulab.scenario.machine import Machine, read_machine
from pmulab.scenario.published import read_notes, read_published
from pmulab.scenario.steps import counted, read_steps
from pmulab.scenario.work import Work
from services import events, workload
from services.errors import UserError
from services.experiment import (
    MAX_SEED,
    DesignSpec,
    Experiment,
    GuestSpec,
    HostCpuSpec,
    HostSpec,
    SessionSpec,
    StepSpec,
    VcpuSpec,
)
from services.kvm import designs as kvm_designs
from services.kvm.vpmu import DesignError
from services.registers import BR_RETIRED, CPU_CYCLES, INST_RETIRED, PC_WRITE_RETIRED
from services.result import Design, Failure, Published
from services.tables import Document, Table

_HALT_POLL_NS = 500_000  # KVM_HALT_POLL_NS_DEFAULT of arm64


@dataclass(frozen=True, slots=True)
class Resolved:
    seed: int
    experiments: tuple[Experiment, ...]
    refused: tuple[Failure, ...]
    published: dict[str, Published]
    assumed: dict[str, str]
    fitted: dict[str, str]


def resolve(document: Document, chosen: Sequence[str], seed: int | None, every_event: bool) -> Resolved:
    """Read every section; `chosen` designs replace the scenario's own. Raises UserError."""
    scenario = Table(document, (), document.data, keys.SCENARIO)
    own_seed = scenario.integer("seed", 1, 0, MAX_SEED)
    machine = read_machine(scenario)
    work = Work(machine)
    host_kernel = work.profile(workload.rates("host-kernel"))
    guest_kernel = work.profile(workload.rates(workload.KERNEL))
    host = read_host(scenario, machine, work)
    guests = read_guests(scenario, machine, work)
    check_offline(scenario.table("host", keys.HOST), host.cpus, guests)
    steps = read_steps(scenario, machine, host, guests, work)
    if not guests and not steps and not any(cpu.tasks or cpu.sessions for cpu in host.cpus):
        scenario.refuse(
            "guest", "nothing runs in this scenario", "add a [[guest]] with a [[guest.task]], or a [[host.task]]"
        )
    tallied = _events(machine, host, guests, steps, every_event)
    experiment = Experiment(
        scenario=Path(document.name).stem,
        seed=own_seed if seed is None else seed,
        frequency_hz=machine.frequency_hz,
        cpus=machine.cpus,
        events=tallied,
        costs=machine.costs,
        profiles=tuple(tuple(rate for rate in rates if rate[0] in tallied) for rates in work.profiles),
        host_kernel_profile=host_kernel,
        guest_kernel_profile=guest_kernel,
        host=host,
        guests=guests,
        design=DesignSpec(""),
        halt_poll=machine.cycles(_halt_poll(scenario)),
        traps_wfi=scenario.table("kvm", keys.KVM).choice("wfi_trap_policy", ("trap", "notrap"), "trap") == "trap",
        assumed_costs=machine.assumed_costs,
        exits=machine.exits,
        steps=steps,
    )
    published = read_published(scenario)
    known = read_known(scenario)
    assumed, fitted = read_notes(scenario, "assumed"), read_notes(scenario, "fitted")
    wanted, refused = _designs(scenario, experiment, chosen)
    return Resolved(
        seed=experiment.seed,
        experiments=tuple(
            replace(experiment, design=design, known=known.get(designs.label(design), ())) for design in wanted
        ),
        refused=tuple(refused),
        published=published,
        assumed=assumed,
        fitted=fitted,
    )


def _halt_poll(scenario: Table) -> Decimal:
    """In seconds."""
    table = scenario.table("kvm", keys.KVM)
    return Decimal(table.whole("halt_poll_ns", "ns", _HALT_POLL_NS, 0, 2**32 - 1)) / 10**9


def _designs(scenario: Table, experiment: Experiment, chosen: Sequence[str]) -> tuple[list[DesignSpec], list[Failure]]:
    """The designs that can be had with these settings, and those that cannot. Raises UserError if none can."""
    table = scenario.table("kvm", keys.KVM)
    own = table.strings("designs") if "designs" in table else list(kvm_designs.designs())[:1]
    places = [(f"--design {text}", text) for text in chosen] or [
        (table.where("designs", n), text) for n, text in enumerate(own)
    ]
    if not places:
        table.refuse("designs", "designs is empty", 'write for example designs = ["emulated", "partitioned"]')
    asked: list[DesignSpec] = []
    refused: list[Failure] = []
    for index, (where, text) in enumerate(places):
        try:
            design = designs.parse_design(text)
        except DesignError as error:
            raise error.within(where) from None
        if design in asked:
            raise UserError(where, f"design {text!r} is given twice", "leave one out")
        asked.append(design)
        try:
            kvm_designs.fallbacks(kvm_designs.make(design, experiment.guests), experiment)
        except DesignError as error:
            one = Design(design.name, dict(design.axes))
            refused.append(Failure(index, one, refused=True, problem=error.problem, remedy=error.remedy))
    if len(refused) == len(asked):
        raise UserError(places[0][0], refused[0].problem, refused[0].remedy)
    without = {failure.index for failure in refused}
    return [design for index, design in enumerate(asked) if index not in without], refused


def _events(
    machine: Machine, host: HostSpec, guests: tuple[GuestSpec, ...], steps: tuple[StepSpec, ...], every_event: bool
) -> tuple[int, ...]:
    """Every event that a session or a step names, with cycles and instructions; or all that PMUv3 names.

    Beside steps nobody opens any others.
    """
    found = {CPU_CYCLES, INST_RETIRED, *counted(steps)}
    if every_event and not steps:
        found.update(events.pmuv3().values())
    for session in _sessions(host, guests):
        found.update(event.event for event in session.events if not event.software and event.event != events.UNMAPPED)
    if BR_RETIRED in found and not all(cpu.implements(BR_RETIRED) for cpu in machine.cpus):
        found.add(PC_WRITE_RETIRED)  # which `branches` counts there
    return tuple(sorted(found))


def _sessions(host: HostSpec, guests: tuple[GuestSpec, ...]) -> list[SessionSpec]:
    cpus: list[HostCpuSpec | VcpuSpec] = [*host.cpus, *(vcpu for guest in guests for vcpu in guest.vcpus)]
    on_threads = [session for guest in guests for vcpu in guest.vcpus for session in vcpu.host_sessions]
    of_tasks = [task.session for cpu in cpus for task in cpu.tasks if task.session is not None]
    return [session for cpu in cpus for session in cpu.sessions] + on_threads + of_tasks
