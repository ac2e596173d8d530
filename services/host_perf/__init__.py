"""The host's perf: a kernel at EL2 (VHE) that attends every pCPU, with events of its own and kernel counters for KVM."""

from services.host_perf.kernel import HostCpu, HostPerf

__all__ = ["HostCpu", "HostPerf"]
