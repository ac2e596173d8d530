"""The rows of `perf stat -I`, laid out as perf prints them, with the truth and the error of each behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.result import Guest, Host, Interval

_NOT_COUNTED, _NOT_SUPPORTED = "<not counted>", "<not supported>"


def tables(actor: str, heads: Sequence[str], actors: Sequence[Guest | Host]) -> Iterator[str]:
    """One table for each session and design."""
    for session in dict.fromkeys(row.session for of in actors for row in of.intervals):
        for head, of in zip(heads, actors, strict=True):
            rows = [row for row in of.intervals if row.session == session]
            unsupported = {one.event for one in of.events if one.session == session and one.unsupported}
            if rows:
                design = f" under {head}" if len(heads) > 1 else ""
                title = f"{actor}: perf stat -I ({session or 'a client'}){design}"
                yield "\n".join([title, _HEADER, *(_row(row, unsupported) for row in rows)])


_HEADER = f"#{'time':>15} {'counts':>18} {'unit':>4} {'events':<32} {'truth':>18} {'error':>9}"


def _row(row: Interval, unsupported: set[str]) -> str:
    seconds, ns = divmod(row.time_ns, 10**9)
    scaled, error, share = row.scaled, "", ""
    if scaled is not None and row.truth:
        error = f"{100 * (scaled - row.truth) / row.truth:+.2f} %"
    if row.running_ns != row.enabled_ns:
        share = f"  ({100 * row.running_ns / row.enabled_ns if row.enabled_ns else 0:.2f}%)"
    uncounted = _NOT_SUPPORTED if row.event in unsupported else _NOT_COUNTED
    counts = uncounted if scaled is None else f"{scaled:,}"
    return f"{seconds:6d}.{ns:09d} {counts:>18} {'':4} {row.event:<32} {row.truth:>18,} {error:>9}{share}".rstrip()
