"""What one step has to do and what it gave.

Plain data: embeddings are named as rows of the span store. Whoever has the same store and cache can carry a plan out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, repeat

import msgspec
import numpy as np

from .span import Look, Rows, Stored

# Page tables of a stream: of its window, of what is pinned and of its text memory. Of `slots` streams the one in `slot`
# has the tables slot, slot + slots and slot + 2 * slots.
TABLES = 3
# Entries of states of a stream, where layers keep any: the current one, two to go back to, and one that is written.
# Of the stream in `slot` they begin with entry slot * STATES.
STATES = 4


class Draw(msgspec.Struct, frozen=True, gc=False):
    """How the next token of a row is drawn. `seed` already belongs to this token; temperature 0 takes the likeliest.

    `said`: the reply's tokens so far, where a penalty counts them. `bias`: (id, what is added). `barred`: ids that are
    not drawn. `logprobs`: how many of the likeliest tokens are reported; None: nothing is. `allowed`: a bit for each id
    that may be drawn, that of id 0 the lowest of the first byte; empty: any may be.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0
    said: tuple[int, ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    barred: tuple[int, ...] = ()
    logprobs: int | None = None
    allowed: bytes = b""


class Wears(msgspec.Struct, frozen=True, gc=False):
    """An adapter that a stream wears: its number in this process, and what stands for its content."""

    number: int
    fingerprint: str


class Front(msgspec.Struct, frozen=True, gc=False):
    """Rows that a stream still holds from before its window: places `[begin, stop)` of page table `slot`.

    They count as standing `lift` positions higher than where their keys were computed.
    """

    slot: int
    begin: int
    stop: int
    lift: int


class StateUse(msgspec.Struct, frozen=True, gc=False):
    """Of a model whose layers keep a state of all rows: the entry of the state before a feed's rows, `begin` (None:
    there are none before), and where the state goes after some of them, (how many, entry) each, the last after all.
    No entry that is read is written in the same step."""

    begin: int | None
    ends: tuple[tuple[int, int], ...]


class Guesses(msgspec.Struct, frozen=True, gc=False):
    """Tokens that a reply may say next: rows behind those of a feed, in the same table, at `positions` `(3, n)`.

    `draws`: how the token behind each of them is drawn; what they `said` is without the guesses. `ids`: the tokens;
    empty: the runner's draft model finds them. `unread`: rows of the stream from place `first` on that the draft model
    has not computed; where there are `draws`, those of the feed follow.
    """

    positions: np.ndarray
    draws: list[Draw]
    ids: tuple[int, ...] = ()
    unread: list[Rows] = []
    first: int = 0


class Feed(msgspec.Struct, frozen=True, gc=False):
    """One stream's part of a step.

    `rows` go to the places from `first` on of page table `slot`; `draw` samples from the last of them. They see that
    table from place `begin` on, and what `fronts` hold, which comes before it, in order. Behind them come `guesses`.
    `states`: what is read and written of states; None: they begin from none, and it is not kept. `adapter`: the number
    of the one that its rows wear; 0: none. `looks`: what words of the stream see of its media by cross-attention.
    """

    stream: int
    slot: int
    first: int
    rows: list[Rows]
    draw: Draw | None
    begin: int = 0
    fronts: tuple[Front, ...] = ()
    guesses: Guesses | None = None
    states: StateUse | None = None
    adapter: int = 0
    looks: tuple[Look, ...] = ()


class TableEdit(msgspec.Struct, frozen=True):
    """The pages of `slot` from `index` on."""

    slot: int
    index: int
    pages: list[int]


class Recalled(msgspec.Struct, frozen=True):
    """Rows of a stream that leave its window and stay in its text memory: from rows `sources` of the cache to rows
    `targets`, their keys turned on by `turns` positions each. Whole pages are copied before, (source, target)."""

    stream: int
    copies: list[tuple[int, int]]
    sources: list[int]
    targets: list[int]
    turns: list[int]


class StateMove(msgspec.Struct, frozen=True):
    """States of a stream that go from some entries to others, in order. None: from or to host memory, where they are
    under the stream's number; what comes from there is let go there. States of streams that make room stay where they
    are: they do not grow."""

    stream: int
    sources: list[int] | None
    targets: list[int] | None


class Changes(msgspec.Struct):
    """What slides, forks and copies have done to page tables, rows and states since the last plan."""

    edits: list[TableEdit] = []
    recalled: list[Recalled] = []
    states: list[StateMove] = []

    def taken(self) -> Changes:
        """They go into a plan."""
        taken = Changes(self.edits, self.recalled, self.states)
        self.edits, self.recalled, self.states = [], [], []
        return taken


class Plan(msgspec.Struct, frozen=True, tag="plan"):
    """One step, in the order in which it is carried out.

    twins: host copies of a stream that another one has as well, (stream, the other). recalled: rows that go to a text
    memory. saves: pages copied to host memory under a stream's number. copies: whole
    pages (source, target). edits: changes of page tables. restores: pages brought back from the host, where the copy is
    let go. drops: host copies let go. feeds: the forward pass; may be empty. releases: entries of the span store that
    no stream names any more, (entry, how often it was handed out). found: entries whose rows streams have found in the
    cache, so that they are not fed. patience_ms: so long after the step before it a tower may go on with its pass;
    None: to the end of it. states: moves of states, before `drops` and `feeds`, in this order.
    """

    number: int
    saves: list[tuple[int, list[int]]]
    copies: list[tuple[int, int]]
    edits: list[TableEdit]
    restores: list[tuple[int, list[int]]]
    drops: list[int]
    feeds: list[Feed]
    releases: list[tuple[int, int]] = []
    found: list[Stored] = []
    recalled: list[Recalled] = []
    twins: list[tuple[int, int]] = []
    patience_ms: float | None = None
    states: list[StateMove] = []


class Likely(msgspec.Struct, frozen=True):
    """How likely a drawn token was: its log probability by the model's logits as they came, and the likeliest tokens
    with theirs, (id, log probability) each.
    """

    logprob: float
    top: list[tuple[int, float]]


# A token, and how likely it was where its draw asks for that.
Drawn = tuple[int, Likely | None]


class Result(msgspec.Struct, frozen=True, tag="result"):
    """What a step gave: a token for each feed that draws, in their order. `counts`: how many tokens each of them gave,
    which are those behind its rows and behind its guesses up to the first wrong one; empty: one each.

    failed: streams for whose part memory ran out, which cannot go on; nothing was drawn for them. The others have what
    they would have without them. poisoned: streams whose rows are no longer finite numbers; nothing was drawn for them,
    and they cannot go on. likely: for each token, where its draw asks for it; empty where none does. ms: how long
    it computed.
    """

    number: int
    tokens: list[int]
    failed: list[int] = []
    poisoned: list[int] = []
    likely: list[Likely | None] = []
    ms: float = 0.0
    counts: list[int] = []

    def drawn(self) -> Iterator[list[Drawn]]:
        """The tokens of one feed after the other."""
        tokens = iter(zip(self.tokens, self.likely or [None] * len(self.tokens), strict=True))
        return (list(islice(tokens, count)) for count in self.counts or repeat(1, len(self.tokens)))
