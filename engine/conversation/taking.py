"""Whether what came may go in now, behind what a running reply has said. Pure; it changes nothing."""

from __future__ import annotations

import itertools

import msgspec

from ...streams.requests.request import SamplingParams
from ..command import MediaInput, Question, TextInput
from ..span import Span, Turn
from .rules import Life
from .state import StreamState


def mid_character(stream: StreamState) -> bool:
    """A running reply is inside a character: what is to be spliced waits for its end."""
    reply = stream.reply
    return reply is not None and reply.life is not Life.RESTING and reply.since > 0 and reply.text.open


def unit_of(stream: StreamState, span: Span) -> int | None:
    """The unit of media time that a span belongs to, where the format has such."""
    return None if span.modality == "image" else stream.layout.format.unit(span.stop_us)


def takes(stream: StreamState, span: Span, between: int) -> bool:
    """Whether this span goes in now: a running reply rests, or has said `between` tokens since the one before.

    Where the format has it rest first: when it rests and the span's unit has come whole, and then what else is of
    that unit.
    """
    reply, format = stream.reply, stream.layout.format
    if stream.layout.step("media") is None:
        return False
    if not len(span.ids):
        return True  # it was dropped: nothing goes in
    if mid_character(stream):
        return False
    if reply is None:
        return True
    if not format.rests:
        return reply.life.rests or reply.since >= between
    unit = unit_of(stream, span)
    if reply.life.rests:
        return unit is None or _is_whole(stream, unit)
    return unit is not None and reply.unit is not None and unit <= reply.unit


def words_that_cut(stream: StreamState) -> TextInput | Question | None:
    """The first words before which all media has come, where the format says that they cut the running reply."""
    cuts = stream.layout.format.cuts
    come = itertools.takewhile(lambda input: input.done, stream.inputs) if cuts else ()
    words = next((input.input for input in come if input.input.event in cuts), None)
    return words if isinstance(words, TextInput | Question) else None


def question_of(turn: Turn, seq: int, own: SamplingParams) -> Question:
    """What asks for a reply when somebody has stopped to speak, in input `seq` of a stream with these params."""
    params = own if own.seed is not None else msgspec.structs.replace(own, seed=turn.seed)
    return Question(seq, params=params, despite=True, turn=turn.number)


def _is_whole(stream: StreamState, unit: int) -> bool:
    """Nothing more of this unit will come: something of a later one is there, or words, or the end."""
    for input in stream.inputs:
        units = (unit_of(stream, span) for span in input.spans)
        if any(other is None or other > unit for other in units):
            return True
        if not input.done or not isinstance(input.input, MediaInput):
            return input.done
    return False
