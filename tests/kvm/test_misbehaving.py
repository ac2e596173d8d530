"""What software answers is checked when it arrives: what is wrong ends the run, and is told."""

import pytest

from services.kvm.errors import ProtocolError
from tests.kvm.misbehaving import CASES, Case
from tests.kvm.parties import simulation


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_software_that_answers_wrongly_ends_the_run(case: Case) -> None:
    made = simulation(case.experiment(), case.guest(), case.host())

    async def run() -> None:
        await made.run()
        await made.result()

    with pytest.raises(ProtocolError, match=case.error):
        await run()
