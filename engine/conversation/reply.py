"""One reply: its sampled ids, its text, and what was spliced into it. No rows, no pages."""

from __future__ import annotations

import functools
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any

import msgspec

from ...streams.requests.request import Sampling, SamplingParams
from ..plan import Draw, Likely
from ..positions import Cursor
from ..runner.sampler import seed_of
from ..runner.threads import granted_cores
from ..span import Span
from ..words.detokenize import Detokenizer
from ..words.grammar import Grammars, Guide
from .rules import Life, What

_GREEDY = Draw()
_MOST_THREADS = 8  # that find what grammars allow


@functools.cache
def _mask_threads() -> int:
    """One for each core that this process has, up to a bound."""
    cores = granted_cores()
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, own, own if cores is None else max(1, int(cores)))


def guide_together(grammars: Grammars, replies: Iterable[ReplyState | None]) -> None:
    """Find what may come next in all of these replies that have a grammar, before they are drawn one by one."""
    guides = [guide for reply in replies if reply is not None and (guide := reply.follow()) is not None]
    if guides:
        grammars.find_together(guides, _mask_threads())


class Splice(msgspec.Struct, frozen=True, eq=False):
    """What went into the KV of a running reply after its first `tokens` tokens: a span, or words."""

    tokens: int
    input: Span | str


