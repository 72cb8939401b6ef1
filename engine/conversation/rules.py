"""The life of a question and of its reply, as one table: whatever changes it is here, and nowhere else.

A question waits (QUEUED) until its turn comes in the stream's format. Then its reply speaks: tokens are drawn. In
formats that stay open while media comes, a reply rests in two ways. It is RESTING when the model has ended it and more
media is expected. It is PAUSED when it has said as much as one unit of media allows; its newest token is not fed yet.
Either way what comes next makes it speak again, and nothing of it is computed until then. At last it is DONE.

An interrupt may come before the turn: then the question is CUT, and its reply is empty. A question whose own media
failed is REFUSED: its client has been told, and it is not asked.

For each life and event the table says which life follows and what is done. A pair that is not in it cannot be:
`after` raises then, since going on would be a wrong answer in silence.

A stream has three tables of its own. `MEDIA`: media is expected, or the newest piece did not fit, or no more will
come. `WHERE`: the rows that are fed are in the cache, or in host memory after a preemption. `READER`: the stream's
client reads, or the stream is parked. None of these changes the life of a reply.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ...errors import PenstockError


class Life(StrEnum):
    """Of a question, then of its reply."""

    QUEUED = "queued"
    CUT = "cut"
    REFUSED = "refused"
    SPEAKING = "speaking"
    PAUSED = "paused"
    RESTING = "resting"
    DONE = "done"

    @property
    def rests(self) -> bool:
        """A reply that waits for what comes."""
        return self in (Life.PAUSED, Life.RESTING)


class What(StrEnum):
    """What happens to it."""

    TURN = "its turn comes"
    REFUSAL = "its media failed"
    TOKEN = "token"
    LAST_OF_UNIT = "last token of a unit"
    SILENCE = "the model ends it"  # while it is held open and media is expected
    STOP = "stop"  # an end token, or a stop string
    LENGTH = "length"  # the most tokens, or no room for more
    FAULT = "its grammar has no way on"
    MEDIA = "media goes in"
    MISSED = "media does not fit"
    TEXT = "text goes in"
    QUESTION = "next question"
    INTERRUPT = "interrupt"
    END = "end of the media"
    # To a stream.
    SAVED = "preempted, its pages saved"
    TAKEN = "preempted, its pages taken"  # its rows are fed once more
    FED = "its turn to be fed"
    FORKED = "fork"
    PARKED = "its client stops reading"
    READ = "its client reads"


class Does(StrEnum):
    """What is done about it. Those that end a reply have the reason that its client is told."""

    NOTHING = ""
    BEGIN = "begin the reply"
    TELL = "tell that it rests"
    REDRAW = "draw with another seed"  # what the model said before was silence: the same draw would say it again
    STOP = "end: stop"
    LENGTH = "end: length"
    INTERRUPTED = "end: interrupted"
    OVERTAKEN = "end: overtaken"
    FAILED = "end: error"

    @property
    def reason(self) -> str:
        """Why a reply ended."""
        return self.value.removeprefix("end: ")


class Rule(msgspec.Struct, frozen=True):
    """Which life follows, and what is done."""

    life: Life
    does: Does = Does.NOTHING


RULES: dict[tuple[Life, What], Rule] = {
    # A question that waits.
    (Life.QUEUED, What.TURN): Rule(Life.SPEAKING, Does.BEGIN),
    (Life.QUEUED, What.INTERRUPT): Rule(Life.CUT),
    (Life.QUEUED, What.REFUSAL): Rule(Life.REFUSED),
    (Life.CUT, What.TURN): Rule(Life.DONE, Does.INTERRUPTED),
    (Life.CUT, What.INTERRUPT): Rule(Life.CUT),
    (Life.CUT, What.REFUSAL): Rule(Life.REFUSED),
    (Life.REFUSED, What.REFUSAL): Rule(Life.REFUSED),
    # A reply that speaks.
    (Life.SPEAKING, What.TOKEN): Rule(Life.SPEAKING),
    (Life.SPEAKING, What.LAST_OF_UNIT): Rule(Life.PAUSED),
    (Life.SPEAKING, What.SILENCE): Rule(Life.RESTING, Does.TELL),
    (Life.SPEAKING, What.STOP): Rule(Life.DONE, Does.STOP),
    (Life.SPEAKING, What.LENGTH): Rule(Life.DONE, Does.LENGTH),
    (Life.SPEAKING, What.FAULT): Rule(Life.DONE, Does.FAILED),
    (Life.SPEAKING, What.MEDIA): Rule(Life.SPEAKING),
    (Life.SPEAKING, What.MISSED): Rule(Life.SPEAKING),
    (Life.SPEAKING, What.TEXT): Rule(Life.SPEAKING),
    (Life.SPEAKING, What.QUESTION): Rule(Life.DONE, Does.OVERTAKEN),
    (Life.SPEAKING, What.INTERRUPT): Rule(Life.DONE, Does.INTERRUPTED),
    (Life.SPEAKING, What.END): Rule(Life.SPEAKING),
    # A reply that has said what one unit allows: no token is drawn. The unit's time passes also where it did not fit.
    (Life.PAUSED, What.MEDIA): Rule(Life.SPEAKING),
    (Life.PAUSED, What.MISSED): Rule(Life.SPEAKING),
    (Life.PAUSED, What.TEXT): Rule(Life.SPEAKING),
    (Life.PAUSED, What.QUESTION): Rule(Life.DONE, Does.STOP),
    (Life.PAUSED, What.INTERRUPT): Rule(Life.DONE, Does.INTERRUPTED),
    (Life.PAUSED, What.END): Rule(Life.SPEAKING),
    # A reply that the model has ended: no token is drawn. Where media no longer fits, nothing will wake it.
    (Life.RESTING, What.MEDIA): Rule(Life.SPEAKING, Does.REDRAW),
    (Life.RESTING, What.MISSED): Rule(Life.DONE, Does.LENGTH),
    (Life.RESTING, What.TEXT): Rule(Life.SPEAKING, Does.REDRAW),
    (Life.RESTING, What.QUESTION): Rule(Life.DONE, Does.STOP),
    (Life.RESTING, What.INTERRUPT): Rule(Life.DONE, Does.INTERRUPTED),
    (Life.RESTING, What.END): Rule(Life.DONE, Does.STOP),
}


def after(life: Life, what: What) -> Rule:
    """The rule for what happens in a life. Raises PenstockError for what cannot happen in it."""
    try:
        return RULES[life, what]
    except KeyError:
        known = ", ".join(other for of, other in RULES if of is life) or "nothing"
        raise PenstockError(f"a question or reply that is {life}: expected {known}; got: {what}") from None


class MediaLife(StrEnum):
    """What is known of a stream's media."""

    EXPECTED = "expected"
    FULL = "full"  # the newest piece did not fit
    OVER = "over"  # no more will come


