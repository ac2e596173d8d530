"""`pmulab explain`: what a write does, registers in any case or by encoding, and a vCPU's state by design."""

from __future__ import annotations

import pytest

from pmulab.cli import main
from services import registers as r
from services.kvm import designs


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


# What a write does.


@pytest.mark.parametrize("value", [("0x2", "--write"), ("--write", "0x2")])
def test_pmcr_p_resets_what_the_exception_level_may_access(
    value: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Linux 022435334393, Contextualise the handling of PMCR_EL0.P writes."""
    of_hpmn = ("PMCR_EL0", *value, "--set", "MDCR_EL2.HPMN=4")
    assert "\n  resets PMEVCNTR0_EL0 to PMEVCNTR5_EL0\n" in said(capsys, *of_hpmn, "--el", "2")
    assert "\n  resets PMEVCNTR0_EL0 to PMEVCNTR3_EL0\n" in said(capsys, *of_hpmn, "--el", "1")


def test_pmcr_c_resets_the_cycle_counter_and_what_else_changes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "PMCR_EL0", "--write", "0x7", "--el", "1", "--set", "MDCR_EL2.HPMN=1")
    assert "\n  resets PMEVCNTR0_EL0, PMCCNTR_EL0\n" in text
    assert "\n  PMCR_EL0 0x41003040 -> 0x41003041\n" in text


def test_the_value_after_write_is_the_one_written(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "PMUSERENR_EL0", "--el", "1", "--write", "0xf")
    assert "[3]      ER = 0x1:" in text
    assert "written at EL1: executed\n  PMUSERENR_EL0 0x0 -> 0xf\n" in text


def test_a_write_that_traps_or_changes_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    trapped = said(capsys, "PMCR_EL0", "--write", "0x2", "--el", "1", "--set", "MDCR_EL2.TPM=1")
    assert "trapped to EL2" in trapped
    assert "resets" not in trapped
    assert "\n  changes nothing\n" in said(capsys, "PMCNTENSET_EL0", "--write", "0", "--el", "1")
    hidden = said(capsys, "PMCNTENSET_EL0", "--write", "0x3f", "--el", "1", "--set", "MDCR_EL2.HPMN=4")
    assert "\n  PMCNTENSET_EL0 0x0 -> 0xf\n" in hidden


def test_a_software_increment_counts(capsys: pytest.CaptureFixture[str]) -> None:
    enabled = ("--set", "PMCR_EL0.E=1", "--set", "PMCNTENSET_EL0=0b101")
    text = said(capsys, "PMSWINC_EL0", "--write", "3", "--el", "1", *enabled)
    assert "\n  PMEVCNTR0_EL0 0x0 -> 0x1\n  by no rule" in text


def test_a_write_without_a_level_or_with_two_values_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "from which exception level?; add for example --el 1" in refused(capsys, "PMCR_EL0", "--write", "1")
    assert "0x2, and before it 0x1" in refused(capsys, "PMCR_EL0", "0x1", "--write", "0x2", "--el", "1")
    assert "--write: 'many' is not a number" in refused(capsys, "PMCR_EL0", "--write", "many", "--el", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--feature", "pmuver=15"), "--feature: pmuver = 15: 1, or 4 to 9"),
        (("--feature", "counters=32", "--set", "PMCR_EL0.E=1"), "--feature: counters = 32: 0 to 31"),
        (("--feature", "fgt=3"), "--feature: fgt = 3: 0, 1 (FEAT_FGT) or 2"),
        (("--feature", "sve=1"), "--feature: unknown feature sve"),
        (("--feature", "fgt=1", "--feature", "fgt=0"), "--feature fgt=0: fgt is given twice; leave one out"),
        (("--set", "PMCR_EL0.E=1", "--set", "pmcr_el0.e=0"), "--set pmcr_el0.e=0: it is set twice; leave one out"),
        (("--set", "PMCR_EL0.E=1", "--set", "PMCR_EL0=0"), "--set PMCR_EL0=0: it is set twice; leave one out"),
    ],
)
@pytest.mark.parametrize("of", [("--el", "1"), ("--design", "emulated")])
def test_a_cpu_that_cannot_be_is_refused_and_so_is_what_contradicts_itself(
    of: tuple[str, ...], arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "PMCR_EL0", *of, *arguments)


def test_fields_of_one_register_are_set_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "PMCR_EL0", "--el", "1", "--set", "PMCR_EL0.E=1", "--set", "PMCR_EL0.LP=1")
    assert f"\n  reads {0x4100_3040 | r.PMCR_E | r.PMCR_LP:#x}\n" in text


@pytest.mark.parametrize("option", [("--set", "PMCR_EL0.E=1"), ("--feature", "fgt=0")])
def test_what_says_where_an_access_is_made_needs_one(
    option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "they say where an access is made; add for example --el 1" in refused(capsys, "PMCR_EL0", "1", *option)


# How a register is named.


@pytest.mark.parametrize("name", ["PMCR_EL0", "pmcr_el0", "Pmcr_EL0", "S3_3_C9_C12_0", "s3_3_c9_c12_0"])
def test_a_register_is_named_in_any_case_or_by_its_encoding(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, name, "0x41003041") == said(capsys, "PMCR_EL0", "0x41003041")


def test_so_are_those_that_are_set_and_their_fields(capsys: pytest.CaptureFixture[str]) -> None:
    expected = said(capsys, "PMEVCNTR5_EL0", "--el", "1", "--set", "MDCR_EL2.HPMN=4")
    assert said(capsys, "s3_3_c14_c8_5", "--el", "1", "--set", "mdcr_el2.hpmn=4") == expected
    assert said(capsys, "pmevcntr5_el0", "--el", "1", "--set", "S3_4_C1_C1_1.Hpmn=4") == expected


@pytest.mark.parametrize("name", ["S3_3_C9_C12_9", "S3_3_C0_C0_0", "S3_3_C9_C12", "PMCR"])
def test_what_names_no_register_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"no register {name}" in refused(capsys, name)


def test_a_name_of_aarch32_or_a_slip_is_answered_with_what_may_be_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean PMXEVTYPER_EL0" in refused(capsys, "PMXEVTYPER")
    assert "did you mean PMOVSCLR_EL0 or PMOVSSET_EL0" in refused(capsys, "PMOVSR")
    assert "`pmulab registers` lists them" in refused(capsys, "S3_3_C9_C12_9")


# Under a design.


def test_a_guest_of_v8_traps_until_it_owns_its_counters(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("PMEVCNTR1_EL0", "--design", "partitioned-v8", "--counters", "3")
    free = said(capsys, *question, "--vcpu", "free")
    assert "under partitioned-v8, 3 event counters, loaded, its PMU untouched:" in free
    assert "read at EL1: trapped to EL2" in free
    assert "MDCR_EL2 <- 0x" in free, "it becomes GUEST_OWNED"
    owned = said(capsys, *question)
    assert "loaded again after its first access:" in owned
    assert "read at EL1: executed" in owned
    reserved = said(capsys, "PMEVCNTR3_EL0", "--design", "partitioned-v8", "--counters", "3")
    assert "by the rule: reserved counter" in reserved


def test_an_emulated_access_names_what_kvm_asks_of_perf(capsys: pytest.CaptureFixture[str]) -> None:
    running = ("--set", "pmcr_el0.e=1", "--set", "PMCNTENSET_EL0=1", "--set", "PMEVTYPER0_EL0=0x8")
    text = said(capsys, "PMEVCNTR0_EL0", "--design", "emulated", *running)
    assert "KVM, in the host's kernel:\n    perf_event_read_value(counter 0)\n    the guest reads 0x0\n" in text
    text = said(capsys, "PMCNTENCLR_EL0", "--write", "1", "--design", "emulated-6.15", *running)
    assert "    perf_event_disable(counter 0)\n    kvm_vcpu_pmu_restore_guest()\n" in text
    text = said(capsys, "PMINTENSET_EL1", "--write", "1", "--design", "emulated")
    assert text.endswith("KVM, in the host's kernel:\n    in memory: PMINTENSET_EL1 0x0 -> 0x1\n")
    text = said(capsys, "PMEVCNTR5_EL0", "--design", "emulated", "--counters", "4")
    assert text.endswith("    injects an UNDEFINED exception\n")


def test_el0_may_what_the_guests_pmuserenr_says(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("PMCCNTR_EL0", "--el", "0", "--design", "emulated")
    assert "UNDEFINED at EL1, as the guest's PMUSERENR_EL0 has it" in said(capsys, *question)
    assert "the guest reads 0x0" in said(capsys, *question, "--set", "PMUSERENR_EL0.CR=1")


@pytest.mark.parametrize("design", ["partitioned-v6", "partitioned-v8", "partitioned-v9"])
def test_where_pmuserenr_on_the_cpu_decides_the_one_in_memory_does_not(
    design: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A vcpu_load has written all ones, and with them an access of EL0's gets as far as EL2."""
    text = said(capsys, "PMOVSCLR_EL0", "--el", "0", "--design", design)
    assert "read at EL0: trapped to EL2" in text
    assert "the guest reads 0x0" in text


def test_a_mediated_pmu_is_asked_as_it_is_within_the_guest(capsys: pytest.CaptureFixture[str]) -> None:
    guests = ("--design", "mediated", "--set", "PMEVCNTR0_EL0=5", "--set", "PMUSERENR_EL0=1")
    text = said(capsys, "PMEVCNTR0_EL0", *guests)
    assert "PMUSERENR_EL0 0x1," in text
    assert "read at EL1: executed\n  reads 0x5\n" in text
    trapped = said(capsys, "PMOVSCLR_EL0", *guests).split("KVM, in the host's kernel:\n")[1]
    assert trapped.startswith("    PMEVCNTR0_EL0: 0x5\n"), "the exit reads it back"
    assert trapped.endswith("    the guest reads 0x0\n")
    fast = said(capsys, "PMEVCNTR0_EL0", "--design", "mediated,traps=fast-path", "--set", "PMEVCNTR0_EL0=5")
    assert fast.endswith("KVM, on the fast path:\n    PMEVCNTR0_EL0: 0x5\n    the guest reads 0x5\n"), "without an exit"


def test_a_kernel_counter_that_is_made_anew_is_released_first(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "PMCR_EL0", "--write", "0x5", "--design", "emulated", "--set", "PMCNTENSET_EL0=0x80000000")
    create, release = "perf_event_create_kernel_counter(counter 31)", "perf_event_release_kernel(counter 31)"
    assert f"    {create}\n    {release}\n    {create}\n" in text, "E, then C"


def test_a_trap_without_fgt_goes_by_the_designs_way(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("PMCCNTR_EL0", "--counters", "4", "--feature", "fgt=0", "--design")
    assert "KVM, on the fast path:\n    PMCCNTR_EL0: 0x0\n" in said(
        capsys, *question, "partitioned,swap=eager,traps=fast-path"
    )
    text = said(capsys, *question, "partitioned,swap=eager")
    assert "KVM, in the host's kernel:\n    PMCCNTR_EL0: 0x0\n" in text
    assert "falls back: the CPU has no FEAT_FGT" in text


@pytest.mark.parametrize("design", list(designs.designs()))
@pytest.mark.parametrize("vcpu", ["free", "owned"])
def test_every_design_answers(design: str, vcpu: str, capsys: pytest.CaptureFixture[str]) -> None:
    accesses = (("PMCR_EL0", "--read"), ("PMCR_EL0", "--write", "0x47"), ("PMOVSCLR_EL0",), ("PMSWINC_EL0", "--write"))
    for question in accesses:
        assert f"under {design}, 6 event counters" in said(capsys, *question, "--design", design, "--vcpu", vcpu)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--el", "2"), "--el: under a design a guest makes the access"),
        (("--set", "MDCR_EL2.HPMN=4"), "--set MDCR_EL2: under a design it sets registers of the guest's PMU"),
        (("--counters", "7"), "7 event counters"),
        (("--counters", "32"), "--counters"),
    ],
)
def test_what_a_design_cannot_be_asked(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "PMCR_EL0", "--design", "emulated", *arguments)


