"""kvm as a service: what people ask of a running topology, and virtual time that runs while there is work."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import orjson
import trio
from grpc import StatusCode

from services import experiment as ex
from services import result as results
from services import typed_json
from services.attend import Attendance, PeerGone, RemoteSoftware, Role, Seat
from services.kvm.errors import SimulationError
from services.kvm.requests import HOST, Request
from services.kvm.simulation import Simulation
from services.kvm.trials import Play, marked
from services.rpc import Abort, Handler, Stream, first_of
from services.wire import actor_pb2, lab_pb2
from services.wire.methods import DESCRIBE, INJECT, LOG, PROTOCOL_VERSION, RESULT, SHUTDOWN, STATE, WATCH

ATTEND_SECONDS = 30.0  # within which every actor must have taken its seat
WATCH_MS = 200
STOP_SECONDS = 2.0  # that the interaction under way has to end, and then the sessions
INTERACTIONS = 16  # between two looks at what people ask; each takes some milliseconds


class _Stopped(Exception):
    """Raised between two interactions after `shutdown`."""


@dataclass(slots=True, eq=False)
class _Snapshot:
    """kvm's state, once it has been taken."""

    state: bytes = b""
    taken: trio.Event = field(default_factory=trio.Event)


class Lab:
    """One experiment in a topology of processes."""

    def __init__(self, experiment: ex.Experiment, addresses: Mapping[str, str] | None = None, *, play: Play) -> None:
        """`play` runs an experiment in this process: what is tried again when the run has ended."""
        self.experiment = experiment
        self.play = play
        self.addresses = dict(addresses or {})
        self.simulation = Simulation(experiment)
        self.attendance = Attendance(
            [Seat(Role.HOST, HOST, pcpu.cpu) for pcpu in self.simulation.pcpus]
            + [Seat(Role.GUEST, vcpu.name, vcpu.index) for vcpu in self.simulation.vcpus]
        )
        self.result: results.Result | None = None
        self.failure: str | None = None
        self.told = False  # somebody who has asked for something
        self._failed = StatusCode.UNAVAILABLE  # what they are told with it
        self._wall_seconds = 0.0
        self._snapshots: list[_Snapshot] = []  # to be taken between two interactions
        self._software: list[RemoteSoftware] = []
        self._changed = trio.Event()  # replaced each time anything below has changed
        self._stop = trio.Event()
        self._stopped = trio.Event()

    def handlers(self) -> list[Handler]:
        """What kvm serves."""
        return [
            self.attendance.handler(),
            DESCRIBE.handled_by(self.describe),
            INJECT.handled_by(self.inject),
            RESULT.handled_by(self.results),
            WATCH.handled_by(self.watch),
            LOG.handled_by(self.log),
            SHUTDOWN.handled_by(self.shutdown),
            STATE.handled_by(self.state),
        ]

    # Virtual time.

    def stop(self) -> None:
        """Have `run` end in order."""
        self._stop.set()
        self._change()

    async def run(self) -> None:
        """Run while there is work, wait for more while there is none, until `shutdown`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drive)
            await self._stop.wait()
            with trio.move_on_after(STOP_SECONDS):
                await self._stopped.wait()
            nursery.cancel_scope.cancel()
        with trio.move_on_after(STOP_SECONDS):
            await self.attendance.dismiss()

    async def _drive(self) -> None:
        """Virtual time, up to a failure or, between two interactions, to `shutdown`."""
        try:
            await self._seat()
            while True:
                await self._rest()
                await self._work()
        except* _Stopped:
            pass  # as it was asked to
        except* SimulationError as group:
            self._failed = StatusCode.ABORTED
            self._fail(str(first_of(group)))
        except* PeerGone as group:
            self._fail(f"{first_of(group)}; stopped at virtual time {self._seconds(self.simulation.now)}")
        self._stopped.set()

    def _fail(self, why: str) -> None:
        self.failure = why
        self._change()

    async def _rest(self) -> None:
        """Wait for work; virtual time stands still. Raises PeerGone if somebody leaves meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_departures)
            while not self.simulation.working and not self._stop.is_set():
                await self._changed.wait()
            nursery.cancel_scope.cancel()

    async def _watch_departures(self) -> None:
        raise await self.attendance.departure()

    async def _seat(self) -> None:
        """Wait for everybody. Raises SimulationError naming who did not come."""
        simulation = self.simulation
        with trio.move_on_after(ATTEND_SECONDS):
            for seat in self.attendance.seats:
                software = await self.attendance.software(seat)
                self._software.append(software)
                if seat.role is Role.HOST:
                    simulation.attend_host(seat.cpu, software)
                else:
                    simulation.attend_guest(seat.name, seat.cpu, software)
            return
        missing = ", ".join(str(seat) for seat in self.attendance.missing())
        raise SimulationError(f"nobody attends for {missing} after {ATTEND_SECONDS:g} s")

    async def _work(self) -> None:
        """Run until no work is left; the result."""
        self._between_entries()
        self.result = None
        began = time.perf_counter()
        await self.simulation.run(self._between_entries, every=INTERACTIONS)
        result = await self.simulation.result()
        self._wall_seconds += time.perf_counter() - began
        measured = self.simulation.measured(result, self._wall_seconds)
        measured = await marked(self.experiment, measured, self.play)
        self.result = results.of(self.experiment, measured, "processes")
        if self.simulation.hung:
            await self.attendance.hang()
        self._take_snapshots()
        self._change()

    def _between_entries(self) -> None:
        """Called now and then when no handler runs. Raises _Stopped after `shutdown`."""
        if self._stop.is_set():
            raise _Stopped
        self._take_snapshots()
        self._change()

    def _take_snapshots(self) -> None:
        if self._snapshots and not self.simulation.entered:
            state = orjson.dumps(self.simulation.state())
            for snapshot in self._snapshots:
                snapshot.state = state
                snapshot.taken.set()
            self._snapshots.clear()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _seconds(self, cycles: int) -> str:
        return f"{cycles / self.experiment.frequency_hz:.6f} s"

    # What people ask.

    async def describe(self, request: lab_pb2.DescribeRequest) -> lab_pb2.Description:
        experiment = self.experiment
        missing = {seat.name for seat in self.attendance.missing()}
        gone = {software.seat.name for software in self._software if software.gone is not None}
        axes = "".join(f",{axis}={value}" for axis, value in experiment.design.axes.items())
        targets = [(HOST, len(experiment.cpus))] + [(guest.name, len(guest.vcpus)) for guest in experiment.guests]
        return lab_pb2.Description(
            protocol_version=PROTOCOL_VERSION,
            version=version("pmulab"),
            scenario=experiment.scenario,
            design=experiment.design.name + axes,
            seed=experiment.seed,
            frequency_hz=experiment.frequency_hz,
            pcpus=len(experiment.cpus),
            targets=[
                lab_pb2.Target(name=name, cpus=cpus, attended=name not in missing | gone) for name, cpus in targets
            ],
            now=self.simulation.now,
            services=[lab_pb2.ServiceAddress(actor=a, address=address) for a, address in self.addresses.items()],
            launch=typed_json.dumps(experiment).decode(),
        )

    async def inject(self, request: lab_pb2.InjectRequest) -> lab_pb2.Injected:
        self._goes_on()
        try:
            number = self.simulation.requests.add(request_of(request))
        except KeyError as exc:
            raise Abort(StatusCode.NOT_FOUND, f"target: {exc.args[0]}") from None
        except ValueError as exc:
            raise Abort(StatusCode.INVALID_ARGUMENT, str(exc)) from None
        self._change()
        while len(self.simulation.requests.taken) < number:
            self._goes_on()
            await self._changed.wait()
        taken = self.simulation.requests.taken[number - 1]
        return lab_pb2.Injected(id=number, entry=taken.entry, now=taken.virtual_cycles)

    async def results(self, request: lab_pb2.ResultRequest) -> lab_pb2.ResultReply:
        while self.result is None:
            self._alive()
            if not request.wait:
                break
            await self._changed.wait()
        return lab_pb2.ResultReply(json=orjson.dumps(self.result), done=self.result is not None)

    async def watch(
        self, request: lab_pb2.WatchRequest, stream: Stream[lab_pb2.Progress, lab_pb2.WatchRequest]
    ) -> None:
        while True:
            self._alive()
            simulation = self.simulation
            total, left = simulation.progress()
            done = self.result is not None
            await stream.send(
                lab_pb2.Progress(
                    now=simulation.now,
                    entries=simulation.board.interactions,
                    total=total,
                    left=left,
                    running=sum(v.working for v in simulation.vcpus) + sum(not t.finished for t in simulation.tasks),
                    done=done,
                )
            )
            if done:
                return
            await trio.sleep((request.interval_ms or WATCH_MS) / 1000)

    async def log(self, request: lab_pb2.LogRequest) -> lab_pb2.InjectionLog:
        return lab_pb2.InjectionLog(
            injections=[
                lab_pb2.LoggedInjection(
                    injected=lab_pb2.Injected(id=number, entry=taken.entry, now=taken.virtual_cycles),
                    request=wire_request(taken.request),
                )
                for number, taken in enumerate(self.simulation.requests.taken, 1)
            ]
        )

    async def shutdown(self, request: lab_pb2.ShutdownRequest) -> lab_pb2.ShutdownReply:
        self.stop()
        return lab_pb2.ShutdownReply(now=self.simulation.now)

    async def state(self, request: actor_pb2.StateRequest) -> actor_pb2.StateReply:
        """kvm's state, taken between two entries."""
        if not self.simulation.entered:
            return actor_pb2.StateReply(name="kvm", state=orjson.dumps(self.simulation.state()))
        snapshot = _Snapshot()
        self._snapshots.append(snapshot)
        while not snapshot.taken.is_set():
            self._goes_on()
            await self._changed.wait()
        return actor_pb2.StateReply(name="kvm", state=snapshot.state)

    def _alive(self) -> None:
        if self.failure is not None:
            self.told = True
            raise Abort(self._failed, self.failure)

    def _goes_on(self) -> None:
        self._alive()
        if self.simulation.hung:
            raise Abort(StatusCode.UNAVAILABLE, f"nothing happens any more: {self.simulation.hung}")


