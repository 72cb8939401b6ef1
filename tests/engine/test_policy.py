"""Laws of the choice of a step, over drawn needs, pages and budgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from penstock.engine.scheduling.policy import Budget, Need, grant, pages_for, plan, within

PAGE = 4


@st.composite
def needs(draw: st.DrawFn, atomics: bool = True) -> list[Need]:
    """Some streams are forks: page 0 or page 1 is the last of each of those, and of `strangers` that are not here."""
    count = draw(st.integers(1, 6))
    ages = draw(st.permutations(range(count)))
    lasts = draw(st.lists(st.sampled_from([None, None, 0, 1]), min_size=count, max_size=count))
    strangers = draw(st.integers(0, 1))
    found = []
    for stream in range(count):
        token = draw(st.booleans())
        rest = draw(st.lists(st.tuples(st.integers(1, 9), st.booleans() if atomics else st.just(False)), max_size=3))
        pieces = tuple([(1, False)] * token + rest)
        away = draw(st.integers(0, 4)) if draw(st.booleans()) else 0
        room = draw(st.integers(0, PAGE - 1))
        own = 0 if away else draw(st.integers(0, 5))
        last = None if away else lasts[stream]
        holders = strangers + sum(other == last for other in lasts)
        shared = ((last, holders),) if last is not None and holders > 1 else ()
        copy = int(bool(room and shared))
        movable = draw(st.booleans())
        found.append(Need(stream, ages[stream], pieces, token, room, copy, away, own, movable, shared))
    return found


budgets = st.builds(Budget, st.integers(8, 20), st.integers(1, 8), st.just(PAGE))


def cut_points(need: Need) -> set[int]:
    """How many rows may be fed without cutting an atomic piece."""
    allowed, total = {0}, 0
    for count, atomic in need.pieces:
        allowed |= {total + count} if atomic else set(range(total + 1, total + count + 1))
        total += count
    return allowed


def least(need: Need) -> int:
    """The fewest rows that it can be served with."""
    count, atomic = need.pieces[0]
    return count if atomic else 1


def freed(moved: list[Need]) -> int:
    """The pages that nobody holds when these are moved."""
    held = [shared for need in moved for shared in need.shared]
    return sum(need.own for need in moved) + sum(held.count(shared) == shared[1] for shared in set(held))


def alone(need: Need, moved: list[Need]) -> Need:
    """The need when these are moved: a page that only it holds is not copied."""
    sharing = sum(need.shared == other.shared for other in moved)
    return replace(need, copy=0) if need.copy and sharing == need.shared[0][1] - 1 else need


@given(needs(), st.integers(0, 12), budgets)
def test_laws(all_needs: list[Need], free: int, budget: Budget) -> None:
    by_stream = {need.stream: need for need in all_needs}
    decision = plan(all_needs, free, budget)
    granted = [by_stream[stream] for stream, _ in decision.grants]
    moved = [by_stream[stream] for stream in decision.moved]

    assert len(set(decision.moved) | {need.stream for need in granted}) == len(moved) + len(granted)
    for need, (_, rows) in zip(granted, decision.grants, strict=True):
        assert rows > 0
        assert rows in cut_points(need), "an atomic piece is fed whole or not at all"

    pairs = zip(granted, decision.grants, strict=True)
    taken = sum(pages_for(alone(need, moved), rows, PAGE) for need, (_, rows) in pairs)
    assert taken <= free + freed(moved), "no page is spent twice"

    appends = [rows - need.token for need, (_, rows) in zip(granted, decision.grants, strict=True)]
    most = budget.append_rows if any(need.token and need.pieces for need in all_needs) else budget.rows
    single = [rows for rows in appends if rows]
    assert sum(appends) <= most or (len(single) == 1 and single[0] > most), "the budget holds but for one atomic piece"
    if sum(appends) > most:
        (need,) = [need for need, rows in zip(granted, appends, strict=True) if rows]
        assert need.pieces[0] == (single[0], True)

    for need in moved:
        assert need.movable and (need.own or need.shared)
        assert not need.pieces or any(need.since > other.since for other in granted), "only idle or younger ones go"


@given(needs(), st.integers(0, 40), budgets)
def test_where_pages_are_enough_only_those_with_something_to_do_count(
    all_needs: list[Need], free: int, budget: Budget
) -> None:
    busy = [replace(need, own=0, shared=(), movable=False) for need in all_needs if need.pieces]
    decision, wanted = within(busy, free, budget), plan(all_needs, free, budget)
    assert decision == wanted or decision is None
    asked = {need.stream: pages_for(need, sum(count for count, _ in need.pieces), PAGE) for need in busy}
    assert decision is not None or sum(asked.values()) > free
    assert decision is None or not wanted.moved


@given(needs(), st.integers(0, 12), budgets)
def test_the_oldest_is_served_where_pages_can_be_had(all_needs: list[Need], free: int, budget: Budget) -> None:
    waiting = [need for need in all_needs if need.pieces]
    if not waiting:
        assert plan(all_needs, free, budget).grants == []
        return
    oldest = min(waiting, key=lambda need: need.since)
    others = [need for need in all_needs if need.movable and need is not oldest and not need.away]
    reachable = free + freed(others)
    served = oldest.stream in dict(plan(all_needs, free, budget).grants)
    assert served == (pages_for(alone(oldest, others), least(oldest), PAGE) <= reachable)


@given(needs(atomics=False), budgets)
def test_with_pages_enough_every_token_is_fed_and_nobody_moves(all_needs: list[Need], budget: Budget) -> None:
    decision = plan(all_needs, 1_000, budget)
    assert decision.moved == []
    assert {need.stream for need in all_needs if need.token} <= {stream for stream, _ in decision.grants}


@given(needs(), st.integers(0, 12), budgets)
def test_it_is_a_function_of_its_arguments(all_needs: list[Need], free: int, budget: Budget) -> None:
    assert plan(all_needs, free, budget) == plan(all_needs[::-1], free, budget)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 100))
def test_the_encoder_begins_as_much_as_fits_but_the_first_always(sizes: list[int], tokens: int) -> None:
    count = grant([(due, size) for due, size in enumerate(sizes)], tokens)
    assert count >= 1
    assert count == 1 or sum(sizes[:count]) <= tokens
    assert count == len(sizes) or sum(sizes[: count + 1]) > tokens
