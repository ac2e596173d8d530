"""grpc.health.v1: whether a server, and each of its services, is ready to be called."""

from __future__ import annotations

from collections.abc import Iterable

import trio
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from services.rpc.method import Handler, ServerStreaming, Unary
from services.rpc.status import Abort
from services.rpc.stream import Stream

HEALTH = "grpc.health.v1.Health"
CHECK = Unary(HEALTH, "Check", HealthCheckRequest, HealthCheckResponse)
WATCH = ServerStreaming(HEALTH, "Watch", HealthCheckRequest, HealthCheckResponse)

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The server as a whole is the service ''. Everything is SERVING until somebody says otherwise."""

    def __init__(self, services: Iterable[str]) -> None:
        self._serving = dict.fromkeys(["", *services], True)
        self._changed = trio.Event()
        self._stopping = False

    def set(self, serving: bool, service: str = "") -> None:
        """Raises KeyError for a service that is not there."""
        if self._serving[service] != serving:
            self._serving[service] = serving
            self._change()

    def stop(self) -> None:
        """The server is shutting down: nothing serves any more, and whoever watches is told so."""
        self._serving = dict.fromkeys(self._serving, False)
        self._stopping = True
        self._change()

    def handlers(self) -> list[Handler]:
        return [CHECK.handled_by(self._check), WATCH.handled_by(self._watch)]

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _check(self, request: HealthCheckRequest) -> HealthCheckResponse:
        if request.service not in self._serving:
            raise Abort(StatusCode.NOT_FOUND, f"service: no {request.service!r} here")
        return HealthCheckResponse(status=SERVING if self._serving[request.service] else NOT_SERVING)

    async def _watch(
        self, request: HealthCheckRequest, stream: Stream[HealthCheckResponse, HealthCheckRequest]
    ) -> None:
        said = None
        while True:
            serving = self._serving.get(request.service)
            status = SERVICE_UNKNOWN if serving is None else SERVING if serving else NOT_SERVING
            if status != said:
                await stream.send(HealthCheckResponse(status=status))
                said = status
            elif self._stopping:
                return
            else:
                await self._changed.wait()