def test_a_vcpu_is_a_designs(capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, "PMCR_EL0", "--el", "1", "--vcpu", "free")
    assert "they are of a design's vCPU; add --design NAME" in text
    assert "--design emulate: unknown design 'emulate'" in refused(capsys, "PMCR_EL0", "--design", "emulate")


def test_the_counters_are_other_than_0_only_where_a_reset_is_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("PMCR_EL0", "--design", "partitioned", "--vcpu", "free")
    reset = said(capsys, *question, "--write", "0x3")
    assert "kernel, the guest's counters not being 0:\n" in reset
    assert "\n    PMEVCNTR5_EL0 <- 0x1\n" in reset
    assert "PMEVCNTR5_EL0 <- 0x1\n" not in said(capsys, *question, "--write", "0x1")


@pytest.mark.parametrize("design", ["partitioned-v8", "partitioned-v9", "mediated", "partitioned,swap=eager"])
def test_under_a_design_that_lets_pmcr_through_a_write_says_which_counters_it_resets(
    capsys: pytest.CaptureFixture[str], design: str
) -> None:
    text = said(capsys, "PMCR_EL0", "--write", "2", "--design", design, "--counters", "6")
    assert "\n  resets PMEVCNTR0_EL0 to PMEVCNTR5_EL0\n" in text
    assert "PMCCNTR_EL0" in said(capsys, "PMCR_EL0", "--write", "6", "--design", design, "--counters", "6")


