"""The kernel counters behind a partitioned VM's counters, which KVM_REQ_RELOAD_PMU makes all the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.kvm.designs.emulated import Emulated, EmulatedPmu, Kernel
from services.kvm.vpmu import Access, Vpmu


@dataclass(eq=False)
class BackedPmu(Vpmu):
    """kvm_vcpu_reload_pmu() asks for no partition: what is enabled in memory counts for the host's perf, too.

    Nothing that the guest does to its registers concerns these counters, and nothing but its end takes them away.
    Only the VMM sees them count: by KVM_GET_ONE_REG.
    """

    backing: EmulatedPmu = field(init=False)

    def __post_init__(self) -> None:
        self.backing = Emulated(kernel=Kernel.LINUX_7_3).vpmu(self.vcpu)
        super().__post_init__()

    def derive(self) -> None:
        super().derive()
        self.backing.derive()

    def reload(self) -> Access:
        return self.backing.reload()

    def user_read(self, n: int) -> Access:
        return self.backing.user_read(n)

    def user_wrote(self, n: int) -> None:
        self.backing.user_wrote(n)

    def el0_switched(self) -> bool:
        return self.backing.el0_switched()

    def counter_overflow(self, counter: int) -> None:
        self.backing.counter_overflow(counter)
