"""`[host]` and `[[guest]]`: who runs what on which CPU."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from pmulab.scenario import keys
from pmulab.scenario.cpu_maps import CpuMaps
from pmulab.scenario.hotplug import read_offline
from pmulab.scenario.machine import Machine
from pmulab.scenario.perf_events import GUEST_PMUS, MAX_FREQUENCY, TOOLS, EventSyntaxError, Pmus, parse_events
from pmulab.scenario.sessions import host_pmus, read_session
from pmulab.scenario.sysfs import read_parameter_writes
from pmulab.scenario.work import Work
from services import cores, events
from services.core_pmus import core_pmus, no_vpmu
from services.experiment import (
    ACCOUNTING,
    DEFAULT_SYSCTLS,
    MAX_THREADS,
    EventSpec,
    GuestSpec,
    HostCpuSpec,
    HostSpec,
    PerfSysctls,
    SessionSpec,
    TaskSpec,
    VcpuSpec,
)
from services.registers import PMUVER_P5
from services.tables import Table, near

_HZ = 250  # CONFIG_HZ of arm64's defconfig
_MAX_HZ = 1000
_MAX_VCPUS = 512
_FLOATS = -1
_NO_PMU = 0
# KVM shows a guest no later PMU than this (6.12, kvm_arm_pmu_get_pmuver_limit): FEAT_PMUv3p5.
_KVM_PMUVER_LIMIT = PMUVER_P5


def read_host(scenario: Table, machine: Machine, work: Work) -> HostSpec:
    table = scenario.table("host", keys.HOST)
    pcpus = len(machine.cpus)
    tasks = _by_cpu(table.tables("task", keys.HOST_TASK), "pcpu", pcpus, "pCPUs")
    on_cpus = [session for session in table.tables("perf", keys.HOST_PERF) if not _on_threads(session)]
    sessions = _by_cpu(on_cpus, "pcpu", pcpus, "pCPUs")
    pmus, tool = host_pmus(machine.cpus, of_task=True), _perf_tool(table)
    offline = read_offline(table, machine)
    return HostSpec(
        hz=table.integer("hz", _HZ, 1, _MAX_HZ),
        mux_interval=_mux_interval(table, machine),
        sysctls=_sysctls(table),
        group_throttle=_group_throttle(table),
        cpus=tuple(
            HostCpuSpec(
                tasks=tuple(_at_el2(read_task(task, machine, work, pmus, tool)) for task in tasks[pcpu]),
                sessions=tuple(_on_cpus(session, machine, tool) for session in sessions[pcpu]),
                offline=offline[pcpu],
            )
            for pcpu in range(pcpus)
        ),
        perf_tool=tool,
        powerdown_residency=_microseconds(table, machine, "powerdown_residency_us"),
        powerdown_exit=_microseconds(table, machine, "powerdown_exit_us"),
        accounting=_accounting(table),
        pseudo_nmi=table.boolean("pseudo_nmi", False),
        parameter_writes=read_parameter_writes(table, machine),
    )


def _microseconds(table: Table, machine: Machine, key: str) -> int:
    """In cycles."""
    return machine.length(table, key, "us", 0, 0, 10**9)


def _group_throttle(table: Table) -> bool:
    """What the kernel's perf throttles."""
    return table.choice("perf_throttle", ("event", "group"), "event") == "group"


def _perf_tool(host: Table) -> str:
    """The version of the host's perf tools."""
    version = host.data.get("perf_tool")
    if isinstance(version, Decimal):  # what TOML takes a version without quotes for
        if str(version) not in TOOLS:
            host.refuse("perf_tool", f"host.perf_tool = {version} is not known", near(str(version), TOOLS))
        return str(version)
    return host.choice("perf_tool", TOOLS, TOOLS[0])


def read_guests(scenario: Table, machine: Machine, work: Work) -> tuple[GuestSpec, ...]:
    guests: list[GuestSpec] = []
    for number, table in enumerate(scenario.tables("guest", keys.GUEST)):
        guest = _read_guest(table, machine, work, f"vm{number}")
        if guest.name in {other.name for other in guests}:
            table.refuse("name", f"two guests are named {guest.name!r}", "give each guest a name of its own")
        guests.append(guest)
    host = scenario.table("host", keys.HOST)
    for table in host.tables("perf", keys.HOST_PERF):
        if _on_threads(table):
            _watch_threads(table, guests, machine, _perf_tool(host))
    return tuple(guests)


def _on_threads(table: Table) -> bool:
    """Is a session of the host on vCPUs' threads, rather than on CPUs?"""
    if "guest" not in table and "vcpu" in table:
        table.refuse("vcpu", "vcpu without guest", 'write for example guest = "vm0"')
    if "guest" in table and "pcpu" in table:
        table.refuse("pcpu", "both guest and pcpu are given", "give one: a session is on threads or on CPUs")
    return "guest" in table


