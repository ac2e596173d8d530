"""Software that answers wrongly, in each way that kvm checks where it arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from services.cpu import Call, Cpu, Entry, Notice, Timer
from services.experiment import Experiment, HostCpuSpec, PhaseSpec, TaskSpec
from services.registers import PMCCNTR_EL0, PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Handler, Scripted, ScriptedHost, experiment

VCPU, TASK = 0, 1  # thread ids
NOBODY = -1  # the host boots
CURRENT = {"its vCPU being current": VCPU, "a task of the host being current": TASK, "nobody being current": NOBODY}
Post = Callable[[Cpu], object]


@dataclass(frozen=True)
class Case:
    """`of` who misbehaves ("host" or "vm0"), with what error."""

    of: str
    error: str  # a regular expression
    design: str = "emulated"
    counters: int = 10  # of the guest, all that the CPU has
    host: Callable[[], ScriptedHost] = ScriptedHost
    guest: Callable[[], Scripted] = Scripted

    def experiment(self) -> Experiment:
        made = experiment(self.design, counters=self.counters)
        idler = TaskSpec("idler", (PhaseSpec(2, 1000),))
        return replace(made, host=replace(made.host, cpus=(HostCpuSpec(tasks=(idler,)),)))


async def count(cpu: Cpu, entry: Entry) -> None:
    """A guest programs a counter, which has KVM create a kernel counter, and reads it."""
    cpu.burst.msr(PMEVTYPER(0), INST_RETIRED)
    await cpu.mrs(PMEVCNTR(0))
    cpu.burst.notify(Notice.WORK_DONE, 0)
    cpu.burst.wfi()


async def done(cpu: Cpu, entry: Entry) -> None:
    cpu.burst.notify(Notice.WORK_DONE, 0)
    cpu.burst.wfi()


def counting() -> Scripted:
    return Scripted(boot=count)


def switching(post: Post, to: int = VCPU) -> Callable[[], ScriptedHost]:
    """A host that posts something when the thread `to` becomes current, the vCPU's own if none is named."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        if to == NOBODY:
            post(cpu)

    async def task_in(cpu: Cpu, entry: Entry) -> None:
        if entry.argument == to:
            post(cpu)

    return lambda: ScriptedHost(boot=boot, task_in=task_in)


def noticing(code: int, value: int) -> Callable[[], ScriptedHost]:
    return switching(lambda cpu: cpu.burst.notify(code, value))


def answering(results: int) -> Callable[[], ScriptedHost]:
    """A host that answers each READ so often."""

    async def call(cpu: Cpu, entry: Entry) -> None:
        for _ in range(results * sum(row[0] == Call.READ for row in entry.calls)):
            cpu.burst.notify(Notice.RESULT, 7)

    return lambda: ScriptedHost(call=call)


def reporting(answer: bytes) -> Handler:
    async def report(cpu: Cpu, entry: Entry) -> None:
        cpu.answer(answer)

    return report


def host_report(answer: bytes) -> Callable[[], ScriptedHost]:
    return lambda: ScriptedHost(report=reporting(answer))


def guest_report(answer: bytes) -> Callable[[], Scripted]:
    return lambda: Scripted(boot=done, report=reporting(answer))


def booting(post: Post) -> Callable[[], Scripted]:
    async def boot(cpu: Cpu, entry: Entry) -> None:
        post(cpu)
        cpu.burst.wfi()

    return lambda: Scripted(boot=boot)


async def nothing(cpu: Cpu, entry: Entry) -> None:
    """A handler that posts nothing."""


async def ipi_and_window(cpu: Cpu, entry: Entry) -> None:
    """A handler that is entered again within its own window, without end."""
    cpu.burst.ipi(0)
    await cpu.window()


async def timer_and_window(cpu: Cpu, entry: Entry) -> None:
    """Likewise."""
    cpu.burst.timer(Timer.MUX, 0)
    await cpu.window()


async def calls_another(cpu: Cpu, entry: Entry) -> None:
    """Likewise."""
    cpu.burst.ipi(7)


def event(**changed: int) -> bytes:
    """A guest's report with one event, of which something is `changed`."""
    numbers = {"count": 1, "truth": 1, "held": 1, "enabled": 1, "running": 1, "samples": 0, "state": 0}
    events = [{"name": "cycles", **numbers, **changed}]
    return orjson.dumps({"elapsed": 0, "user": 0, "system": 0, "sessions": [{"name": "", "events": events}]})


OVERFLOW, OF_GUEST = Notice.COUNTER_OVERFLOW, Notice.GUEST_OVERFLOW
EVENT = b'{"name": "cycles", "count": 1, "truth": 1, "held": 1, "enabled": 1, "running": 1, "samples": 0}'
SESSION = b'{"name": "", "events": [' + EVENT + b"]}"
STARVED = SESSION.replace(b'"samples": 0', b'"samples": 0, "state": 0, "starved": ["range:6"]')
TIMES = b'"elapsed": 0, "user": 0, "system": 0'

