"""Commands that change one stream's conversation alone, handed to it. It knows no other stream."""

from __future__ import annotations

from typing import assert_never

from ..command import Accept, Hurry, Interrupt, LaidOut, Refuse, Resolved, Spans
from .conversation import Conversation


def tell(talk: Conversation, command: Accept | Spans | LaidOut | Resolved | Refuse | Interrupt | Hurry) -> None:
    """Carry the command out in the conversation of its stream."""
    match command:
        case Accept(_, input):
            talk.accept(input)
        case Spans(_, spans):
            talk.spans(spans)
        case LaidOut(_, seq, prompt):
            talk.laid_out(seq, prompt)
        case Resolved(_, seq):
            talk.resolve(seq)
        case Refuse(_, error):
            talk.refuse(error)
        case Hurry(_, seq):
            talk.hurry(seq)
        case Interrupt(_, until, reply, at, turn):
            talk.interrupt(at, reply, until, turn)
        case _:
            assert_never(command)
