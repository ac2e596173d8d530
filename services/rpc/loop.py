"""An asyncio loop that trio steps, so that `grpc.aio` runs inside `trio.run` without a thread of ours.

grpcio offers threads and asyncio. Threads starve when the process computes: trio lets go of the GIL
for microseconds at a time, too short for a waiting thread to get it. grpc.aio's own poller needs no GIL to
post its events, and everything else of it runs on the asyncio loop; so a trio task waits for the
loop's epoll descriptor and, when there is something to do, has the loop run what is ready and return.

Cancellation crosses in both directions: a trio cancel becomes `Task.cancel()` and is waited for, a
cancelled asyncio task cancels the trio scope that works for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import logging
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio
from google.protobuf.internal import api_implementation

from services.rpc.nursery import open_private_nursery

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)

# How often one step turns the asyncio loop before other trio tasks get their turn.
TURNS_PER_STEP = 16


@dataclass(frozen=True, slots=True)
class LoopStatistics:
    """`steps`: how often trio had the loop run; `turns`: how often the loop looked for work in all."""

    steps: int
    turns: int
    tasks: int  # asyncio tasks that have not ended


class Loop(asyncio.SelectorEventLoop):
    """An asyncio loop that never blocks. Use `open_loop`; one at a time in a process (grpc.aio binds to one)."""

    def __init__(self) -> None:
        self._epoll = selectors.EpollSelector()
        self._kick = trio.Event()
        self._alarms: list[float] = []  # when call_at wants to be called, a heap
        self._work = False
        self._stepping = False
        self._steps = self._turns = 0
        super().__init__(self._epoll)

    # What asyncio asks of its loop.

    def time(self) -> float:
        """trio's clock, so that both agree on when a moment has come."""
        return trio.current_time()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        self._work = True
        if not self._stepping:
            self._kick.set()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        heapq.heappush(self._alarms, when)
        self._kick.set()  # the alarm task may be waiting for a later one
        return super().call_at(when, callback, *args, context=context)

    # Stepping.

    @trio.lowlevel.enable_ki_protection
    def step(self) -> None:
        """Run what is ready, without waiting."""
        self._steps += 1
        self._stepping = True
        try:
            for _ in range(TURNS_PER_STEP):
                self._work = False
                self._turns += 1
                self.stop()  # documented: with stop() called before, run_forever() polls without waiting,
                self.run_forever()  # runs the callbacks that are ready, and returns
                if not self._work:
                    return
        finally:
            self._stepping = False
        self._kick.set()

    async def _keep_stepping(self, scope: trio.CancelScope) -> None:
        """Until `scope` is cancelled. It is shielded: what is cancelled with the loop still has calls to end."""
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._step_on_io)
                nursery.start_soon(self._step_on_demand)

    @trio.lowlevel.enable_ki_protection
    async def _step_on_io(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self.step()

    @trio.lowlevel.enable_ki_protection
    async def _step_on_demand(self) -> None:
        while True:
            # asyncio calls a timer that is due within its clock's resolution, so no alarm is early for it
            with trio.move_on_at(self._alarms[0] if self._alarms else float("inf")):
                await self._kick.wait()
            self._kick = trio.Event()
            while self._alarms and self._alarms[0] <= trio.current_time():
                heapq.heappop(self._alarms)
            self.step()

    # Crossing over.

    async def run(self, fn: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """trio awaits the asyncio coroutine `fn(*args)`. Being cancelled cancels it and waits for its end.

        Raises `asyncio.CancelledError` never: `Stopped` if the coroutine was cancelled by somebody else.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waiter = trio.lowlevel.current_task()
        task = self.create_task(fn(*args))
        raise_cancel: Callable[[], Any] | None = None

        def result() -> T:
            if not task.cancelled():
                return task.result()
            if raise_cancel is not None:
                raise_cancel()
            raise Stopped

        def done(_: asyncio.Task[T]) -> None:
            trio.lowlevel.reschedule(waiter, outcome.capture(result))

        def abort(raiser: Callable[[], Any]) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = raiser
            task.cancel()
            return trio.lowlevel.Abort.FAILED

        task.add_done_callback(done)
        value: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return value

    async def call(self, nursery: trio.Nursery, fn: Callable[[], Awaitable[T]]) -> T:
        """asyncio awaits `fn()`, which runs as a task of a trio `nursery`. `Task.cancel()` cancels its scope.

        Raises `Stopped` when the nursery was cancelled. What `fn` raises after its caller has gone is logged.
        """
        future: asyncio.Future[T] = self.create_future()
        scope = trio.CancelScope()

        async def body() -> None:
            try:
                with scope:
                    value = await fn()
                    if not future.cancelled():
                        future.set_result(value)
            except Exception as exc:
                if future.cancelled():
                    log.error("%r failed after its call had ended", fn, exc_info=exc)
                else:
                    future.set_exception(exc)
            finally:
                if not future.done():
                    future.set_exception(Stopped())

        nursery.start_soon(body)
        try:
            return await future
        finally:
            scope.cancel()  # the call is over, whoever ended it

    def statistics(self) -> LoopStatistics:
        return LoopStatistics(self._steps, self._turns, len(asyncio.all_tasks(self)))

    def _drain(self) -> None:
        """Cancel what is left, so that closing the loop leaves nothing behind."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.step()


class Stopped(Exception):
    """What was awaited on the other side was cancelled by its own side."""


@contextlib.asynccontextmanager
async def open_loop() -> AsyncIterator[Loop]:
    """The loop that `serve` and `connect` need; everything opened with it is to be closed before it."""
    if api_implementation.Type() != "upb":  # the pure Python one is 22 times slower
        raise RuntimeError(f"protobuf runs on its {api_implementation.Type()!r} implementation; 'upb' is needed")
    async with open_private_nursery() as nursery:
        with contextlib.closing(Loop()) as loop:
            stepping = trio.CancelScope(shield=True)
            nursery.start_soon(loop._keep_stepping, stepping)
            try:
                yield loop
            finally:
                loop._drain()
                stepping.cancel()
                # The stepping tasks must let go of the epoll descriptor before it is closed.
                with trio.CancelScope(shield=True):
                    while nursery.child_tasks:
                        await trio.lowlevel.checkpoint()
