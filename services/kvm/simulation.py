"""The kvm actor: all pCPUs in virtual-time order, the vCPUs on them, and what came of it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import orjson
import trio

from services import experiment as ex
from services import typed_json
from services._pmu import Machine, register_name
from services.boot import GuestBoot, HostBoot, ThreadSession
from services.costs import Cost
from services.cpu import EntryKind
from services.kvm import bill, designs
from services.kvm.attendant import Attendant
from services.kvm.errors import SimulationError
from services.kvm.pcpu import PCpu, Thread
from services.kvm.requests import Requests
from services.kvm.task import HostTask
from services.kvm.vcpu import VCpu

CPU_CYCLES = 0x11
CHECKPOINT_EVERY = 256  # interactions between two trio checkpoints: some milliseconds


@dataclass(slots=True)
class BurstCounts:
    """Bursts that software has sent: all; the host's within traps of guests; a guest's in its PMU interrupt handler."""

    total: int = 0
    traps: int = 0
    interrupts: int = 0


class Simulation:
    """One experiment under one design."""

    def __init__(self, experiment: ex.Experiment) -> None:
        self.experiment = experiment
        self.costs = [experiment.costs.get(cost.name.lower(), 0) for cost in Cost]
        self.design = designs.make(experiment.design, experiment.guests)
        self.fallbacks = designs.fallbacks(self.design, experiment)
        self.machine = _machine(experiment)
        self.pcpus = [PCpu(self, i, self.machine.add_context(False)) for i in range(len(experiment.cpus))]
        self.vcpus: list[VCpu] = []
        self.threads: list[Thread] = []
        self.requests = Requests(self)
        self.interactions = 0
        self.entered = False  # a handler is running, so not all state is data
        self.bursts = BurstCounts()
        for vm, guest in enumerate(experiment.guests):
            for index, spec in enumerate(guest.vcpus):
                pcpu = self.pcpus[spec.pcpu if spec.pcpu >= 0 else len(self.vcpus) % len(self.pcpus)]
                vcpu = VCpu(self, len(self.threads), vm, index, pcpu, self.machine.add_context(True))
                vcpu.vpmu = self.design.vpmu(vcpu)
                self.threads.append(vcpu)
                self.vcpus.append(vcpu)
                pcpu.queue.append(vcpu)
                pcpu.host_has_events |= bool(spec.host_sessions)
        self.tasks: list[HostTask] = []
        for pcpu, host in zip(self.pcpus, experiment.host.cpus, strict=True):
            pcpu.host_has_events |= bool(host.sessions) or any(task.session for task in host.tasks)
            for task in host.tasks:
                thread = HostTask(self, len(self.threads), pcpu, task)
                self.threads.append(thread)
                self.tasks.append(thread)
                pcpu.queue.append(thread)

    # What actors are booted with.

    def host_boot(self, index: int) -> bytes:
        """The BOOT payload of the host's perf on pCPU `index`."""
        experiment, host = self.experiment, self.experiment.host
        threads = [
            ThreadSession(task.id, task.spec.session)
            for task in self.tasks
            if task.pcpu.index == index and task.spec.session is not None
        ]
        threads += [
            ThreadSession(vcpu.id, session)
            for vcpu in self.vcpus
            if vcpu.pcpu.index == index
            for session in vcpu.config.host_sessions
        ]
        return typed_json.dumps(
            HostBoot(
                cpu=index,
                frequency_hz=experiment.frequency_hz,
                costs=experiment.costs,
                hz=host.hz,
                mux_interval=host.mux_interval,
                features=experiment.cpus[index],
                policy=self.design.host_policy(experiment.cpus[index]),
                sessions=host.cpus[index].sessions,
                threads=tuple(threads),
                vcpu_threads=tuple(vcpu.id for vcpu in self.vcpus),
            )
        )

    def guest_boot(self, vcpu: VCpu) -> bytes:
        """The BOOT payload of a guest's kernel on one vCPU."""
        experiment = self.experiment
        return typed_json.dumps(
            GuestBoot(
                vcpu=vcpu.index,
                frequency_hz=experiment.frequency_hz,
                costs=experiment.costs,
                guest=experiment.guests[vcpu.vm],
                pmuver=vcpu.pmu.pmuver,
            )
        )

    # Running.

    def attend_host(self, index: int, software: Attendant) -> None:
        """`software` is the host's perf on pCPU `index`."""
        self.pcpus[index].host = software

    def attend_guest(self, name: str, index: int, software: Attendant) -> None:
        """`software` is the kernel of VM `name` on its vCPU `index`."""
        self.vcpu(name, index).guest = software

    def vcpu(self, name: str, index: int) -> VCpu:
        for vcpu in self.vcpus:
            if vcpu.name == name and vcpu.index == index:
                return vcpu
        raise KeyError(f"no vCPU {index} of a guest {name!r}")

    def idle_pcpu(self) -> PCpu | None:
        """The first pCPU that idles."""
        return next((pcpu for pcpu in self.pcpus if pcpu.idle), None)

    @property
    def working(self) -> bool:
        """Is there work left: a workload or a perf session of a guest, a task of the host?"""
        return (
            bool(self.requests.waiting) or any(v.working for v in self.vcpus) or not all(t.finished for t in self.tasks)
        )

    @property
    def now(self) -> int:
        """The time, in cycles, up to which every pCPU has got."""
        return min(pcpu.now for pcpu in self.pcpus)

    async def run(self, progress: Callable[[], None] | None = None, *, every: int = CHECKPOINT_EVERY) -> None:
        """Run until no work is left, or `progress` raises, which is called between two interactions.

        It is called, after a trio checkpoint, before the first interaction and then after `every` of them.
        """
        done = 0
        while self.working:
            if done % every == 0:
                await trio.lowlevel.checkpoint()
                if progress is not None:
                    progress()
            done += 1
            await self.step()

    async def step(self) -> None:
        """The next interaction: on the pCPU whose own is earliest, ties by number."""
        if self.requests.waiting:
            self.requests.take()
        pcpus = self.pcpus
        pcpu = pcpus[0] if len(pcpus) == 1 else min(pcpus, key=PCpu.next_interaction)
        self.interactions += 1
        self.entered = True
        await pcpu.step()
        self.entered = False

    @property
    def profiles(self) -> int:
        """Profiles that the machine knows: the experiment's, and those of live clients."""
        return len(self.experiment.profiles) + self.requests.profiles

    def progress(self) -> tuple[int, int]:
        """Cycles of work that tasks were given and how many of them are left."""
        total = sum(_work(task) for task in self._tasks())
        done = sum(vcpu.computed for vcpu in self.vcpus) + sum(task.computed for task in self.tasks)
        return total, max(total - done, 0)

    def _tasks(self) -> Iterator[ex.TaskSpec]:
        for guest in self.experiment.guests:
            for vcpu in guest.vcpus:
                yield from vcpu.tasks
        for host in self.experiment.host.cpus:
            yield from host.tasks
        yield from self.requests.tasks()

    def round_trips(self) -> dict[str, int]:
        """Messages that software sent in answer to one of kvm's, or would have sent: one for each burst."""
        return asdict(self.bursts)

    def counter_overflow(self, pcpu: PCpu, handle: int) -> None:
        """A kernel counter overflowed; its handle names the vCPU's thread and the counter (`Vpmu`)."""
        thread = self.threads[handle >> 5]
        assert isinstance(thread, VCpu)
        thread.note_overflow(pcpu)
        thread.vpmu.counter_overflow(handle & 31)

    def guest_overflow(self, pcpu: PCpu, mask: int) -> None:
        """The host's handler on `pcpu` saw overflow flags in the guest's range."""
        if isinstance(pcpu.current, VCpu):
            pcpu.current.note_overflow(pcpu)
            pcpu.current.vpmu.guest_overflow(mask)

    # Results.

    async def result(self) -> dict[str, Any]:
        """All that is in the digest, as plain data; times in cycles, counts as they are."""
        for vcpu in self.vcpus:
            vcpu.want_report()
        while any(vcpu.report_due for vcpu in self.vcpus):
            await self.step()
        guests = [
            {
                "name": guest.name,
                "vcpus": [
                    _report(vcpu.reported, f"{vcpu.name} on vCPU {vcpu.index}")
                    | {"interrupt_latency": vcpu.latencies.summary()}
                    | {"vcpu_load": vcpu.load_times.summary(), "vcpu_put": vcpu.put_times.summary()}
                    | {f"true_el{el}_cycles": self.machine.truth(vcpu.context, el, CPU_CYCLES) for el in (0, 1)}
                    for vcpu in self.vcpus
                    if vcpu.vm == vm
                ],
            }
            for vm, guest in enumerate(self.experiment.guests)
        ]
        hosts = []
        for pcpu in self.pcpus:
            pcpu.enter_kernel()
            answer = await pcpu.enter_host(EntryKind.REPORT) if pcpu.booted else b"{}"
            hosts.append(
                _report(answer, f"the host's perf on pCPU {pcpu.index}")
                | {"interrupt_latency": pcpu.latencies.summary()}
            )
        time = dict.fromkeys(("guest", "host_kernel", "host_user", "idle"), 0)
        accounted = dict(time)
        end = max(pcpu.now for pcpu in self.pcpus)
        for pcpu in self.pcpus:
            pcpu.account("idle")
            for party, cycles in self.machine.cycles(pcpu.index).items():
                time[party] += cycles
            for party, cycles in pcpu.accounted.items():
                accounted[party] += cycles
        traps: dict[str, int] = {}
        for vcpu in self.vcpus:
            for (register, write), count in vcpu.traps.items():
                key = f"{register_name(register)}:{'w' if write else 'r'}"
                traps[key] = traps.get(key, 0) + count
        swaps = [vcpu.vpmu.swaps for vcpu in self.vcpus]
        return {
            "log": self.machine.digest(),
            "virtual_cycles": end,
            "interactions": self.interactions,
            "time": time,
            "accounted": accounted,
            "bill": {
                "host": bill.host(self.machine, len(self.pcpus), sum(task.in_kernel for task in self.tasks)),
                "host_by_cost": bill.by_cost(self.machine, len(self.pcpus), guests=False),
                "guests_by_cost": bill.by_cost(self.machine, len(self.pcpus), guests=True),
            },
            "traps": dict(sorted(traps.items())),
            "swaps": {
                name: sum(getattr(swap, name) for swap in swaps)
                for name in ("loads", "puts", "register_writes", "register_reads")
            },
            "interrupts_injected": sum(vcpu.injected for vcpu in self.vcpus),
            "fallbacks": self.fallbacks,
            "choices": self._choices(),
            "guests": guests,
            "hosts": hosts,
            "injected": self.requests.taken,
        }

    def measured(self, result: dict[str, Any], wall_seconds: float) -> dict[str, Any]:
        """What `result` gave, with its digest and what is outside of that."""
        return {
            "digest": digest(result),
            "wall_seconds": wall_seconds,
            "round_trips": self.round_trips(),
            **result,
        }

    def _choices(self) -> dict[str, int]:
        """How often a CPU did what the architecture leaves open, by the choice's name; those that were made."""
        made: dict[str, int] = {}
        for pcpu in self.pcpus:
            for choice, count in self.machine.choices_made(pcpu.index).items():
                if count:
                    made[choice] = made.get(choice, 0) + count
        return dict(sorted(made.items()))

    # State.

    def state(self) -> dict[str, Any]:
        """Everything of kvm, as JSON-able data; the experiment is not in it."""
        return {
            "machine": b64encode(self.machine.state()).decode(),
            "pcpus": [pcpu.state() for pcpu in self.pcpus],
            "vcpus": [vcpu.state() for vcpu in self.vcpus],
            "tasks": [task.state() for task in self.tasks],
            "interactions": self.interactions,
            "requests": self.requests.state(),
        }

    @classmethod
    def from_state(cls, experiment: ex.Experiment, state: dict[str, Any]) -> Simulation:
        """The simulation of `experiment` as it was; its software must be attached anew."""
        simulation = cls(experiment)
        simulation.machine = Machine.from_state(b64decode(state["machine"]))
        for pcpu in simulation.pcpus:
            pcpu.machine = simulation.machine
        for vcpu, of_vcpu in zip(simulation.vcpus, state["vcpus"], strict=True):
            vcpu.machine = simulation.machine
            vcpu.restore(of_vcpu)
        for task, of_task in zip(simulation.tasks, state["tasks"], strict=True):
            task.machine = simulation.machine
            task.restore(of_task)
        for pcpu, of_pcpu in zip(simulation.pcpus, state["pcpus"], strict=True):
            pcpu.restore(of_pcpu)
        simulation.interactions = state["interactions"]
        simulation.requests.restore(state["requests"])
        return simulation


