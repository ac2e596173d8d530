"""A path that ends in a deadlock leaves nothing behind for the next one."""

from __future__ import annotations

from pmulab.check.play import Move, Moves, Play, Stock
from pmulab.check.worlds import decks, worlds


def _moves(stock: Stock, *wanted: tuple[str, str]) -> list[Move]:
    """By party and action, the first of the deck."""
    return [
        next(one for one in stock.actions if (one.step["party"], one.step["action"]) == step and _is_first(one))
        for step in wanted
    ]


def _is_first(move: Move) -> bool:
    return "register" not in move.step or move.step["register"] == "PMCR_EL0"


async def test_the_lock_of_perfs_contexts_is_free_again() -> None:
    """v7 takes it with interrupts on (B56), and a call that comes while vcpu_load has it waits for ever."""
    stock = Stock.of(worlds()["one"], decks()["amid"], "partitioned-v7")
    play = Play(stock)
    await play.boot()
    for moves in stock.opening:
        await play.act(moves)
    root = play.save()
    touch, opened, put, load, read = _moves(
        stock,
        ("vm0/0", "msr"),
        ("host", "perf_open"),
        ("vm0/0", "preempt"),
        ("vm0/0", "switch"),
        ("host", "perf_read"),
    )
    path: list[Moves] = [(touch,), (opened,), (put,), (read.at(0), load)]
    for moves in path:
        assert await play.act(moves)
    assert play.over
    assert [one.kind for one in play.found()][-1] == "deadlock"
    play.restore(root)
    for moves in [*path[:3], (read,), (load,)]:
        assert await play.act(moves)
    assert not play.over
    assert "deadlock" not in [one.kind for one in play.found()]
