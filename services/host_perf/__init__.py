"""The host's perf: a kernel at EL2 (VHE) that on every pCPU, with events of its own and KVM's kernel counters."""

from services.host_perf.kernel import HostCpu, HostPerf

__all__ = ["HostCpu", "HostPerf"]
