"""An operation of KVM's that is done on another pCPU than the vCPU's, where there is one: of a mutant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def of(vcpu: Any) -> Any:
    """What `kvm`, `read`, `write` and `call` are asked of in its place."""
    return _Elsewhere(vcpu) if len(getattr(vcpu, "pcpus", ())) > 1 else vcpu


class _Elsewhere:
    def __init__(self, vcpu: Any) -> None:
        self.vcpu = vcpu

    @contextmanager
    def _there(self) -> Iterator[None]:
        vcpu = self.vcpu
        before = vcpu.cpu, vcpu.pcpu
        vcpu.cpu = (vcpu.cpu + 1) % len(vcpu.pcpus)
        vcpu.pcpu = vcpu.pcpus[vcpu.cpu]
        try:
            yield
        finally:
            vcpu.cpu, vcpu.pcpu = before

    async def kvm(self, *arguments: Any) -> Any:
        with self._there():
            values = self.vcpu.kvm(*arguments)
            return values if isinstance(values, list) else await values

    async def read(self, register: int) -> Any:
        with self._there():
            return await self.vcpu.read(register)

    async def write(self, register: int, value: int) -> None:
        with self._there():
            await self.vcpu.write(register, value)

    async def call(self, *arguments: Any) -> Any:
        with self._there():
            values = self.vcpu.pcpu.call(*arguments)
            return values if isinstance(values, list) else await values