def test_a_trapped_write_says_what_it_resets_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "PMCR_EL0", "--write", "0x42", "--design", "emulated", "--set", "PMEVCNTR0_EL0=5")
    assert text.endswith(
        "    in memory: resets PMEVCNTR0_EL0 to PMEVCNTR5_EL0\n    in memory: PMCR_EL0 0x3000 -> 0x3040\n"
    )


@pytest.mark.parametrize("design", ["emulated", "partitioned-v8"])
def test_the_cycle_counters_filter_keeps_the_event_that_is_written_to_it(
    design: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """kvm_pmu_set_counter_event_type has one mask for all; a Linux guest writes 0x11 (armv8pmu_write_event_type)."""
    text = said(capsys, "PMCCFILTR_EL0", "--write", "0x40000011", "--design", design)
    assert text.endswith("    in memory: PMCCFILTR_EL0 0x0 -> 0x40000011\n")


def test_v6_is_loaded_whole_though_an_access_of_its_list_is_undefined(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "PMCNTENSET_EL0", "--design", "partitioned-v6", "--set", "PMCNTENSET_EL0=0x80000003")
    assert "\n  reads 0x80000003\n" in text


def test_v7_is_owned_after_a_first_write(capsys: pytest.CaptureFixture[str]) -> None:
    """A read makes nothing of it."""
    text = said(capsys, "PMEVTYPER0_EL0", "--write", "8", "--design", "partitioned-v7")
    assert "    MDCR_EL2 0x820086," in text
    assert "MDCR_EL2 <-" not in text


def test_the_register_may_stand_behind_write(capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("--el", "1")
    given = said(capsys, "PMUSERENR_EL0", "--write", "0xf", *rest)
    assert said(capsys, *rest, "--write", "PMUSERENR_EL0", "0xf") == given
