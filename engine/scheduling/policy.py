"""What the next step holds: a pure function of the streams' needs, the free pages and the budgets. No torch, no state.

Order. Decode rows always fit the row budget; appended rows share what is left, oldest need first. Where pages are
enough, streams whose media is due go before (`precedence.py`), which keep no other waiting for long. Pages go to the
oldest need first as well: it may take the pages of idle streams, then of younger ones (they move to host memory and
come back). So the oldest runnable stream always goes on, and since a need that is served becomes young again, every
one is served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

import msgspec

# The pieces of a stream that waits to be fed its newest token and nothing else.
ONE_TOKEN = ((1, False),)
# Older is smaller. A fork has the age of its stream until it is served: the lower number counts as older.
age = attrgetter("since", "stream")


class Need(msgspec.Struct, frozen=True, gc=False):
    """What one stream could do now.

    `since` orders needs by age. `pieces` are the waiting rows from the front: (count, atomic); `token` says that the
    first of them is a sampled token. `room` rows fit into its last page; `copy` is 1 where that page is shared and
    must be copied first. `away` is how many pages it has in host memory (all of them, then), `own` how many nobody else
    holds; `shared` are the others, (page, holders). `movable`: its pages may be taken. `ahead` free pages hold rows
    that come before `pieces`.
    """

    stream: int
    since: int
    pieces: tuple[tuple[int, bool], ...] = ()
    token: bool = False
    room: int = 0
    copy: int = 0
    away: int = 0
    own: int = 0
    movable: bool = True
    shared: tuple[tuple[int, int], ...] = ()
    ahead: int = 0

    @property
    def first(self) -> int:
        """Free pages that it takes before those of its rows."""
        return self.away + self.ahead + self.copy


class Budget(msgspec.Struct, frozen=True):
    """How many rows a step may hold.

    Of `rows`, `append_rows` are for appends while some reply decodes, so that it does not stall.
    """

    rows: int
    append_rows: int
    page_tokens: int


class Decision(msgspec.Struct, frozen=True):
    """`grants`: (stream, rows) to feed. `moved`: streams whose pages go to the host first."""

    grants: list[tuple[int, int]]
    moved: list[int]


def pages_for(need: Need, rows: int, page_tokens: int) -> int:
    """Free pages that feeding `rows` rows takes, those that come back from the host and those ahead included."""
    more = rows - need.room
    first = need.away + need.ahead + need.copy
    return first if more <= 0 else first - -more // page_tokens


def plan(needs: list[Need], free: int, budget: Budget) -> Decision:
    """Choose the rows of one step. `needs` holds all streams, those with nothing to do included."""
    waiting = sorted((need for need in needs if need.pieces), key=age)
    decodes = sum(need.token for need in waiting)
    most = left = budget.append_rows if decodes else budget.rows
    movable = _movable(needs, waiting)
    gone: dict[int, Need] = {}
    grants: list[tuple[int, int]] = []
    granted: set[int] = set()
    for need in waiting:
        if need.stream in gone:
            continue
        rows = _rows(need, left, most)
        victims: list[Need] = []
        if pages_for(need, rows, budget.page_tokens) > free:
            takeable = _takeable(movable, need, gone.keys() | granted)
            need, rows, victims = _squeezed(need, rows, free, takeable, [*gone.values()], budget.page_tokens)
        if rows == 0:
            continue
        free -= _freed([*gone.values()]) + pages_for(need, rows, budget.page_tokens)
        gone |= {victim.stream: victim for victim in victims}
        free += _freed([*gone.values()])
        left = max(0, left - (rows - need.token))
        grants.append((need.stream, rows))
        granted.add(need.stream)
    return Decision(grants, [need.stream for need in movable if need.stream in gone])


def within(needs: list[Need], free: int, budget: Budget, first: Sequence[int] = ()) -> Decision | None:
    """What `plan` chooses where the free pages are enough for it; None where it may take pages from streams.

    `needs` holds the streams that have something to do. Of the others, and of what could be taken from whom, nothing
    needs to be known then. The rows of the streams in `first` go before older ones, in that order.
    """
    needs = sorted(needs, key=age)
    if first:
        ranks = {stream: rank for rank, stream in enumerate(first)}
        needs.sort(key=lambda need: ranks.get(need.stream, len(ranks)))
    most = left = budget.append_rows if any(need.token for need in needs) else budget.rows
    grants: list[tuple[int, int]] = []
    for need in needs:
        if need.token and len(need.pieces) == 1:
            rows = 1
        else:
            rows = _rows(need, left, most)
            if rows == 0:
                continue
            left = max(0, left - (rows - need.token))
        free -= pages_for(need, rows, budget.page_tokens)
        if free < 0:
            return None
        grants.append((need.stream, rows))
    return Decision(grants, [])


def _movable(needs: list[Need], waiting: list[Need]) -> list[Need]:
    """Streams whose pages may be taken, the first to go first: idle ones, then the youngest need."""
    idle = [need for need in needs if not need.pieces]
    order = sorted(idle, key=age) + waiting[::-1]
    return [need for need in order if need.movable and (need.own or need.shared) and not need.away]


def _rows(need: Need, left: int, most: int) -> int:
    """How many of the waiting rows fit into `left` append rows: a token always, atomic pieces whole or not at all.

    An atomic piece larger than `most`, what a step has for appends, goes as the only append of a step.
    """
    rows = 1 if need.token else 0
    for count, atomic in need.pieces[rows:]:
        if count > left and atomic:
            return count if rows == 0 and left == most < count else rows
        taken = min(count, left)
        rows, left = rows + taken, left - taken
        if taken < count:
            break
    return rows


def _fewer(need: Need, rows: int, free: int, page_tokens: int) -> int:
    """The largest number of rows below `rows` that fits the free pages and cuts no atomic piece; 0 where none does."""
    fits = max(0, need.room + (free - need.first) * page_tokens) if free >= need.first else 0
    limit, total = min(rows - 1, fits), 0
    for count, atomic in need.pieces:
        if total + count > limit:
            return total if atomic else max(total, limit)
        total += count
    return total


def _takeable(movable: list[Need], need: Need, taken: set[int]) -> list[Need]:
    """Those of `movable` whose pages `need` may take: idle or younger ones that this step has not touched yet."""
    return [
        other
        for other in movable
        if other.stream != need.stream and other.stream not in taken and (not other.pieces or age(other) > age(need))
    ]


def _squeezed(
    need: Need, rows: int, free: int, takeable: list[Need], gone: list[Need], page_tokens: int
) -> tuple[Need, int, list[Need]]:
    """The need, how many of its rows go, and whose pages are taken for them.

    Where none would go, those that share its last page make way: then it needs no copy of that.
    """
    before = _freed(gone)
    reach = free + _freed(gone + takeable) - before

    def fitting(need: Need) -> int:
        return rows if pages_for(need, rows, page_tokens) <= reach else _fewer(need, rows, reach, page_tokens)

    victims: list[Need] = []
    if need.copy and not fitting(need):
        last, holders = need.shared[-1]
        sharers = [other for other in takeable if last in dict(other.shared)]
        if len(sharers) + sum(last in dict(other.shared) for other in gone) == holders - 1:
            need, victims = msgspec.structs.replace(need, copy=0), sharers
    count = fitting(need)
    short = pages_for(need, count, page_tokens) - free
    for other in takeable:
        if _freed(gone + victims) - before >= short:
            break
        if other not in victims:
            victims.append(other)
    return need, count, victims


def _freed(moved: list[Need]) -> int:
    """How many pages become free when all of these are moved: a shared page when all its holders are."""
    held = Counter(page for need in moved for page in need.shared)
    return sum(need.own for need in moved) + sum(count == holders for (_, holders), count in held.items())


def grant(announced: list[tuple[int, int]], tokens: int) -> int:
    """How many of the announced segments, (due, tokens) in the order of their due times, the encoder may begin now.

    The first always goes: a segment larger than the budget must not wait for ever.
    """
    total = 0
    for count, (_, size) in enumerate(announced):
        total += size
        if count and total > tokens:
            return count
    return len(announced)