MEDIA: dict[tuple[MediaLife, What], MediaLife] = {
    (MediaLife.EXPECTED, What.MEDIA): MediaLife.EXPECTED,
    (MediaLife.EXPECTED, What.MISSED): MediaLife.FULL,
    (MediaLife.EXPECTED, What.END): MediaLife.OVER,
    (MediaLife.FULL, What.MEDIA): MediaLife.EXPECTED,
    (MediaLife.FULL, What.MISSED): MediaLife.FULL,
    (MediaLife.FULL, What.END): MediaLife.OVER,
    # What was hurried past may still come in.
    (MediaLife.OVER, What.MEDIA): MediaLife.OVER,
    (MediaLife.OVER, What.MISSED): MediaLife.OVER,
    (MediaLife.OVER, What.END): MediaLife.OVER,
}


class Where(StrEnum):
    """Where the rows of a stream are that have been fed."""

    CACHE = "in the cache"
    HOST = "in host memory"


WHERE: dict[tuple[Where, What], Where] = {
    (Where.CACHE, What.SAVED): Where.HOST,
    (Where.CACHE, What.TAKEN): Where.CACHE,  # as many as are left, which is none
    (Where.CACHE, What.FED): Where.CACHE,
    (Where.HOST, What.FED): Where.CACHE,
}


class Reader(StrEnum):
    """Whether the stream's client reads. While it does not, nothing is fed."""

    READS = "reads"
    PARKED = "parked"


READER: dict[tuple[Reader, What], Reader] = {
    (Reader.READS, What.PARKED): Reader.PARKED,
    (Reader.READS, What.READ): Reader.READS,
    (Reader.PARKED, What.PARKED): Reader.PARKED,
    (Reader.PARKED, What.READ): Reader.READS,
    # The client of a twin has read all that there is.
    (Reader.READS, What.FORKED): Reader.READS,
    (Reader.PARKED, What.FORKED): Reader.READS,
}
