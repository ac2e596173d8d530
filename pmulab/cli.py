"""The command line: `pmulab run`, `up`, `down`, `inject`, and the commands that list what is there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from pmulab import __version__
from pmulab.command import Parser, carry_out
from services.experiment import MAX_SEED

MAX_COUNTERS = 31


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    return carry_out("pmulab", lambda: _dispatch(_parser().parse_args(argv)))


def _dispatch(arguments: argparse.Namespace) -> int:
    # Each command is a module of its own, so that `pmulab --help` imports neither gRPC nor the simulation.
    command = import_module(f"pmulab.commands.{arguments.module}")
    status: int = command.main(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="pmulab", description="A laboratory for virtualising the Arm PMU.")
    parser.add_argument("--version", action="version", version=f"pmulab {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run a scenario and print what each design costs, counts and breaks",
        epilog="exit status: 0; 1: a design has no run, or a session or program in one was cut short; 2: a mistake in "
        "the scenario or on the command line; 3: an invariant was broken that the scenario does not list as known of "
        "the design, nor the design declares to give up. 3 wins over 1.",
    )
    run.set_defaults(module="run")
    _scenario_arguments(run, "a vPMU design, once for each (default: those of the scenario)")
    run.add_argument(
        "--topology",
        choices=("embedded", "processes"),
        default="embedded",
        help="all actors of a run in one process, or each in one of its own, talking gRPC (default: embedded)",
    )
    run.add_argument(
        "--jobs",
        type=_jobs,
        metavar="N",
        help="designs to run at once, each in a process of its own (default: one per core; with processes always 1)",
    )
    run.add_argument("--out", metavar="DIR", help="also write result.json there, anew after each design")
    run.add_argument("--json", action="store_true", help="print the result as JSON (docs/result.md) instead of tables")
    run.add_argument(
        "--why",
        action="store_true",
        help="print kernel time and the errors of counts by cause, and of each violation the last steps before it",
    )
    run.add_argument(
        "--stop-on-violation",
        action="store_true",
        help="stop each design's run at the first violation of an invariant that counts",
    )

    check = commands.add_parser(
        "check",
        help="search interleavings for one that breaks an invariant, and write each as a scenario",
        epilog="exit status: 0: nothing was found that the design does not declare; 1: something was, or the output "
        "could not be written; 2: a mistake on the command line; 4: a part of the search could not be carried out, or "
        "nothing was searched; 130: Ctrl-C, after what was found; 143: SIGTERM.",
    )
    check.set_defaults(module="check")
    _check_arguments(check)

    up = commands.add_parser("up", help="start a scenario's actors as processes and keep them running for clients")
    up.set_defaults(module="up")
    _scenario_arguments(up, "its vPMU design (default: the first of the scenario)")

    down = commands.add_parser("down", help="end a running topology")
    down.set_defaults(module="down")
    _topology_argument(down)

    inject = commands.add_parser("inject", help="give a guest (or the host) of a running topology work to do")
    inject.set_defaults(module="inject")
    inject.add_argument("target", metavar="TARGET", help="a VM's name, or host; TARGET/1 for its CPU 1")
    inject.add_argument("file", metavar="FILE", help="TOML: a [task] or a [perf] session (docs/scenario.md)")
    _topology_argument(inject)

    for name, help_ in (
        ("designs", "list the vPMU designs and their axes"),
        ("events", "list the events that perf knows by name"),
        ("registers", "list the PMU registers, and the rules that decide who may access them"),
    ):
        listing = commands.add_parser(name, help=help_)
        listing.set_defaults(module=name)
    explain = commands.add_parser("explain", help="what an access to a register does, by which rule; its fields")
    explain.set_defaults(module="explain")
    _explain_arguments(explain)
    return parser


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("register", metavar="REGISTER", help="PMEVCNTR3_EL0, or S3_3_C14_C8_3; in any case")
    parser.add_argument("value", metavar="VALUE", nargs="?", help="a value of it, such as 0x1e4a, field by field")
    parser.add_argument("--el", type=int, choices=(0, 1, 2), help="what an access from this exception level does")
    parser.add_argument(
        "--design",
        metavar="NAME[,axis=value…]",
        help="what an access of a guest does under this vPMU design, and what KVM then does (--el: 1, or 0)",
    )
    parser.add_argument(
        "--vcpu",
        choices=("free", "owned"),
        help="--design: its PMU is untouched, or it was loaded again after a first access (the default)",
    )
    parser.add_argument(
        "--counters", metavar="N", type=int, help="--design: the guest's event counters (default: the CPU's)"
    )
    access = parser.add_mutually_exclusive_group()
    access.add_argument("--read", action="store_true", help="an MRS (the default)")
    access.add_argument(
        "--write",
        metavar="VALUE",
        nargs="?",
        const="",
        help="an MSR, of this value or of the one before it, and what it does; without one whether it is executed",
    )
    parser.add_argument(
        "--set",
        metavar="REGISTER[.FIELD]=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="with this value in a register or a field of it, as in --set MDCR_EL2.HPMN=4; with --design in the "
        "guest's; may be repeated",
    )
    parser.add_argument(
        "--feature",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="features",
        help="on a CPU with this feature, as in --feature pmuver=9 --feature counters=10; may be repeated",
    )


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("design", metavar="DESIGN", nargs="+", help="NAME[,axis=value…]; `pmulab designs` lists them")
    parser.add_argument("--cpu", metavar="CORE", help="on this core of the catalogue (default: each world's own)")
    parser.add_argument(
        "--counters", metavar="N", type=_counters, help="event counters of each pCPU (default: each world's own)"
    )
    parser.add_argument(
        "--depth",
        metavar="N",
        type=_natural,
        default=3,
        help="actions, up to which every state is come to; 0: none is (default: %(default)s)",
    )
    parser.add_argument(
        "--interruptions",
        metavar="N",
        type=_natural,
        default=1,
        help="of what comes amid KVM's own steps, at most so many on one path to a state (default: %(default)s)",
    )
    parser.add_argument(
        "--preemptions",
        metavar="N",
        type=_natural,
        help="preemptions of a vCPU that would have gone on: at most so many on one path to a state (default: any)",
    )
    parser.add_argument(
        "--walks",
        metavar="N",
        type=_natural,
        default=100,
        help="random walks through each deck in each of its worlds (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=_seconds,
        help="search for so long in all, instead of so many walks; what is found is made short, replayed and its cause "
        "looked for behind that, mostly in less than a second of CPU time each",
    )
    parser.add_argument("--seed", metavar="N", type=_seed, default=1, help="of the random walks (default: %(default)s)")
    parser.add_argument("--jobs", type=_jobs, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--deck", metavar="NAME", action="append", default=[], help="this deck; may be repeated")
    parser.add_argument("--world", metavar="NAME", action="append", default=[], help="in this world; may be repeated")
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="pmulab-check",
        help="where what is found is written as scenarios; other files there are left (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON (docs/check.md)")


def _counters(text: str) -> int:
    counters = _natural(text)
    if counters > MAX_COUNTERS:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {MAX_COUNTERS}")
    return counters


def _natural(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"invalid number {text!r}, not a whole number of at least 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"invalid time {text!r}, not a number of seconds above 0")
    return seconds


def _scenario_arguments(parser: argparse.ArgumentParser, design: str) -> None:
    parser.add_argument("scenario", metavar="SCENARIO", help="a TOML file, or the name of a shipped scenario")
    parser.add_argument(
        "--design",
        metavar="NAME[,axis=value…]",
        action="append",
        default=[],
        help=f"{design}; `pmulab designs` lists them",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a key of the scenario, as in --set guest.hz=1000",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        help="replaces the scenario's seed; it only names the run: nothing in the model is random yet",
    )

    parser.add_argument(
        "--no-judge",
        action="store_false",
        dest="judge",
        help="do not judge the run by the invariants; the result says so",
    )


def _topology_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topology", metavar="NAME", help="which one, if several run (`pmulab up` prints its name)")


def _jobs(text: str) -> int:
    if not text.isdecimal() or len(text) > 6 or not int(text):
        raise argparse.ArgumentTypeError(f"invalid number of jobs {text!r}, not a whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not (text.removeprefix("-").isdecimal() and len(text) <= len(str(-MAX_SEED))):
        raise argparse.ArgumentTypeError(f"invalid seed {text!r}, not a whole number from 0 to {MAX_SEED}")
    seed = int(text)
    if not 0 <= seed <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {MAX_SEED}")
    return seed
