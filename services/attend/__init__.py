"""The Attend protocol: software and the CPU it attends, in two processes (`proto/services/wire/attend.proto`).

kvm's side. `Attendance` serves the stream and knows who is expected; each software that attends becomes a
`RemoteSoftware`, which kvm enters as it enters software of its own process:

    attendance = Attendance([Seat(Role.HOST, "host", 0), Seat(Role.GUEST, "vm0", 0)])
    async with open_loop() as loop, serve(loop, address, [attendance.handler()]):
        with trio.fail_after(10):
            host = await attendance.software(Seat(Role.HOST, "host", 0))
        answer = await host.enter(pcpu, entry)  # the pCPU executes its bursts
        await attendance.dismiss()  # the sessions end in order

The software's side. `attend` takes a seat and hands every entry to a `Software` until kvm dismisses it:

    async with open_loop() as loop, connect(loop, address, name="kvm") as kvm:
        await attend(kvm, Seat(Role.HOST, "host", 0), software)

A handler costs one round trip for each of its bursts: the entry, or the reply to the burst before, in one
direction, the burst in the other. Entries nest as they do embedded, where `execute` calls `enter`.
"""

from services.attend.remote import Attendance, AttendStatistics, RemoteSoftware
from services.attend.seat import PeerGone, Role, Seat
from services.attend.session import attend

__all__ = [
    "AttendStatistics",
    "Attendance",
    "PeerGone",
    "RemoteSoftware",
    "Role",
    "Seat",
    "attend",
]
