"""What the fit does not explain of the published numbers, each statement with the figures that it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pmulab import scenario
from pmulab.fit.predictions import STAT, STRESS, STRESS_SECONDS, guest_share, kernel_share, number, runs
from services.experiment import ACCOUNTING
from services.result import Run

RECORD = "gzip-record"
SECONDS = 10  # of specint's work
BESIDE = 996  # Hz: at 4 a second its ticks meet those of 1000 Hz, so that a run of a second has all phases, four times
NAPS = 100  # of a program that sleeps, to measure its switches


def lines(overrides: Sequence[str], other: str, base: str) -> Iterator[str]:
    """Raises UserError if a run fails."""
    yield "What does not fit"
    yield from _system_time(overrides, other, base)
    yield from _third_run(overrides, other, base)


def _system_time(overrides: Sequence[str], other: str, base: str) -> Iterator[str]:
    published = scenario.load(STAT).published
    elapsed, system = (
        [number(getattr(published[design], kind)) for design in (other, base)]
        for kind in ("elapsed_seconds", "system_seconds")
    )
    longer, risen = elapsed[0] - elapsed[1], system[0] - system[1]
    yield f"  specint's published sys rises by {risen:.0f} s of the {longer:.0f} s that it takes longer."
    yield "  By accounting of the guest:"
    yield f"    {'':<10} {'gzip sys, s':>20} {'specint sys, % of real':>26}   {other}, {base} each"
    gzip = [number(scenario.load(RECORD).published[design].system_seconds) for design in (other, base)]
    shares = [100 * a / b for a, b in zip(system, elapsed, strict=True)]
    yield f"    {'published':<10} {gzip[0]:>12.3f} {gzip[1]:>7.3f} {shares[0]:>18.2f} {shares[1]:>7.2f}"
    for accounting in ACCOUNTING:
        given = [*overrides, f"guest.accounting={accounting}"]
        of_gzip = [run.guests[0].system_seconds for run in runs(RECORD, given, other, base)]
        stat = runs(STAT, [*given, f"guest.task.seconds={SECONDS}"], other, base)
        of_stat = [100 * run.guests[0].system_seconds / run.guests[0].elapsed_seconds for run in stat]
        yield f"    {accounting:<10} {of_gzip[0]:>12.3f} {of_gzip[1]:>7.3f} {of_stat[0]:>18.2f} {of_stat[1]:>7.2f}"
    yield "  By ticks the mux timer's work is no sys, for a tick that expires with it finds whom it has interrupted;"
    yield "  by vtime it is, but then gzip's sys does not fit. A tick finds switches of processes:"
    switch = _switch(overrides, other, base)
    wanted = risen / elapsed[0] / switch
    yield f"  at {1e6 * switch:.0f} us each it would take {wanted:.0f} a second, of which nothing is known."
    yield "  So the agreement of specint's elapsed time may be a coincidence."


def _switch(overrides: Sequence[str], other: str, base: str) -> float:
    """Seconds of a switch to or from a program that is counted so, with the exits and the timer of its sleep."""
    given = [*overrides, "kvm.halt_poll_ns=0", "guest.task.seconds=0.01", f"guest.task.repeat={NAPS}"]
    awake, _ = runs(STAT, given, other, base)
    asleep, _ = runs(STAT, [*given, "guest.task.sleep_ms=1"], other, base)
    return (_busy(asleep) - _busy(awake)) / (2 * NAPS)


def _busy(run: Run) -> float:
    return run.time.total - run.time.idle


def _third_run(overrides: Sequence[str], other: str, base: str) -> Iterator[str]:
    published = scenario.load(STRESS).published
    kernel = [number(published[design].host_kernel_percent) for design in (other, base)]
    guest = [number(published[design].guest_percent) for design in (other, base)]
    rest = [100 - a - b for a, b in zip(kernel, guest, strict=True)]
    yield f"  Of the third run {rest[0]:.1f} and {rest[1]:.1f} % are neither guest nor host kernel."
    yield "  That is interrupt time, or idle. By accounting of the host, in %:"
    yield f"    {'':<24} {'guest':>14} {'host kernel':>14} {'irq':>14}"
    yield _row("published (and the rest)", guest, kernel, rest)
    settings = {accounting: [f"host.accounting={accounting}"] for accounting in ACCOUNTING}
    settings[f"{ACCOUNTING[0]}, host.hz={BESIDE}"] = [f"host.hz={BESIDE}"]
    for name, given in settings.items():
        found = runs(STRESS, [*overrides, *given, f"guest.task.seconds={STRESS_SECONDS}"], other, base)
        columns = (
            [guest_share(run) for run in found],
            [kernel_share(run) for run in found],
            [100 * (run.host.irq or 0) / run.printed for run in found],
        )
        yield _row(name, *columns)
    yield "  Interrupt time is a part of the rest. The host kernel's share by ticks rests on whom they find: host and"
    yield "  guest boot at one time here, so that their ticks expire together, before either's work. Ticks of"
    yield f"  {BESIDE} Hz meet all phases, and find more of the kernel."


def _row(name: str, *columns: Sequence[float]) -> str:
    return f"    {name:<24} " + " ".join(f"{a:>7.2f} {b:>6.2f}" for a, b in columns)