def digest(result: dict[str, Any]) -> str:
    """One number over a run's results and its ordered event log."""
    return sha256(orjson.dumps(result, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _report(answer: bytes, who: str) -> dict[str, Any]:
    """What software has reported. Raises SimulationError unless it is a JSON object."""
    try:
        report = orjson.loads(answer)
    except orjson.JSONDecodeError as exc:
        raise SimulationError(f"{who} reports what is no JSON: {exc}") from None
    if not isinstance(report, dict):
        raise SimulationError(f"{who} reports no JSON object")
    return report


def _work(task: ex.TaskSpec) -> int:
    return task.repeat * task.threads * sum(phase.cycles for phase in task.phases)


def _machine(experiment: ex.Experiment) -> Machine:
    costs = experiment.costs
    machine = Machine(
        [
            {
                "counters": cpu.counters,
                "pmuver": cpu.pmuver,
                "fgt": cpu.fgt,
                "hpmn0": int(cpu.hpmn0),
                "icntr": int(cpu.icntr),
            }
            for cpu in experiment.cpus
        ],
        experiment.events,
        mrs_cycles=costs["mrs"],
        msr_cycles=costs["msr"],
        isb_cycles=costs["isb"],
    )
    for rates in experiment.profiles:
        machine.add_profile(rates)
    return machine
