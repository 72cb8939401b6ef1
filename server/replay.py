"""`penstock replay`: a recorded run once more. In: a file of `penstock serve --record`. Out: its replies on stdout, and
whether each step gave the tokens that it gave then.

Loads torch when it runs.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..streams.event import Event, ReplyDone, Token

if TYPE_CHECKING:
    from ..engine.plan import Result

# Steps with other tokens that are printed one by one.
_MOST_TOLD = 10


def main(options: argparse.Namespace) -> int:
    """Replay a file; 0 where every step gave the same tokens, else 1. InputError for a file that is no record."""
    from ..engine.plan import Result
    from ..engine.record import Record, repeat

    record = Record(options.file)
    was = record.header
    made = ", ".join(f"{name} {version}" for name, version in was.versions.items())
    print(f"{was.model}, {was.dtype} on {was.device}; recorded with {made}", flush=True)
    texts: dict[tuple[int, int], str] = {}
    steps = tokens = differ = 0
    for done in repeat(record, options.model):
        for stream, event in done.events:
            _show(texts, stream, event)
        if isinstance(done.entry, Result) and done.result is not None:
            steps += 1
            tokens += len(done.result.tokens)
            if not _same(done.entry, done.result):
                differ += 1
                if differ <= _MOST_TOLD:
                    print(f"step {done.entry.number}: {_tokens(done.entry)}, now {_tokens(done.result)}", flush=True)
    if record.torn:
        print("penstock: the record ends within an entry, as where its process was killed", file=sys.stderr)
    verdict = "the same" if not differ else f"other tokens in {differ} of them"
    print(f"{steps} steps, {tokens} tokens: {verdict}", flush=True)
    return int(differ > 0)


def _show(texts: dict[tuple[int, int], str], stream: int, event: Event) -> None:
    """Print a reply when it has ended."""
    if isinstance(event, Token):
        key = stream, event.reply
        texts[key] = texts.get(key, "") + event.text
    elif isinstance(event, ReplyDone):
        text = texts.pop((stream, event.reply), "") + event.text
        print(f"stream {stream}, reply {event.reply} ({event.reason}): {text}", flush=True)


def _same(then: Result, now: Result) -> bool:
    return (then.tokens, then.failed, then.poisoned) == (now.tokens, now.failed, now.poisoned)


def _tokens(result: Result) -> str:
    parts = [f"tokens {result.tokens}"]
    if result.failed:
        parts.append(f"failed {result.failed}")
    if result.poisoned:
        parts.append(f"poisoned {result.poisoned}")
    return ", ".join(parts)
