"""What `pmulab inject` reads: a file with one `[task]`, one `[perf]` session for a whole CPU, or `[sysfs]`."""

from __future__ import annotations

from pmulab.scenario import keys
from pmulab.scenario.actors import read_guest_task
from pmulab.scenario.cpu_maps import CpuMaps
from pmulab.scenario.machine import Machine, read_reserved
from pmulab.scenario.perf_events import GUEST_PMUS
from pmulab.scenario.sessions import host_pmus, read_session
from pmulab.scenario.work import Work
from services.core_pmus import core_pmus
from services.experiment import Experiment, ReservedHostCounters, SessionSpec, TaskSpec
from services.tables import Document, Table
from services.workload import Rates


def load(
    path: str, experiment: Experiment, target: str, cpu: int
) -> tuple[TaskSpec | SessionSpec | ReservedHostCounters, list[Rates]]:
    """The work in the file at `path`, and the profiles that its phases index into, for a topology that
    runs `experiment`, on a CPU of `target`, the host or a guest. Raises UserError.
    """
    document = Document.read(path)
    table = Table(document, (), document.data, keys.INJECTION)
    if len(table.data) != 1:
        table.refuse(
            "task", "it must hold one table, [task], [perf] or [sysfs]", 'write [task] with workload = "gzip-random"'
        )
    if "perf" in table:
        pmus, maps = GUEST_PMUS, None
        if target == "host":
            pmus = host_pmus(experiment.cpus, of_task=False)
            maps = CpuMaps(core_pmus(experiment.cpus), (cpu,), listed=True)
        perf, hz, tool = table.table("perf", keys.TASK_PERF), experiment.frequency_hz, experiment.host.perf_tool
        return read_session(perf, cpu_wide=True, frequency_hz=hz, pmus=pmus, maps=maps, tool=tool), []
    if "sysfs" in table:
        sysfs = table.table("sysfs", keys.SYSFS_NOW)
        sysfs.require("reserved_host_counters", "4")
        return ReservedHostCounters(read_reserved(sysfs, experiment.cpus)), []
    machine = Machine(experiment.cpus, experiment.frequency_hz, experiment.costs, experiment.exits)
    work = Work(machine)
    task = read_guest_task(table.table("task", keys.TASK), machine, work)
    tallied = set(experiment.events)
    return task, [tuple(rate for rate in rates if rate[0] in tallied) for rates in work.profiles]