def wire_request(request: Request) -> lab_pb2.InjectRequest:
    """A request as the wire has it."""
    return lab_pb2.InjectRequest(
        target=request.target,
        cpu=request.cpu,
        profiles=[
            lab_pb2.Profile(events=[event for event, _ in rates], rates=[rate for _, rate in rates])
            for rates in request.profiles
        ],
        task=None if request.task is None else typed_json.dumps(request.task).decode(),
        session=None if request.session is None else typed_json.dumps(request.session).decode(),
        parameter=None if request.parameter is None else typed_json.dumps(request.parameter).decode(),
    )


def request_of(message: lab_pb2.InjectRequest) -> Request:
    """A request as the simulation takes it. Raises ValueError naming what is malformed."""
    for index, profile in enumerate(message.profiles):
        if len(profile.events) != len(profile.rates):
            raise ValueError(f"profiles[{index}]: it has {len(profile.events)} events but {len(profile.rates)} rates")
    work = message.WhichOneof("work")
    try:
        return Request(
            message.target,
            message.cpu,
            tuple(tuple(zip(profile.events, profile.rates, strict=True)) for profile in message.profiles),
            task=typed_json.loads(ex.TaskSpec, message.task.encode(), "task") if work == "task" else None,
            session=typed_json.loads(ex.SessionSpec, message.session.encode(), "session")
            if work == "session"
            else None,
            parameter=typed_json.loads(ex.ReservedHostCounters, message.parameter.encode(), "parameter")
            if work == "parameter"
            else None,
        )
    except orjson.JSONDecodeError as exc:
        raise ValueError(f"{work}: it is not JSON: {exc}") from None
