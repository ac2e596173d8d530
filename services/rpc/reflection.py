"""grpc.reflection.v1alpha: what services there are, for clients such as grpcurl that have no .proto files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import grpc
from grpc_reflection.v1alpha.reflection import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from services.rpc.health import HEALTH
from services.rpc.method import Bidirectional, Handler
from services.rpc.stream import Stream

REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
INFO = Bidirectional(REFLECTION, "ServerReflectionInfo", ServerReflectionRequest, ServerReflectionResponse)

NO_CONTEXT = cast(grpc.ServicerContext, None)  # grpcio's servicer does not look at it


class Reflection:
    """Answers for the given services, health, and itself. grpcio's own servicer knows the answers."""

    def __init__(self, services: Iterable[str]) -> None:
        self.services = sorted({*services, HEALTH, REFLECTION})
        self._servicer = ReflectionServicer(self.services)

    def handler(self) -> Handler:
        return INFO.handled_by(self._info)

    async def _info(self, stream: Stream[ServerReflectionResponse, ServerReflectionRequest]) -> None:
        async for request in stream:
            for answer in self._servicer.ServerReflectionInfo(iter([request]), NO_CONTEXT):
                await stream.send(answer)
