"""Tables whose keys are designs."""

from __future__ import annotations

from collections.abc import Iterator

from pmulab import designs
from services.kvm.vpmu import DesignError
from services.tables import Table


def by_design(table: Table) -> Iterator[tuple[str, str]]:
    """Each key, and the label of the design that it names. Raises UserError."""
    for text in table.data:
        try:
            yield text, designs.label(designs.parse_design(text))
        except DesignError as error:
            raise error.within(table.where(text)) from None