CASES = {
    "a counter of a thread that there is not": Case(
        "host",
        r"operation 0: counter handle 0xc60 names thread 99, which does not exist",
        host=noticing(OVERFLOW, 99 << 5),
    ),
    "a handle of 64 bits": Case("host", "counter handle 0xffffffffffffffff names", host=noticing(OVERFLOW, 2**64 - 1)),
    "a counter of a task of the host": Case(
        "host", "thread 1 is a task of the host", host=noticing(OVERFLOW, TASK << 5)
    ),
    "a counter that KVM has not created": Case(
        "host", "no kernel counter backs counter 3", host=noticing(OVERFLOW, VCPU << 5 | 3)
    ),
    "a kernel counter of a partitioned guest": Case(
        "host", "no kernel counter backs counter 0", "partitioned", host=noticing(OVERFLOW, VCPU << 5)
    ),
    "a kernel counter of a raw guest": Case(
        "host", "no kernel counter backs counter 0", "raw", host=noticing(OVERFLOW, VCPU << 5)
    ),
    **{
        f"flags of a guest under {design}, {when}": Case(
            "host",
            f"overflow flags 0x1 of a guest: under {design} the host finds none of a guest's",
            design,
            host=switching(lambda cpu: cpu.burst.notify(OF_GUEST, 1), to),
        )
        for design in ("emulated", "mediated", "gunyah")
        for when, to in CURRENT.items()
    },
    **{
        f"counters that the CPU of a {design} guest does not have, {when}": Case(
            "host",
            "overflow flags 0x8000000000000401 of a guest: no guest has a counter on pCPU 0 for 0x8000000000000400",
            design,
            host=switching(lambda cpu: cpu.burst.notify(OF_GUEST, 1 << 63 | 1 << 10 | 1), to),
        )
        for design in ("partitioned", "partitioned-v7", "raw")
        for when, to in CURRENT.items()
    },
    **{
        f"counters of the host's under {design}, {when}": Case(
            "host",
            "overflow flags 0x21 of a guest: no guest has a counter on pCPU 0 for 0x20",
            design,
            counters=4,
            host=switching(lambda cpu: cpu.burst.notify(OF_GUEST, 1 << 5 | 1), to),
        )
        for design in ("partitioned", "partitioned-v5", "partitioned-v7")
        for when, to in CURRENT.items()
    },
    "an overflow of a guest's without a flag": Case(
        "host", "overflow flags 0x0 of a guest: none is set", "partitioned", host=noticing(OF_GUEST, 0)
    ),
    "a READ that is not answered": Case(
        "host", "calls: READs left without a RESULT: 1", host=answering(0), guest=counting
    ),
    "a READ that is answered twice": Case(
        "host", "operation 1: a RESULT, but no READ waits for one", host=answering(2), guest=counting
    ),
    "a result without a READ": Case("host", "a RESULT, but no READ waits for one", host=noticing(Notice.RESULT, 0)),
    "a notice of a guest's": Case("host", "notice 3 is not for the host's perf", host=noticing(Notice.WORK_DONE, 0)),
    "a vCPU that is to be killed": Case("host", "thread 0 is a vCPU's", host=noticing(Notice.TASK_KILLED, 0)),
    "a thread that is to be killed and is not there": Case(
        "host", "thread 9, which is to be killed, is not on pCPU 0", host=noticing(Notice.TASK_KILLED, 9)
    ),
    "a read at EL0 where a vCPU is current": Case(
        "host",
        "thread 0 is a vCPU's: it reads no counter at EL0",
        host=switching(lambda cpu: cpu.burst.user_mrs(PMCCNTR_EL0)),
    ),
    "a read at EL0 where nobody is current": Case(
        "host",
        "a read at EL0 on pCPU 0, where no program runs",
        host=switching(lambda cpu: cpu.burst.user_mrs(PMCCNTR_EL0), NOBODY),
    ),
    "a notice that there is not": Case("host", "notice 77 is not for the host's perf", host=noticing(77, 0)),
    "the tick's timer": Case("host", "timer 0 is not the host's", host=switching(lambda cpu: cpu.burst.timer(0, 1))),
    "a host that waits": Case("host", "is not for the host's kernel", host=switching(lambda cpu: cpu.burst.wfi())),
    "a host's report that is not JSON": Case(
        "host", "report: it is not JSON", host=host_report(b"\xff"), guest=lambda: Scripted(boot=done)
    ),
    "a host's report of a counter's owner that cannot be": Case(
        "host",
        r"report\.sessions\[0\]\.events\[0\]\.starved: 'range:6' is nobody who can have counters",
        host=host_report(b'{"sessions": [' + STARVED + b"]}"),
        guest=lambda: Scripted(boot=done),
    ),
    "a host's report that is no object": Case(
        "host", "report: it is not a JSON object", host=host_report(b"[]"), guest=lambda: Scripted(boot=done)
    ),
    "a host's report without an event's state": Case(
        "host",
        r"report\.sessions\[0\]\.events\[0\]\.state: it is missing",
        host=host_report(b'{"sessions": [' + SESSION + b"]}"),
        guest=lambda: Scripted(boot=done),
    ),
    "a host that refuses what has no name": Case(
        "host",
        r"report\.refused: 1 is not a name",
        host=host_report(b'{"refused": [1]}'),
        guest=lambda: Scripted(boot=done),
    ),
    "a guest's report that is not JSON": Case("vm0", "report: it is not JSON", guest=guest_report(b"[" * 10_000)),
    "a guest's report without its times": Case("vm0", r"report\.elapsed: it is missing", guest=guest_report(b"{}")),
    "a guest's report with a time that is none": Case(
        "vm0",
        r"report\.user: it should be an integer, not True",
        guest=guest_report(b'{"elapsed": 1, "user": true, "system": 1}'),
    ),
    "a guest's report with a session that is none": Case(
        "vm0",
        r"report\.sessions\[0\]: it should be an object, not 5",
        guest=guest_report(b"{" + TIMES + b', "sessions": [5]}'),
    ),
    "a guest's report of a killed task, without the reason": Case(
        "vm0",
        r"report\.killed\[0\]\.reason: it is missing",
        guest=guest_report(b"{" + TIMES + b', "killed": [{"task": "reader", "session": ""}]}'),
    ),
    "a guest's report with a time that is negative": Case(
        "vm0",
        r"report\.system: it should be from 0 to 18446744073709551615, not -1",
        guest=guest_report(b'{"elapsed": 1, "user": 1, "system": -1}'),
    ),
    "a guest's report with a truth that is negative": Case(
        "vm0",
        r"events\[0\]\.truth: it should be from 0 to 18446744073709551615, not -1",
        guest=guest_report(event(truth=-1)),
    ),
    "a guest's report with a text for a time, and a long one": Case(
        "vm0",
        r"report\.user: it should be an integer, not 'aaaaaaaaaaaa\.\.\.aaaaaaaaaaaaa'",
        guest=guest_report(b'{"elapsed": 1, "user": "' + b"a" * 100_000 + b'", "system": 1}'),
    ),
    "a guest's report with a session that is none, and a long one": Case(
        "vm0",
        r"report\.sessions\[0\]: it should be an object, not \[0, 0, 0, 0, 0, 0, \.\.\.\]",
        guest=guest_report(b"{" + TIMES + b', "sessions": [[' + b"0, " * 100_000 + b"0]]}"),
    ),
    "a guest's report with a state that there is not": Case(
        "vm0", r"events\[0\]\.state: it should be from -2 to 1, not 2", guest=guest_report(event(state=2))
    ),
    "a guest's report that nobody can write down": Case(
        "vm0",
        "report: it is nested more than 16 levels deep",
        guest=guest_report(b"{" + TIMES + b', "tasks": ' + b"[" * 254 + b"]" * 254 + b"}"),
    ),
    "a guest that is entered in each of its windows": Case(
        "vm0", "operation 1: a WINDOW within 16 others", guest=lambda: Scripted(boot=ipi_and_window, sgi=ipi_and_window)
    ),
    "a host that is entered in each of its windows": Case(
        "host",
        "operation 1: a WINDOW within 16 others",
        host=lambda: ScriptedHost(task_in=timer_and_window, timer=timer_and_window),
    ),
    "a host's IPI to nobody": Case("host", "an IPI to pCPU 7 of 1", host=lambda: ScriptedHost(task_in=calls_another)),
    "a guest's timer that there is not": Case(
        "vm0", f"there is no timer {len(Timer)}", guest=booting(lambda cpu: cpu.burst.timer(len(Timer), 1))
    ),
    "a profile that there is not": Case(
        "vm0", "operation 0: there is no profile 9, only 0 to 2", guest=booting(lambda cpu: cpu.burst.compute(9, 0, 5))
    ),
    "work at EL2": Case("vm0", "there is no exception level 2", guest=booting(lambda cpu: cpu.burst.compute(2, 2, 5))),
    "a notice of the host's": Case(
        "vm0", "notice 1 is not for a guest", guest=booting(lambda cpu: cpu.burst.notify(OVERFLOW, 0))
    ),
    "an IPI to nobody": Case("vm0", "an IPI to vCPU 5, but vm0 has", guest=booting(lambda cpu: cpu.burst.ipi(5))),
    "a guest that neither works nor waits": Case(
        "vm0", "posted neither COMPUTE nor WFI", guest=lambda: Scripted(boot=nothing, resume=nothing)
    ),
}
