"""What live clients ask of a running simulation: checked, taken up between interactions, logged for a replay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from services import experiment as ex
from services import typed_json

if TYPE_CHECKING:
    from services.kvm.simulation import Simulation

HOST = "host"  # as the target of a request
MARK = 64  # in the ordered log; entries are marked with their kind


class Requests:
    """A request is plain data: `target` ("host" or a guest), `cpu`, `profiles`, and a `task` or a `session`."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.waiting: list[dict[str, Any]] = []
        self.taken: list[dict[str, Any]] = []  # with the number of the interaction and the virtual time

    def add(self, request: dict[str, Any]) -> int:
        """It takes effect at the next entry of the CPU concerned. Its number, from 1.

        Raises KeyError for an unknown target or CPU, ValueError for a malformed request.
        """
        self._check(request)
        self.waiting.append(request)
        return len(self.taken) + len(self.waiting)

    @property
    def profiles(self) -> int:
        """Profiles that live clients have brought."""
        return sum(len(taken["request"]["profiles"]) for taken in self.taken)

    def tasks(self) -> Iterator[ex.TaskSpec]:
        """The tasks that live clients have brought."""
        for taken in self.taken:
            if "task" in taken["request"]:
                yield typed_json.loads(ex.TaskSpec, orjson.dumps(taken["request"]["task"]))

    def _check(self, request: dict[str, Any]) -> None:
        simulation = self.simulation
        target, cpu = request["target"], request["cpu"]
        if "task" in request:
            task = typed_json.loads(ex.TaskSpec, orjson.dumps(request["task"]), "task")
            _check_task(task, len(request["profiles"]))
            session, where = task.session, "task.session"
        else:
            session, where = typed_json.loads(ex.SessionSpec, orjson.dumps(request["session"]), "session"), "session"
        if session is not None:
            _check_session(session, where, simulation.experiment.events)
        if target != HOST:
            simulation.vcpu(target, cpu)
        elif cpu >= len(simulation.pcpus):
            raise KeyError(f"the host has {len(simulation.pcpus)} pCPUs, there is no {cpu}")
        elif "task" in request:
            raise ValueError("task: the host takes perf sessions only; its tasks are the scenario's")

    def take(self) -> None:
        """Take up what is waiting."""
        simulation = self.simulation
        for request in self.waiting:
            base = simulation.profiles
            for rates in request["profiles"]:
                simulation.machine.add_profile(rates)
            payload = {key: request[key] for key in ("task", "session") if key in request}
            if "task" in payload:
                phases = [phase | {"profile": phase["profile"] + base} for phase in payload["task"]["phases"]]
                payload["task"] = payload["task"] | {"phases": phases}
            if request["target"] == HOST:
                pcpu = simulation.pcpus[request["cpu"]]
                pcpu.requests.append(orjson.dumps(payload))
                pcpu.host_has_events = True
            else:
                vcpu = simulation.vcpu(request["target"], request["cpu"])
                pcpu = vcpu.pcpu
                vcpu.requests.append(orjson.dumps(payload))
                vcpu.working = True
                if vcpu.blocked:
                    pcpu.arrivals.append((pcpu.now, vcpu.id))
            pcpu.rearm()
            simulation.machine.mark(pcpu.index, MARK, simulation.interactions, request["cpu"])
            self.taken.append({"entry": simulation.interactions, "virtual_cycles": pcpu.now, "request": request})
        self.waiting = []

    def state(self) -> dict[str, Any]:
        return {"waiting": self.waiting, "taken": self.taken}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state()` gave."""
        self.waiting, self.taken = state["waiting"], state["taken"]


def _check_task(task: ex.TaskSpec, profiles: int) -> None:
    for index, phase in enumerate(task.phases):
        if not 0 <= phase.profile < profiles:
            raise ValueError(f"task.phases[{index}].profile: {phase.profile} is not among the request's profiles")
        if phase.cycles < 1 or phase.el not in (0, 1):
            raise ValueError(f"task.phases[{index}]: at least 1 cycle at exception level 0 or 1 is wanted")
    if task.repeat < 1 or task.sleep < 0:
        raise ValueError("task.repeat, task.sleep: at least 1 repetition and no negative time is wanted")


def _check_session(session: ex.SessionSpec, where: str, tallied: tuple[int, ...]) -> None:
    for index, event in enumerate(session.events):
        if event.event not in tallied:
            raise ValueError(f"{where}.events[{index}].event: {event.event:#x} is not simulated here")
        if not 0 <= event.leader <= index:
            raise ValueError(f"{where}.events[{index}].leader: {event.leader} is not an event before it or itself")
        if min(event.frequency, event.period) < 0:
            raise ValueError(f"{where}.events[{index}]: a negative frequency or period")
