"""The state of one stream as bytes, and back. It knows which of its objects are data; no pages and no tensors."""

from __future__ import annotations

import msgspec

from ...streams import event, format, segment
from ...streams.requests import request, structured, window
from ...streams.requests.structured import Structured
from .. import command, pages, plan, positions, span
from ..command import PromptInput, Question
from ..family import Family
from ..graph import Graph
from ..pages import PageTable
from ..plan import StateMove
from ..span import Rows, Span, Stored
from ..words import detokenize
from ..words.detokenize import Detokenizer, decoder
from . import carried, fronts, keys, layout, marks, reply, rules, state, waiting
from .carried import Carried
from .fronts import Fronts
from .layout import Layout
from .reply import ReplyState
from .state import StreamState

_HOMES = (
    *(event, format, segment, request, structured, window, command, pages, plan, positions, span, detokenize),
    *(carried, fronts, keys, layout, marks, reply, rules, state, waiting),
)


# What belongs to an engine, not to a stream, or is found again.
_GIVEN = (
    *((StreamState, "id"), (StreamState, "slots"), (StreamState, "request"), (StreamState, "changes")),
    *((Layout, "family"), (Layout, "format"), (PageTable, "pool"), (Detokenizer, "_text_of")),
    *((Carried, "_entries"), (Fronts, "tables"), (Fronts, "seen"), (StreamState, "unspelled"), (StreamState, "wears")),
    (ReplyState, "guide"),
)


def freeze(stream: StreamState) -> bytes:
    """Raises TypeError where the stream holds what is no data."""
    return Graph(_HOMES, dict.fromkeys(_GIVEN)).write(stream)


def thaw(data: bytes, like: StreamState, family: Family, base: int) -> StreamState:
    """The stream that `freeze` wrote, in the place of `like`, a new one with the same request and format. Its pages are
    in host memory. The entries of the span store that it names have numbers from `base` on. Raises ValueError for bytes
    that `freeze` has not written."""
    values = (
        *(like.id, like.slots, like.request, like.changes),
        *(family, like.layout.format, like.table.pool, decoder(family.tokenizer), range(0)),
        *(like.slots[1:], (), None, like.wears, None),
    )
    stored = {Stored: lambda one: msgspec.structs.replace(one, id=base + one.id) if one.id >= 0 else one}
    stream = Graph(_HOMES, dict(zip(_GIVEN, values, strict=True)), stored).read(data)
    if not isinstance(stream, StreamState):
        raise ValueError(f"expected a stream, got a {type(stream).__name__}")
    if stream.fronts is not None:
        stream.fronts.stand(stream.fronts.position)
    if stream.carried is not None:
        stream.carried = stream.carried.copy(like.slot)
        like.changes.states.append(StateMove(like.id, None, stream.carried.entries))
    for form in forms(stream):
        family.grammars.has(form)  # which keeps it
    if stream.reply is not None:
        stream.reply.find_guide(family.grammars)
    return stream


def forms(stream: StreamState) -> list[Structured]:
    """What its replies have to be: those that may come without being asked for, those asked for, and the one that
    runs."""
    asked = [input.input.params for input in stream.inputs if isinstance(input.input, Question | PromptInput)]
    replies = [stream.request.params, *asked, *([] if stream.reply is None else [stream.reply.params])]
    return [params.structured for params in replies if params is not None and params.structured is not None]


def named(stream: StreamState) -> set[int]:
    """The entries of the span store that its rows, and what waits to become rows, name, without the model's own."""
    runs: list[Rows | Span] = list(stream.laid)
    for input in stream.inputs:
        runs += [*input.spans, *([] if input.prompt is None else input.prompt.rows)]
    return {run.stored.id for run in runs if run.stored is not None and run.stored.id >= 0}
