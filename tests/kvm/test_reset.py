"""What a guest finds in its PMU's registers that nobody has written: KVM's pattern for what is UNKNOWN at reset."""

from __future__ import annotations

import pytest

from services import registers as r
from services._pmu import register_name
from services.kvm.guest_pmu import GuestPmu
from services.kvm.one_reg import get_one_reg, reg_id, set_nr_counters
from services.kvm.simulation import Simulation
from tests.kvm.recordings import RECORDINGS, TYPES, Recording, named, one_reg
from tests.kvm.scripted import experiment

# Its VMM had written nothing.
FRESH = [one for one in RECORDINGS if one_reg(one, "before").get(r.PMOVSSET_EL0)]
NO_EL3 = ~(1 << 28)  # PMEVTYPER<n>_EL0.NSU, of which KVM knows where there is an EL3, as there was not


@pytest.mark.parametrize("recording", FRESH, ids=named)
async def test_registers_that_nobody_has_written_are_as_recorded(recording: Recording) -> None:
    before = one_reg(recording, "before")
    made = Simulation(experiment("partitioned-v8", counters=3))
    (vcpu,) = made.vcpus
    set_nr_counters(vcpu, before[r.PMCR_EL0] >> r.PMCR_N_SHIFT)
    for register, value in before.items():
        found = get_one_reg(vcpu, reg_id(register))
        assert isinstance(found, int)
        assert found & (NO_EL3 if register in TYPES else r.MASK64) == value, register_name(register)


def test_the_pattern_is_of_the_counters_that_there_are() -> None:
    pmu = GuestPmu(6, 6)
    pmu.reset()
    assert (pmu.ovs, pmu.cnten, pmu.inten, pmu.pmcr, pmu.userenr) == (0x8000_001E, 0x8000_001E, 0x8000_001E, 0, 0)


def test_a_type_has_no_mt() -> None:
    """kvm_pmu_evtyper_mask: P, U, NSK, NSU, NSH and M above the event."""
    assert GuestPmu(6, 6).event_mask == 0xFC00_FFFF
