"""perf's generic cache events (`PERF_TYPE_HW_CACHE`): what each may be called, and which there are.

A name is a cache, then an operation, a result, or both: `evsel__hw_cache`, `evsel__hw_cache_op`,
`evsel__hw_cache_result`, `evsel__hw_cache_stat` and `parse_events__decode_legacy_cache` (perf's tools, Linux 6.12).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_CACHES: Final = {
    "L1-dcache": ("l1-d", "l1d", "L1-data"),
    "L1-icache": ("l1-i", "l1i", "L1-instruction"),
    "LLC": ("L2",),
    "dTLB": ("d-tlb", "Data-TLB"),
    "iTLB": ("i-tlb", "Instruction-TLB"),
    "branch": ("branches", "bpu", "btb", "bpc"),
    "node": (),
}
_OPERATIONS: Final = {
    "load": ("loads", "read"),
    "store": ("stores", "write"),
    "prefetch": ("prefetches", "speculative-read", "speculative-load"),
}
_RESULTS: Final = {"refs": ("Reference", "ops", "access"), "misses": ("miss",)}
_WITHOUT: Final = {"L1-icache": ("store",), "iTLB": ("store", "prefetch"), "branch": ("store", "prefetch")}


def names() -> list[str]:
    """All that there are, each as perf prints it (`L1-dcache-loads`, `L1-dcache-load-misses`)."""
    return [
        _name(cache, operation, result)
        for cache in _CACHES
        for operation in _OPERATIONS
        if operation not in _WITHOUT.get(cache, ())
        for result in _RESULTS
    ]


def decode(text: str) -> str:
    """The name of `names` for any that perf takes, in any case: reads and accesses unless it says more.

    Empty for what is none.
    """
    for cache, rest in _begins(text.lower(), _CACHES):
        if not rest:
            return _name(cache, "load", "refs")
        for first, second in ((_OPERATIONS, _RESULTS), (_RESULTS, _OPERATIONS)):
            for one, after in _begins(rest, first):
                others = [other for other, left in _begins(after, second) if not left] if after else [""]
                for other in others:
                    operation, result = (one, other) if first is _OPERATIONS else (other, one)
                    if operation not in _WITHOUT.get(cache, ()):
                        return _name(cache, operation or "load", result or "refs")
    return ""


def _begins(text: str, table: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """The entries of which a name begins the text, up to a hyphen or the end, and what is behind the hyphen."""
    return [
        (entry, text[len(name) + 1 :])
        for entry, others in table.items()
        for name in (entry.lower(), *(other.lower() for other in others))
        if text == name or text.startswith(f"{name}-")
    ]


def _name(cache: str, operation: str, result: str) -> str:
    if result == "misses":
        return f"{cache}-{operation}-misses"
    return f"{cache}-{_OPERATIONS[operation][0]}"
