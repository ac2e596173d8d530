"""Where services are served, who may call, and how they stop."""

import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from trio.testing import wait_all_tasks_blocked

from services.rpc import Address, BindError, Loop, RpcError, Server, Tls, connect, serve
from services.wire.lab_pb2 import DescribeRequest, Description
from services.wire.methods import DESCRIBE

DEADLINE = 10.0  # seconds; a failing test ends, a slow machine passes


async def describe(request: DescribeRequest) -> Description:
    return Description(scenario="gzip")


@asynccontextmanager
async def lab(loop: Loop, address: Address, **options: Any) -> AsyncIterator[Server]:
    with trio.fail_after(DEADLINE):
        async with serve(loop, address, [DESCRIBE.handled_by(describe)], **options) as server:
            yield server


async def call(loop: Loop, address: Address, tls: Tls | None = None, timeout: float = DEADLINE) -> str:
    async with connect(loop, address, name="lab", tls=tls) as channel:
        return (await channel.call(DESCRIBE, DescribeRequest(), timeout=timeout)).scenario


# Addresses.


@pytest.mark.parametrize("text", ["unix:/run/a.sock", "mtls:example.org:50051", "plaintext:127.0.0.1:0"])
def test_an_address_is_printed_as_it_is_read(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not one of unix:PATH"),
        ("/run/a.sock", "not one of unix:PATH"),
        ("localhost:50051", "not one of unix:PATH"),
        ("unix:", "not one of unix:PATH"),
        ("unix:/" + 107 * "x", "at most 107 bytes"),
        ("mtls:example.org", "no HOST:PORT"),
        ("mtls:example.org:65536", "no HOST:PORT"),
        ("plaintext:0.0.0.0:50051", "plain TCP is for loopback only"),
        ("plaintext:example.org:50051", "plain TCP is for loopback only"),
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Address.parse(text)


async def test_plain_tcp_on_loopback_gets_a_port(loop: Loop) -> None:
    async with lab(loop, Address.parse("plaintext:127.0.0.1:0")) as server:
        assert not server.address.target.endswith(":0")
        assert await call(loop, server.address) == "gzip"


async def test_a_tcp_port_is_served_once(loop: Loop) -> None:
    async with lab(loop, Address.parse("plaintext:127.0.0.1:0")) as server:
        with pytest.raises(BindError, match=f"cannot serve at {server.address}"):
            async with lab(loop, server.address):
                pass


# Unix sockets.


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_the_owner_reaches_a_socket(loop: Loop, address: Address) -> None:
    before = os.umask(0)
    try:
        async with lab(loop, address):
            during = os.umask(0)
            modes = [mode(Path(address.target)), mode(Path(address.target).parent)]
    finally:
        os.umask(before)
    assert modes == [0o700, 0o700]
    assert during == 0  # what else the process creates is none of the server's business


async def test_a_socket_is_served_once_and_the_first_server_stays_reachable(loop: Loop, address: Address) -> None:
    async with lab(loop, address):
        with pytest.raises(BindError, match="is being served by another process"):
            async with lab(loop, address):
                pass
        assert await call(loop, address) == "gzip"


async def test_a_socket_that_a_dead_process_left_is_no_obstacle(loop: Loop, address: Address) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(address.target)
    await trio.Path(f"{address.target}.lock").touch()
    async with lab(loop, address):
        assert await call(loop, address) == "gzip"


async def test_a_server_leaves_nothing_behind(loop: Loop, address: Address) -> None:
    async with lab(loop, address):
        pass
    assert list(Path(address.target).parent.iterdir()) == []


async def test_a_file_at_the_sockets_path_is_not_overwritten(loop: Loop, address: Address) -> None:
    path = trio.Path(address.target)
    await path.write_text("precious")
    with pytest.raises(BindError, match="exists and is not a socket"):
        async with lab(loop, address):
            pass
    assert await path.read_text() == "precious"


async def test_a_directory_that_others_may_enter_is_refused(loop: Loop, address: Address) -> None:
    directory = Path(address.target).parent
    directory.chmod(0o755)
    with pytest.raises(BindError, match="mode 0755: others could call the service; chmod 0700"):
        async with lab(loop, address):
            pass


async def test_a_directory_that_does_not_exist_is_named(loop: Loop) -> None:
    with pytest.raises(BindError, match="/nowhere: No such file or directory"):
        async with lab(loop, Address.parse("unix:/nowhere/a.sock")):
            pass


# Mutual TLS.


@pytest.fixture(scope="module")
def issue(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tls]:
    """A function that makes an authority and, signed by it, the certificate of localhost."""

    def issue(name: str) -> Tls:
        directory = tmp_path_factory.mktemp(name)

        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

        new_key = "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"
        openssl("req", "-x509", *new_key, "-subj", f"/CN={name}", "-keyout", "ca.key", "-out", "ca.pem")
        openssl(
            "req", "-x509", *new_key, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "own.key", "-out", "own.pem",
        )  # fmt: skip
        return Tls(directory / "ca.pem", directory / "own.pem", directory / "own.key")

    return issue


async def test_mutual_tls_admits_who_has_a_certificate_of_the_authority(
    loop: Loop, issue: Callable[[str], Tls]
) -> None:
    ours = issue("ours")
    async with lab(loop, Address.parse("mtls:localhost:0"), tls=ours) as server:
        assert await call(loop, server.address, ours) == "gzip"
        with pytest.raises(RpcError):
            await call(loop, server.address, issue("theirs"), timeout=0.5)
        with pytest.raises(ValueError, match="needs certificates"):
            await call(loop, server.address)


async def test_certificates_are_not_silently_unused(loop: Loop, address: Address) -> None:
    nobody = Path("/nowhere")
    with pytest.raises(ValueError, match="uses no certificates"):
        await call(loop, address, Tls(nobody, nobody, nobody))


# Stopping.


async def test_calls_under_way_may_end_and_new_ones_are_refused(loop: Loop, address: Address) -> None:
    entered, go_on = trio.Event(), trio.Event()
    answers: list[str] = []

    async def handler(request: DescribeRequest) -> Description:
        entered.set()
        await go_on.wait()
        return Description(scenario="finished")

    async def describe_once() -> None:
        answers.append(await call(loop, address))

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery, connect(loop, address, name="lab") as late:
            async with serve(loop, address, [DESCRIBE.handled_by(handler)], grace=DEADLINE):
                await late.reach()
                nursery.start_soon(describe_once)
                await entered.wait()
                nursery.start_soon(_release_when_refused, late, go_on)
    assert answers == ["finished"]


async def _release_when_refused(late: Any, go_on: trio.Event) -> None:
    await wait_all_tasks_blocked(0.05)  # the server is stopping
    with pytest.raises(RpcError, match="UNAVAILABLE"):
        await late.call(DESCRIBE, DescribeRequest())
    go_on.set()


async def test_at_the_end_of_the_grace_calls_are_ended(loop: Loop, address: Address) -> None:
    entered, ended = trio.Event(), trio.Event()

    async def handler(request: DescribeRequest) -> Description:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return Description()

    async def fails() -> None:
        with pytest.raises(RpcError, match=r"UNAVAILABLE|CANCELLED"):
            await call(loop, address)

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            async with serve(loop, address, [DESCRIBE.handled_by(handler)], grace=0.1):
                nursery.start_soon(fails)
                await entered.wait()
    assert ended.is_set()


async def test_a_server_that_fails_does_not_wait_for_its_calls(loop: Loop, address: Address) -> None:
    entered = trio.Event()

    async def handler(request: DescribeRequest) -> Description:
        entered.set()
        await trio.sleep_forever()
        return Description()

    async def fails() -> None:
        with pytest.raises(RpcError, match="UNAVAILABLE: shutting down"):
            await call(loop, address)

    async def failing_server() -> None:
        async with trio.open_nursery() as nursery:
            async with serve(loop, address, [DESCRIBE.handled_by(handler)], grace=1000):
                nursery.start_soon(fails)
                await entered.wait()
                raise ZeroDivisionError

    with trio.fail_after(DEADLINE), pytest.RaisesGroup(ZeroDivisionError):
        await failing_server()


# Health and reflection, asked by a plain grpcio client.


async def test_a_plain_client_gets_the_health(loop: Loop, address: Address) -> None:
    def check(service: str) -> Any:
        with grpc.insecure_channel(address.grpc_target) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            stub: Any = health_pb2_grpc.HealthStub(channel)
            return stub.Check(request, timeout=DEADLINE).status

    async with lab(loop, address) as server:
        assert await trio.to_thread.run_sync(check, "") == health_pb2.HealthCheckResponse.SERVING
        assert await trio.to_thread.run_sync(check, "pmulab.v1.Lab") == health_pb2.HealthCheckResponse.SERVING
        server.health.set(False, "pmulab.v1.Lab")
        assert await trio.to_thread.run_sync(check, "pmulab.v1.Lab") == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            await trio.to_thread.run_sync(check, "nobody")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_who_watches_the_health_hears_of_changes_and_of_the_end(loop: Loop, address: Address) -> None:
    def watch(heard: list[int], said: Callable[[], object]) -> None:
        with grpc.insecure_channel(address.grpc_target) as channel:
            request = health_pb2.HealthCheckRequest()
            stub: Any = health_pb2_grpc.HealthStub(channel)
            for answer in stub.Watch(request, timeout=DEADLINE):
                heard.append(answer.status)
                trio.from_thread.run_sync(said)

    heard: list[int] = []
    first = trio.Event()
    async with trio.open_nursery() as nursery, lab(loop, address):
        nursery.start_soon(trio.to_thread.run_sync, watch, heard, first.set)
        await first.wait()
    assert heard == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


async def test_a_plain_client_finds_the_services_and_their_messages(loop: Loop, address: Address) -> None:
    def reflect() -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(address.grpc_target) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            services = sorted(database.get_services())
            described = database.FindFileContainingSymbol("pmulab.v1.Lab")
            return services, [method.name for method in described.service[0].method]

    async with lab(loop, address):
        services, methods = await trio.to_thread.run_sync(reflect)
    assert services == ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "pmulab.v1.Lab"]
    assert methods == ["Describe", "Inject", "Result", "Watch", "Log", "Shutdown"]
