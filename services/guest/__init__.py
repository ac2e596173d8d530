"""A guest: a kernel with a tick and a scheduler, its perf, and its workloads as phases of event rates."""

from services.guest.kernel import BadRequest, GuestCpu, GuestKernel

__all__ = ["BadRequest", "GuestCpu", "GuestKernel"]