def _on_cpus(table: Table, machine: Machine, tool: str) -> SessionSpec:
    """A session of the host on CPUs (`perf stat -a`, `-C`)."""
    chosen = table.integers("pcpu", range(len(machine.cpus)), 0, 2**31)
    return read_session(
        table,
        cpu_wide=True,
        frequency_hz=machine.frequency_hz,
        pmus=host_pmus(machine.cpus, of_task=False),
        maps=CpuMaps(core_pmus(machine.cpus), tuple(sorted(set(chosen))), listed="pcpu" in table),
        tool=tool,
    )


def _watch_threads(table: Table, guests: list[GuestSpec], machine: Machine, tool: str) -> None:
    """A session of the host on threads of a guest's vCPUs (`perf stat -t`)."""
    name = table.choice("guest", [guest.name for guest in guests], "")
    number = next(number for number, guest in enumerate(guests) if guest.name == name)
    vcpus = list(guests[number].vcpus)
    pmus = host_pmus(machine.cpus, of_task=True)
    session = read_session(table, cpu_wide=False, frequency_hz=machine.frequency_hz, pmus=pmus, tool=tool)
    for vcpu in table.integers("vcpu", range(len(vcpus)), 0, len(vcpus) - 1):
        if vcpus[vcpu].pcpu == _FLOATS:
            table.refuse(
                "guest", f"vCPU {vcpu} of {name} floats: its thread's events would have to move with it", "pin it"
            )
        vcpus[vcpu] = replace(vcpus[vcpu], host_sessions=(*vcpus[vcpu].host_sessions, session))
    guests[number] = replace(guests[number], vcpus=tuple(vcpus))


def _read_guest(table: Table, machine: Machine, work: Work, default_name: str) -> GuestSpec:
    pcpus = len(machine.cpus)
    pin = table.integers("pin", [], _FLOATS, pcpus - 1)
    vcpus = table.integer("vcpus", len(pin) or 1, 1, _MAX_VCPUS)
    if pin and len(pin) != vcpus:
        table.refuse("pin", f"pin has {len(pin)} pCPUs for {vcpus} vCPUs", "give one pCPU for each vCPU, or no pin")
    allowed = machine.cpus if not pin or _FLOATS in pin else tuple(machine.cpus[pcpu] for pcpu in pin)
    without = no_vpmu(machine.cpus)
    pmuver = _pmuver(table, min(*(cpu.pmuver for cpu in allowed), _KVM_PMUVER_LIMIT), without)
    tasks = _by_cpu(table.tables("task", keys.GUEST_TASK), "vcpu", vcpus, "vCPUs", everywhere=False)
    sessions = _by_cpu(table.tables("perf", keys.GUEST_PERF), "vcpu", vcpus, "vCPUs")
    return GuestSpec(
        name=_name(table, default_name),
        hz=table.integer("hz", _HZ, 1, _MAX_HZ),
        counters=_counters(table, min(cpu.counters for cpu in allowed)),
        pmuver=pmuver,
        vcpus=tuple(
            VcpuSpec(
                pcpu=pin[vcpu] if pin else _FLOATS,
                tasks=tuple(read_guest_task(task, machine, work) for task in tasks[vcpu]),
                sessions=tuple(
                    read_session(session, cpu_wide=True, frequency_hz=machine.frequency_hz)
                    for session in sessions[vcpu]
                ),
            )
            for vcpu in range(vcpus)
        ),
        mux_interval=_mux_interval(table, machine),
        denied=_denied(table),
        accounting=_accounting(table),
        sysctls=_sysctls(table),
        group_throttle=_group_throttle(table),
    )


def _counters(table: Table, fewest: int) -> int:
    counters = table.integer("counters", fewest, 0, 31)
    if counters > fewest:
        table.refuse(
            "counters",
            f"the guest wants {counters} event counters, but a pCPU that it may run on has {fewest}: "
            "HPMN cannot exceed PMCR_EL0.N",
            f"give at most {fewest} (the cycle counter is not counted)",
        )
    return counters


def _pmuver(table: Table, latest: int, without: str) -> int:
    """PMUVer as the guest reads it; 0 for a guest that finds no PMU, as `without` says of all."""
    if without:
        if table.integer("pmuver", _NO_PMU, _NO_PMU, max(cores.PMUVER)) != _NO_PMU:
            table.refuse("pmuver", without, "give 0, or leave it out")
        return _NO_PMU
    pmuver = table.integer("pmuver", latest, _NO_PMU, latest)
    if pmuver != _NO_PMU and pmuver not in cores.PMUVER:
        known = ", ".join(f"{version} ({name})" for version, name in cores.PMUVER.items() if version <= latest)
        table.refuse(
            "pmuver", f"{pmuver} is not a PMUv3 version", f"give one of {known}, or 0 for a guest without a PMU"
        )
    return pmuver


