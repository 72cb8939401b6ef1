"""The table of drift: a lift costs at most twice what one rounding does, however often a window slides."""

from __future__ import annotations

from tests.reference.drift import WAYS, measure, table


def test_only_keys_turned_in_place_drift() -> None:
    few, many = measure(1), measure(1000)
    assert tuple(many) == WAYS
    for name in ("lifted", "query turned"):
        for field in ("keys", "scores", "output"):
            assert getattr(many[name], field) < 2 * getattr(many["rounded once"], field)
            assert getattr(many[name], field) < 1.1 * getattr(few[name], field)
    assert many["in place"].keys > 50 * many["rounded once"].keys


def test_the_table_can_be_printed() -> None:
    assert "| 1,000 | query turned |" in table()
