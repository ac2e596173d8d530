"""What does not fit in a scenario is refused with the file, the line and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab import scenario
from services.errors import UserError

GUEST = '[[guest]]\n[[guest.task]]\nworkload = "gzip-random"\n'
PERF = GUEST + '[guest.task.perf]\nverb = "record"\n'

# document, line, part of the problem, part of the remedy
REFUSED = [
    ("", 1, "nothing runs", "add a [[guest]]"),
    ("machine = 3\n", 1, "machine must be a table, not an integer", "write [machine]"),
    ("[machin]\n", 1, "unknown key 'machin' at the top level", "did you mean machine?"),
    ("[machine]\n\npcpu = 1\n", 3, "unknown key 'pcpu' in [machine]", "did you mean pcpus"),
    ('[machine]\npcpus = "2"\n', 2, "machine.pcpus must be an integer, not a string", "pcpus = 1"),
    ("[machine]\npcpus = true\n", 2, "must be an integer, not a boolean", "pcpus = 1"),
    ("[machine]\npcpus = 0\n", 2, "pcpus = 0 is out of range", "from 1 to"),
    ("[machine]\ncounters = 32\n", 2, "counters = 32 is out of range", "from 0 to 31"),
    ("[machine]\npcpus = 2\ncounters = [6,\n 10,\n 4]\n", 3, "3 values for 2 pCPUs", "one for each pCPU"),
    ("[machine]\ncounters = [6, 10]\nfgt = [1, 0, 1]\n", 2, "2 values for 3 pCPUs", "one for each pCPU"),
    ('[machine]\ncore = ["neoverse-n1",\n "neoverse-n9"]\n', 3, "no core 'neoverse-n9'", "did you mean"),
    ('[machine]\ncore = ["neoverse-n1",\n "x-gene"]\n', 3, "x-gene has no FEAT_VHE", "neoverse-v3"),
    (
        '[machine]\ncore = "cortex-a57"\n',
        2,
        "cortex-a57 has no FEAT_VHE, and a host at EL1 is not modelled",
        "take one of",
    ),
    ("[machine]\nhpmn0 = [true,\n 1]\n", 3, "must be true or false, not an integer", "hpmn0 = true"),
    ("[machine]\npcpus = 2\npmuver = [7, 2]\n", 3, "2 is not a PMUv3 version", "4 (PMUv3p1)"),
    ('[machine]\npcpus = 2\ncounters = [6,\n "x"]\n', 4, "must be an integer", "counters = 0"),
    ('[machine]\ncore = "neoverse-n9"\n', 2, "no core 'neoverse-n9'", "did you mean"),
    ('[machine]\ncore = "a\\u0000.toml"\n', 2, "no such file", "the path of a TOML file"),
    ('[machine]\ncore = "gone.toml"\n', 2, "gone.toml: no such file", "the path of a TOML file"),
    ("[machine]\npmuver = 2\n", 2, "2 is not a PMUv3 version", "4 (PMUv3p1)"),
    ("[machine]\nhpmn0 = 1\n", 2, "must be true or false, not an integer", "hpmn0 = true"),
    ('[machine]\nclock_ghz = "3 GHz"\n', 2, "must be a number, not a string", "clock_ghz = 3.0"),
    ("[machine]\nclock_ghz = 0\n", 2, "clock_ghz = 0 is out of range", "0.001"),
    ("[machine]\nclock_ghz = nan\n", 2, "clock_ghz = NaN is out of range", "0.001"),
    ('[machine]\ncosts = "altra"\n', 2, "no cost table 'altra'", "did you mean altra-n1-vhe"),
    ('[machine.cost]\nexit_fats = "1 ns"\n', 2, "unknown key 'exit_fats'", "did you mean exit_fast"),
    ('[machine.cost]\nexit_fast = "2 s"\n', 2, "'2 s' is too much", "1000000000 ns"),
    ("[machine.cost]\nexit_fast = 3\n", 2, "must be a string", 'exit_fast = "20 ns"'),
    ("[host]\nhz = 0\n", 2, "hz = 0 is out of range", "from 1 to 1000"),
    ("[host]\nreserved_host_counters = -2\n", 2, "reserved_host_counters = -2 is out of range", "from -1 to 31"),
    ("[host]\nreserved_host_counters = [1, 2]\n", 2, "2 values for 1 pCPU", "one for each pCPU"),
    ("[host]\nreserved_host_counters = []\n", 2, "0 values for 1 pCPU", "one for each pCPU"),
    (
        "[machine]\ncounters = [6, 4]\n[host]\nreserved_host_counters = [5,\n 5]\n",
        4,
        "is 5, but pCPU 1 has 4 event counters",
        "from 0 to 4, or -1",
    ),
    ("[host]\nmux_interval_ms = -1\n", 2, "out of range", "from 1"),
    ('[host]\nmux_interval_ms = "4 Hz"\n', 2, "'4 Hz' is not a length of time", "ns, us, µs, ms or s"),
    ('[host]\nmux_interval_ms = "4"\n', 2, "'4' is not a length of time", 'mux_interval_ms = "4 ms"'),
    ('[host]\nmux_interval_ms = "10 us"\n', 2, "'10 us' is out of range", "from 1 to 10000 ms"),
    ('[host]\nmux_interval_ms = "-4 ms"\n', 2, "'-4 ms' is out of range", "from 1 to 10000 ms"),
    (GUEST + 'seconds = "1e999 s"\n', 4, "'1e999 s' is out of range", "to 1000000 s"),
    ("[host]\ntask = 3\n", 2, "must be an array of tables", "[[host.task]]"),
    ('[[host.task]]\nworkload = "sha256"\npcpu = 1\n', 3, "there is no pcpu 1", "there are 1 pCPUs"),
    ('[[host.perf]]\nverb = "stat"\ninterval_ms = 0\nevents = "cycles"\n', 3, "out of range", "from 1 to 3600000"),
    (
        '[[host.perf]]\nverb = "stat"\ninterval_ms = "1500 us"\nevents = "cycles"\n',
        3,
        "= 1500 us is finer than the ms",
        "whole",
    ),
    ('[host]\nmux_interval_ms = "4500 us"\n', 2, "= 4500 us is finer than the ms in which", "whole number of ms"),
    ('[machine]\npmi_delay = "0.1 ns"\n', 2, "pmi_delay = 0.1 ns is no cycle", "at least 0.333 ns"),
    ('[host]\npowerdown_residency_us = "0.1 ns"\n', 2, "= 0.1 ns is no cycle", "at least 0.333 ns"),
    ("[host]\nperf_tool = 6.1\n", 2, "host.perf_tool = 6.1 is not known", "6.12"),
    ('[[host.perf]]\nverb = "record"\ninterval_ms = 9\nevents = "cycles"\n', 3, "record prints nothing", '"stat"'),
    ('[host]\nperf_throttle = "groups"\n', 2, "perf_throttle = 'groups'", "group"),
    ('[[host.perf]]\nguest = "vm1"\nverb = "stat"\nevents = "cycles"\n' + GUEST, 2, "guest = 'vm1'", "vm0"),
    ('[[host.perf]]\nguest = "vm0"\nverb = "stat"\nevents = "cycles"\n' + GUEST, 2, "vCPU 0 of vm0 floats", "pin it"),
    ('[[host.perf]]\nguest = "vm0"\npcpu = 0\n' + GUEST, 3, "both guest and pcpu", "give one"),
    ("[[host.perf]]\nvcpu = 0\n" + GUEST, 2, "vcpu without guest", 'guest = "vm0"'),
    ("[[host.perf]]\n", 1, "'verb' is missing in [host.perf]", 'verb = "record"'),
    (GUEST + '[kvm]\ndesigns = ["emulatd"]\n', 5, "unknown design 'emulatd'", "did you mean emulated"),
    (GUEST + '[kvm]\ndesigns = [\n  "emulated",\n  "partitioned,swap"]\n', 7, "'swap' in design", "its axes are"),
    (GUEST + '[kvm]\ndesigns = ["emulated,a=b"]\n', 5, "no axis 'a'", "its axes are"),
    (GUEST + '[kvm]\ndesigns = ["partitioned,reservation=x"]\n', 5, "has no value 'x'", "static"),
    (
        GUEST + '[kvm]\ndesigns = ["emulated-6.12.0,kernel=6.15"]\n',
        5,
        "kernel=6.15 contradicts",
        "write emulated,kernel=6.15",
    ),
    (
        GUEST + '[kvm]\ndesigns = ["emulated-6.15,strict=yes"]\n',
        5,
        "is 'emulated' with strict=no",
        "write emulated,kernel=7.3,strict=yes",
    ),
    (GUEST + '[kvm]\ndesigns = ["emulated-6.15,kernel=6.14"]\n', 5, "has no value '6.14'", "6.15"),
    (GUEST + '[kvm]\ndesigns = ["emulated-6.15,counter=fixed"]\n', 5, "no axis 'counter'", "its axes are counters="),
    (GUEST + '[kvm]\ndesigns = ["partitioned-v5,swap=eager"]\n', 5, "no axis 'swap'", "its axes are traps="),
    (GUEST + '[kvm]\ndesigns = ["emulated", "emulated"]\n', 5, "given twice", "leave one out"),
    (GUEST + "[kvm]\ndesigns = []\n", 5, "designs is empty", '["emulated", "partitioned"]'),
    (GUEST + "[kvm]\ndesigns = [1]\n", 5, "must be a string, not an integer", "designs = ["),
    ("[[guest]]\ncounters = 32\n", 2, "out of range", "from 0 to 31"),
    ("[machine]\ncounters = 6\n[[guest]]\ncounters = 7\n", 4, "HPMN cannot exceed PMCR_EL0.N", "give at most 6"),
    ("[[guest]]\npin = [0, 0]\nvcpus = 3\n", 2, "2 pCPUs for 3 vCPUs", "one pCPU for each vCPU"),
    ("[[guest]]\npin = [1]\n", 2, "pin[0] = 1 is out of range", "from -1 to 0"),
    ("[[guest]]\npmuver = 9\n", 2, "out of range", "from 0 to 6"),
    ("[[guest]]\npmuver = 3\n", 2, "3 is not a PMUv3 version", "or 0 for a guest without a PMU"),
    ("[machine]\npmuver = 4\n[[guest]]\npmuver = 5\n", 4, "out of range", "from 0 to 4"),
    ('[[guest]]\ndenied = [\n "cycles",\n "cylces"]\n', 4, "unknown event 'cylces'", "did you mean cycles"),
    ('[[guest]]\ndenied = "cycles:u"\n', 2, "the filter knows event numbers only", "leave the modifiers out"),
    ("[[guest]]\ndenied = 17\n", 2, "must be a string or a list of strings", 'denied = ["'),
    ('[[guest]]\nname = "a b"\n', 2, "'a b' cannot name a guest", "letters, digits"),
    ('[[guest]]\nname = "a"\n[[guest]]\nname = "a"\n', 4, "two guests are named 'a'", "a name of its own"),
    ("[[guest]]\n[[guest.task]]\n", 2, "'workload' is missing in [guest.task]", 'workload = "gzip-random"'),
    ('[[guest]]\n[[guest.task]]\nworkload = "gzip"\n', 3, "no workload 'gzip'", "gzip-random"),
    (GUEST + "scale = 1\nseconds = 2\n", 5, "both scale and seconds", "give one"),
    ("[machine]\ncounters = [6, 10]\n[[guest]]\npin = [1, 0]\ncounters = 10\n", 5, "has 6", "give at most 6"),
    (GUEST + "threads = 0\n", 4, "threads = 0 is out of range", "from 1 to 1024"),
    ('[[host.task]]\nworkload = "sha256"\nthreads = 2\n', 3, "unknown key 'threads' in [host.task]", "known are pcpu"),
    (GUEST + "vcpu = 2\n", 4, "there is no vcpu 2", "there are 1 vCPUs"),
    (GUEST + "ipc = 0\n", 4, "ipc = 0 is out of range", "0.001"),
    (GUEST + "kernel_share = 1\n", 4, "kernel_share = 1 is out of range", "0.999"),
    (
        '[[guest]]\n[[guest.task]]\nworkload = "guest-kernel"\nkernel_share = 0.1\n',
        4,
        "guest-kernel is kernel code and nothing else",
        "leave kernel_share out",
    ),
    ('[host]\naccounting = "ticks"\n', 2, "host.accounting = 'ticks' is not known", "tick"),
    (GUEST + 'perf = "stat"\n', 4, "guest.task.perf must be a table", "[guest.task.perf]"),
    (PERF, 4, "'events' is missing", 'events = "cycles,instructions"'),
    (PERF + "events = []\n", 6, "no events", "pmulab events"),
    (PERF + 'events = "cylces"\n', 6, "unknown event 'cylces'", "did you mean cycles"),
    (
        PERF + 'events = ["cycles",\n "instructions", "nothing-like-it"]\n',
        7,
        "unknown event 'nothing-like-it'",
        "lists all",
    ),
    (PERF + 'events = "cycles:pppp"\n', 6, "the most precise level is 3", "write p three times"),
    (PERF + 'events = "cycles:W"\n', 6, "only a group can be weak", "{a,b}:W"),
    (PERF + 'events = "cycles/freq=0/"\n', 6, "freq=0 in 'cycles/freq=0/' is out of range", "from 1"),
    (PERF + 'events = "cycles/period=x/"\n', 6, "'x' in 'cycles/period=x/' is not a number", "write for example"),
    (PERF + 'events = "cycles/long=1/"\n', 6, "unknown term 'long=1'", "freq=1000"),
    (PERF + 'events = "cycles:z"\n', 6, "modifier 'z'", "ukhGHD"),
    (PERF + 'events = "{cycles,instructions"\n', 6, "'}' is missing", "close the group"),
    (PERF + 'events = "cycles,"\n', 6, "an empty event name", "comma"),
    (PERF + 'events = "r12345"\n', 6, "event 0x12345 is out of range", "0xffff"),
    (PERF + 'events = "armv8_pmuv3_0/evnt=1/"\n', 6, "unknown term 'evnt=1'", "event=0x11"),
    (PERF + 'events = "cycles"\nfrequency = 1000\nperiod = 5\n', 7, "both frequency (-F) and period (-c)", "give one"),
    (PERF + 'events = "cycles"\nfrequency = 0\n', 7, "frequency = 0 is out of range", "from 1"),
    (GUEST + 'perf = { verb = "stat", events = "cycles", period = 3 }\n', 4, "perf stat takes no period", '"record"'),
    (GUEST + 'perf = { verb = "top", events = "cycles" }\n', 4, "verb = 'top' is not known", "record"),
    (GUEST + "[published]\n", 4, "'source' is missing", "source ="),
    (GUEST + '[published]\nsource = "x"\nelapsed_seconds = { emulatd = 1 }\n', 6, "unknown design", "did you mean"),
    (
        GUEST + '[published]\nsource = "x"\nelapsed_seconds = { emulated = "1" }\n',
        6,
        "is not a length of time",
        "1.0 s",
    ),
    (GUEST + "[assumed]\nx = 1\n", 5, "must be a string", 'x = "'),
    ("[machine\n", 1, "not valid TOML", "correct the syntax"),
    ("a = 1\na = 2\n", 2, "not valid TOML", "correct the syntax"),
    ("a = 1\nb = " + 5000 * "9", 2, "an integer of thousands of digits", "64 bits"),
    ("seed = 0x" + 5000 * "f", 1, "seed = (an integer of 20000 bits) is out of range", "from 0"),
    ("known = 1\n" + GUEST, 1, "known must be a table, not an integer", "write [known]"),
    (GUEST + '[known]\nemulatd = ["I1"]\n', 5, "unknown design 'emulatd'", "did you mean emulated"),
    (GUEST + '[known]\n"raw,swap=lazy" = ["I1"]\n', 5, "has no axis 'swap'", "write raw alone"),
    (GUEST + '[known]\nraw = ["I1",\n "I13"]\n', 6, "no invariant 'I13'", "did you mean I3 or I1"),
    (GUEST + '[known]\nraw = ["i1"]\n', 5, "no invariant 'i1'", "did you mean I1"),
    (GUEST + '[known]\nraw = ["I1",\n "I1"]\n', 6, "I1 is listed twice", "leave one out"),
    (GUEST + "[known]\nraw = []\n", 5, "nothing is known of 'raw'", "leave it out"),
    (GUEST + "[known]\nraw = 1\n", 5, "known.raw must be a string or a list of strings", 'raw = ["…"]'),
    (GUEST + "[known]\nraw = [1]\n", 5, "known.raw[0] must be a string, not an integer", "raw ="),
    (
        GUEST + '[known]\nraw = "I1"\n" raw" = "I2"\n',
        6,
        "design 'raw' is listed twice",
        "put its invariants into one list",
    ),
    ('[published]\nsource = "x"\n[[host.task]]\nworkload = "sha256"\n', 1, "first guest's run", "[[guest]]"),
    ("a = 1\nb = '''\n", 2, "not valid TOML", "correct the syntax"),
]


@pytest.mark.parametrize(("document", "line", "problem", "remedy"), REFUSED)
def test_a_scenario_is_refused_with_line_and_remedy(
    tmp_path: Path, document: str, line: int, problem: str, remedy: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(document)
    with pytest.raises(UserError) as caught:
        scenario.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: "), message
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "problem", "remedy"),
    [
        ("guest.hz", "not of the form key=value", "guest.hz=1000"),
        ("guest..hz=1", "not of the form key=value", "guest.hz=1000"),
        ("guest.hz=fast", "must be an integer, not a string", "hz = 250"),
        ("guest.hz=0", "out of range", "from 1"),
        ("guest.3.hz=100", "there is no guest 3", "there are 1"),
        ("guest.hz=" + 5000 * "9", "must be an integer, not a string", "hz = 250"),
        ("guest.hz=" + 3000 * "[" + 3000 * "]", "must be an integer, not a string", "hz = 250"),
        ("kvm.halt_poll_ns=0.5ns", "kvm.halt_poll_ns = 0.5ns is finer than the ns in which", "a whole number of ns"),
        ("kvm.halt_poll_ns=0.5", "kvm.halt_poll_ns = 0.5 is finer than the ns in which", "a whole number of ns"),
        ("guests.hz=100", "unknown key 'guests' at the top level", "did you mean guest"),
        ("guest.-1.hz=100", "unknown key '-1' in [guest]", "known are name"),
        ("guest.hertz=100", "unknown key 'hertz'", "did you mean"),
        ("seed.x=1", "'seed' has no keys of its own", "a section"),
        ("guest.counters=30", "HPMN cannot exceed PMCR_EL0.N", "at most 6"),
        ("guest.task.perf.events=cylces", "unknown event", "did you mean cycles"),
        ("kvm.designs=emulatd", "unknown design", "did you mean emulated"),
        ("machine.cost.isb=3", "must be a string", 'isb = "20 ns"'),
    ],
)
def test_an_override_is_checked_like_the_file(override: str, problem: str, remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        scenario.load("quick", overrides=["seed=3", override])
    assert caught.value.where == f"--set {override}"
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_a_design_that_needs_a_partition_says_what_to_set() -> None:
    with pytest.raises(UserError, match=r"^--design partitioned: .* has no partition; give it from 0 to 10"):
        scenario.load("gzip-record", designs=["partitioned"], overrides=["host.reserved_host_counters=-1"])
    scenario.load("gzip-record", designs=["mediated"], overrides=["host.reserved_host_counters=-1"])


def test_a_design_on_the_command_line_is_checked() -> None:
    with pytest.raises(UserError, match=r"^--design emulated,x=1: .*no axis 'x'; its axes are "):
        scenario.load("quick", designs=["emulated,x=1"])


@pytest.mark.parametrize("name", ["nowhere.toml", "gzip-recrod", "a/b"])
def test_a_missing_file_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name}: no such file; give a path, .*gzip-record"):
        scenario.load(name)


def test_what_is_not_text_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# fine\n# \xe9\n")
    with pytest.raises(UserError, match=r"latin.toml:2: not UTF-8"):
        scenario.load(path)


def test_what_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + 3000 * "[" + 3000 * "]")
    with pytest.raises(UserError, match=r"deep.toml: its arrays or inline tables are nested too deep; "):
        scenario.load(path)


def test_a_refusal_is_one_line_whatever_it_shows() -> None:
    with pytest.raises(UserError, match=r"^--set guest.hz=a\\nb: guest.hz must be an integer"):
        scenario.load("quick", overrides=["guest.hz=a\nb"])


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        scenario.load(tmp_path)


def test_cores_with_different_cost_tables_leave_the_choice_to_the_user(tmp_path: Path) -> None:
    (tmp_path / "m5.toml").write_text('counters = 8\npmuver = 7\ncosts = "apple-m5-hvf"\nsource = "mine"\n')
    path = tmp_path / "s.toml"
    path.write_text('[machine]\ncore = ["neoverse-n1", "m5.toml"]\n' + GUEST)
    with pytest.raises(UserError, match=r"s\.toml:2: .*altra-n1-vhe and apple-m5-hvf; choose one: costs = "):
        scenario.load(path)


def test_a_fault_in_a_users_own_cost_table_names_both_places(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "altra-n1-vhe"\nclock_hz = 1\nisb = { value = 1 }\n')
    path = tmp_path / "s.toml"
    path.write_text('[machine]\ncosts = "mine.toml"\n' + GUEST)
    with pytest.raises(UserError, match=r"s\.toml:2: .*mine\.toml:3: 'unit' is missing in \[isb\]; add "):
        scenario.load(path)
