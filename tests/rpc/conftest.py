"""A loop, and an address of its own, for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from services.rpc import Address, Loop, open_loop, private_directory


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    async with open_loop() as loop:
        yield loop


@pytest.fixture
def address() -> Iterator[Address]:
    with private_directory() as directory:
        yield Address.parse(f"unix:{directory}/test.sock")