def _denied(table: Table) -> tuple[int, ...]:
    """The event numbers that the VM's filter denies."""
    names = table.strings("denied")
    if not names:
        return ()
    try:
        specs = parse_events(names, pmus=GUEST_PMUS)
    except EventSyntaxError as error:
        table.refuse("denied", error.problem, error.remedy, index=error.argument)
    for spec in specs:
        if spec.software or spec.event == events.UNMAPPED:
            table.refuse("denied", f"{spec.name!r} is no event of a PMU", "leave it out")
        if spec != EventSpec(spec.name, spec.event, spec.leader, generic=spec.generic, sysfs=spec.sysfs):
            table.refuse("denied", f"{spec.name!r}: the filter knows event numbers only", "leave the modifiers out")
    return tuple(sorted({spec.event for spec in specs}))


def _name(table: Table, default: str) -> str:
    name = table.text("name", default)
    if (
        not name.isascii()
        or not name.replace("-", "").replace("_", "").isalnum()
        or name in ("host", "host_perf", "kvm")
    ):
        table.refuse(
            "name", f"{name!r} cannot name a guest", "use letters, digits, - and _ (not host, host_perf or kvm)"
        )
    return name


def _by_cpu(tables: list[Table], key: str, cpus: int, what: str, *, everywhere: bool = True) -> list[list[Table]]:
    """The tables that concern each CPU; one that names no CPU concerns all, or else the first."""
    found: list[list[Table]] = [[] for _ in range(cpus)]
    for table in tables:
        chosen = table.integers(key, range(cpus) if everywhere else [0], 0, 2**31)
        for cpu in chosen:
            if cpu >= cpus:
                table.refuse(key, f"there is no {key} {cpu}", f"there are {cpus} {what}, counted from 0")
            found[cpu].append(table)
    return found


def read_task(table: Table, machine: Machine, work: Work, pmus: Pmus = GUEST_PMUS, tool: str = TOOLS[0]) -> TaskSpec:
    """A program: its phases and its perf session, on a guest's PMU or on `pmus`."""
    session: SessionSpec | None = None
    if "perf" in table:
        perf = table.table("perf", keys.TASK_PERF)
        session = read_session(perf, cpu_wide=False, frequency_hz=machine.frequency_hz, pmus=pmus, tool=tool)
    phases, turns = work.phases(table)
    read_every = 0
    if "rdpmc_us" in table:
        read_every = machine.length(table, "rdpmc_us", "us", 1, Decimal("0.1"), 10**9)
    if read_every and not (session and any(event.rdpmc for event in session.events)):
        remedy = 'give it a session with events = "armv8_pmuv3_0/cpu_cycles,rdpmc=1/", or leave it out'
        table.refuse("rdpmc_us", "there is no event that the program may read", remedy)
    return TaskSpec(
        name=table.text("name", table.text("workload")),
        phases=phases,
        repeat=table.integer("repeat", 1, 1, 2**31),
        session=session,
        sleep=machine.length(table, "sleep_ms", "ms", 0, 0, 10**6),
        threads=table.integer("threads", 1, 1, MAX_THREADS),
        turns=turns,
        read_every=read_every,
    )


def read_guest_task(table: Table, machine: Machine, work: Work) -> TaskSpec:
    """A program of a guest, at EL0 and EL1."""
    task = read_task(table, machine, work)
    if any(phase.el > 1 for phase in task.phases):
        table.refuse(
            "workload", f"{table.text('workload')} runs at EL2, a guest has EL0 and EL1", "leave it to a [[host.task]]"
        )
    return task


def _at_el2(task: TaskSpec) -> TaskSpec:
    """A program of the host: what the kernel does for it, it does at EL2."""
    return replace(task, phases=tuple(replace(phase, el=2 if phase.el else 0) for phase in task.phases))


def _accounting(table: Table) -> str:
    return table.choice("accounting", ACCOUNTING, ACCOUNTING[0])


def _mux_interval(table: Table, machine: Machine) -> int:
    if "mux_interval_ms" not in table:
        return 0
    return machine.cycles(Decimal(table.whole("mux_interval_ms", "ms", 4, 1, 10_000)) / 1000)


def _sysctls(table: Table) -> PerfSysctls:
    default = DEFAULT_SYSCTLS
    return PerfSysctls(
        max_sample_rate=table.integer("perf_event_max_sample_rate", default.max_sample_rate, 1, MAX_FREQUENCY),
        cpu_time_max_percent=table.integer("perf_cpu_time_max_percent", default.cpu_time_max_percent, 0, 100),
        user_access=bool(table.integer("perf_user_access", 0, 0, 1)),
    )
