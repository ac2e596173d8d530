"""What software in another process answers wrongly ends its session, with a status that says so."""

import pytest
import trio
from grpc import StatusCode

from services.attend import Attendance, PeerGone, Role, Seat, attend
from services.cpu import Software
from services.kvm.simulation import Simulation
from services.rpc import Address, Loop, RpcError, connect, serve
from tests.kvm.misbehaving import CASES, Case

HOST, GUEST = Seat(Role.HOST, "host", 0), Seat(Role.GUEST, "vm0", 0)
DEADLINE = 5.0  # seconds; a failing test ends, a slow machine passes


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_software_that_answers_wrongly_is_told_so(loop: Loop, address: Address, case: Case) -> None:
    attendance = Attendance([HOST, GUEST])
    made = Simulation(case.experiment())
    refused: dict[str, RpcError] = {}

    async def attending(seat: Seat, software: Software) -> None:
        try:
            await attend(kvm, seat, software)
        except RpcError as exc:
            refused[seat.name] = exc
        except PeerGone:
            pass  # the other one's fault, in the middle of an entry of this one

    async def run() -> None:
        await made.run()
        await made.result()

    with trio.fail_after(DEADLINE):
        async with serve(loop, address, [attendance.handler()]), connect(loop, address, name="kvm") as kvm:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attending, HOST, case.host())
                nursery.start_soon(attending, GUEST, case.guest())
                made.attend_host(0, await attendance.software(HOST))
                made.attend_guest("vm0", 0, await attendance.software(GUEST))
                with pytest.raises(PeerGone, match=case.error) as gone:
                    await run()
                await attendance.dismiss()
    assert gone.value.who == str(HOST if case.of == "host" else GUEST)
    assert list(refused) == [case.of]
    assert refused[case.of].code is StatusCode.INVALID_ARGUMENT
