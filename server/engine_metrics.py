"""An engine's figures (`Engine.statistics`) for `/metrics`, read when they are asked for. Knows prometheus-client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Name here, name in the engine's statistics, what it says.
_GAUGES = (
    ("kv_pages", "pages", "Pages of the KV cache."),
    ("kv_pages_free", "pages_free", "Pages of the KV cache that nobody holds."),
    ("kv_pages_host", "pages_host", "Pages of streams that were moved to host memory."),
    ("prefix_pages", "prefix_pages", "Pages that can be found by what they hold."),
    ("prefix_pages_idle", "prefix_pages_idle", "Of these, pages that no stream holds."),
    ("span_bytes", "span_bytes", "Bytes of embeddings that are kept to feed streams again."),
    ("lookback_bytes", "lookback_bytes", "Bytes of media that are kept for questions that look back."),
    ("encoder_queue", "segments_waiting", "Segments that wait for the encoder."),
    ("engine_streams", "streams", "Streams that the scheduler knows."),
    ("live_load", "live_load", "The share of the machine's time that live streams need."),
)
_COUNTERS = (
    ("steps", "steps", "Steps of the language model."),
    ("prefix_cache_queries", "prefix_queries", "Rows with which streams began."),
    ("prefix_cache_hits", "prefix_hits", "Of these, rows that the prefix cache held."),
    ("guesses", "guesses", "Tokens that were guessed."),
    ("guesses_right", "guesses_right", "Of these, tokens that were right, with all before them in the step."),
)
# The same of what streams have cost.
_COSTS = (
    ("step_seconds", "step_seconds", "Seconds that steps took."),
    ("encode_seconds", "encode_seconds", "Seconds that the towers worked."),
    ("rows_refed", "refed", "Rows that were computed once more."),
)
_LANES = ("control", "data")


class EngineCollector(Collector):
    """Figures of what `statistics` returns, and of whether the engine works."""

    def __init__(self, statistics: Callable[[], Mapping[str, Any]], failed: Callable[[], bool]) -> None:
        self._statistics = statistics
        self._failed = failed

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when the figures are."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now. What was not measured has a name and no value."""
        numbers = self._statistics()
        yield _gauge("up", "1 while the engine works, 0 once it has failed.", not self._failed())
        for name, key, what in _GAUGES:
            yield _gauge(name, what, numbers.get(key))
        for name, key, what in _COUNTERS:
            yield CounterMetricFamily(f"penstock_{name}", what, value=numbers.get(key))
        for name, key, what in _COSTS:
            yield CounterMetricFamily(f"penstock_{name}", what, value=numbers.get("usage", {}).get(key))
        held = 1 - numbers["pages_free"] / numbers["pages"] if numbers.get("pages") else None
        yield _gauge("kv_cache_usage_ratio", "The share of the KV cache's pages that somebody holds.", held)
        synchrony = numbers.get("timeliness", {}).get("synchrony")
        yield _gauge("synchrony_ratio", "The share of the newest pieces of media that were in time.", synchrony)
        encoder = numbers.get("encoder") or {}
        yield _gauge("encoder_here", "Encoders in other processes that can be reached.", encoder.get("here"))
        yield _gauge("encoder_held", "Segments and prompts that wait for it to come back.", encoder.get("held"))
        what = "How often the connection to it was lost."
        yield CounterMetricFamily("penstock_encoder_lost", what, value=encoder.get("lost"))
        waiting = GaugeMetricFamily(
            "penstock_mailbox_messages", "Messages that wait for an actor.", labels=("actor", "lane")
        )
        for actor, box in numbers.get("mailboxes", {}).items():
            for lane in _LANES:
                waiting.add_metric((actor, lane), box[lane])
        yield waiting


def _gauge(name: str, what: str, value: float | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"penstock_{name}", what, value=None if value is None else float(value))