class ReplyState:
    """The sampling state of one reply. Spliced rows do not touch it; it goes on across them.

    `places[i]` and `positions[i]` are the row and the position of token `gone + i` in the stream; `row` is that of the
    first token, whether it is there yet or not, and `cursor` the stream's where the reply began. `ends` are the model's
    end tokens, `own` is how its checkpoint wants to be sampled. A cut keeps `least` tokens: of what was spliced in
    before them the embeddings have been let go. `turn`: the turn of the user that it answers; 0: a question.

    `guide` says what its grammar allows, None where it has none (`guided`). A reply that may rest says one value of the
    grammar after the other: the newest begins with token `value`.

    `life` follows the table in rules.py.
    """

    def __init__(
        self,
        id: int,
        seq: int,
        params: SamplingParams,
        text: Detokenizer,
        row: int,
        cursor: Cursor,
        ends: frozenset[int],
        own: Sampling,
        turn: int = 0,
        first_barred: tuple[int, ...] = (),
    ) -> None:
        self.id = id
        self.turn = turn
        self.seq = seq
        self.params = params
        self.text = text
        self.row = row
        self.cursor = cursor
        self.ids: list[int] = []
        self.places: list[int] = []
        self.positions: list[int] = []
        self.gone = 0
        self.splices: list[Splice] = []
        self.least = 0
        self.life = Life.SPEAKING
        self.rest_told = -1  # the number of tokens at which its client was told last that it rests
        self.since = 0  # tokens since something was spliced in
        self.unit: int | None = None  # the unit that has gone in since the last token was drawn
        self._rests, self._rested_at = 0, -1  # how often it went on from silence, and after how many tokens
        self._ends = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else ends)
        self._first_barred = first_barred
        self._bias = tuple(params.logit_bias.items())
        self._way = params.over(own)
        penalties = (self._way.repetition_penalty, params.presence_penalty, params.frequency_penalty)
        self._penalised = penalties != (1, 0, 0)
        self._seed = params.seed if params.seed is not None else id * 1_000_003 + seq
        self.guide: Guide | None = None
        self.value = 0
        self._may_rest = False

    def guided(self, grammars: Grammars, may_rest: bool) -> None:
        """A new value begins, where it has a grammar. `may_rest`: it may be silent instead, as media is expected.
        Raises InputError where the grammar cannot be compiled."""
        self.value, self._may_rest = len(self.ids), may_rest
        if self.guide is not None:
            self.guide = self.guide.again()
        else:
            self.find_guide(grammars)

    def find_guide(self, grammars: Grammars) -> None:
        """As it was, in another engine. Raises as `guided` does."""
        if self.params.structured is not None:
            self.guide = grammars.guide(self.params.structured)

    def follow(self) -> Guide | None:
        """Its guide, which knows all that was said of the newest value; None where it has no grammar."""
        if self.guide is not None:
            self.guide.follow(self.ids[self.value :])
        return self.guide

    def draw(self, ahead: int = 0) -> Draw:
        """How the next token is drawn. `ahead`: the one so many tokens later, of a reply without a grammar; what it
        `said` is without those between."""
        params, way, place = self.params, self._way, len(self.ids) + ahead
        barred = (*self._ends,) if place < params.min_tokens else ()
        barred = barred if place else barred + self._first_barred
        allowed = b""
        guide = self.follow()
        if guide is not None:
            allowed, only_ends = guide.allowed(self._ends, self._may_rest and place == self.value)
            barred = () if only_ends else barred
        elif way.temperature == 0 and not (self._penalised or self._bias or barred):
            return _GREEDY if params.logprobs is None else Draw(logprobs=params.logprobs)
        return Draw(
            way.temperature,
            way.top_k,
            way.top_p,
            way.min_p,
            seed_of(self._seed, place + (self._rests << 32 if self._rested_at == place else 0)),
            way.repetition_penalty,
            params.presence_penalty,
            params.frequency_penalty,
            tuple(self.ids) if self._penalised else (),
            self._bias,
            barred,
            params.logprobs,
            allowed,
        )

    def redraw(self) -> None:
        """It goes on from silence: the next token is drawn with another seed."""
        self._rests = self._rests + 1 if self._rested_at == len(self.ids) else 1
        self._rested_at = len(self.ids)

    def splice(self, input: Span | str, unit: int | None = None) -> None:
        """This went in after the newest token; of media, the `unit` that it belongs to."""
        self.splices.append(Splice(len(self.ids), input))
        self.since = 0
        self.unit = unit if unit is None or self.unit is None else max(self.unit, unit)

    def do_without(self) -> None:
        """What should have gone in was refused: the unit's time has passed all the same."""
        self.since = 0

    def drawn(self) -> None:
        """A token was drawn from the last row."""
        self.since += 1
        self.unit = None

    def ended_by(self, id: int, stays_open: bool) -> What | None:
        """How this token ends the reply instead of being part of it, which may stay open; None: it does not."""
        if self.fault:
            return What.FAULT
        if id not in self._ends:
            return None
        return What.SILENCE if stays_open and id not in self.params.stop_token_ids else What.STOP

    @property
    def fault(self) -> str:
        """Why its grammar does not let it go on; empty where it does."""
        return "" if self.guide is None else self.guide.fault

    def cut(self, keep: int) -> tuple[int, Cursor, list[Splice]]:
        """Keep the first `keep` tokens. Returns (rows that stay, the cursor after them, splices after the cut)."""
        behind = [splice for splice in self.splices if splice.tokens >= keep]
        first = max(0, keep - self.gone)
        del self.ids[keep:], self.places[first:], self.positions[first:]
        self.splices = [splice for splice in self.splices if splice.tokens < keep]
        if keep == 0:
            return self.row, self.cursor.copy(), behind
        position = self.positions[-1] + 1
        return self.places[-1] + 1, Cursor(position, position), behind

    def least_from(self, row: int) -> int:
        """How many tokens stay at least where it can be cut from `row` on."""
        over = 0 if row <= self.row else self.gone + bisect_left(self.places, row - 1) + 1
        return max(self.least, over)

    def again(self, keep: int, past: int) -> int:
        """Before which row a cut to `keep` tokens will lay once more what was fed, where rows before `past` have been;
        0 where it will lay nothing so."""
        first = max(0, keep - self.gone)
        row = self.places[first - 1] + 1 if keep else self.row
        tokens = max(0, bisect_left(self.places, past) - first)
        return past - tokens if past - tokens > row else 0

    def let_go(self, row: int) -> None:
        """The embeddings of the rows from `row` on, a run that was spliced in, are kept no longer; or the rows before
        it have left the window."""
        first = bisect_left(self.places, row)
        before = self.gone + first
        self.least = before + 1
        del self.splices[: bisect_right(self.splices, before, key=lambda splice: splice.tokens)]
        first = min(first, len(self.places) - 1)  # the newest token's is asked for
        if first > 0:
            del self.places[:first], self.positions[:first]
            self.gone += first

    def copy(self) -> ReplyState:
        twin = object.__new__(ReplyState)
        twin.__dict__.update(self.__dict__)
        for name in ("ids", "places", "positions", "splices"):
            setattr(twin, name, list(getattr(self, name)))
        twin.text = self.text.copy()
        twin.guide = None if self.guide is None else self.guide.copy()
        return twin


def how_likely(likely: Likely | None, tokenizer: Any) -> tuple[float | None, tuple[tuple[int, str, float], ...]]:
    """What a `Token` says of it: its log probability, and (id, text, log probability) of the likeliest."""
    if likely is None:
        return None, ()
    return likely.logprob, tuple((id, tokenizer.decode([id]), logprob) for id, logprob in likely.top)
