"""One stream's conversation: accepted inputs become rows, sampled tokens become replies. No pages, no steps.

What comes in: inputs, spans, interrupts, sampled tokens, all between two steps. What goes out: rows laid in the
stream's state, and events. Inputs act in order; each waits for its spans and for its turn in the stream's format.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec

from ...errors import InputError, PenstockError
from ...streams.event import Dropped, Error, ReplyDone, ReplyStarted, Resting, Token
from ...streams.format import State
from ...streams.requests.request import SamplingParams
from ..command import Input, MediaEnd, MediaInput, PromptInput, Question, TextInput
from ..family import Family
from ..plan import Likely
from ..span import Prompt, Rows, Span
from ..words.detokenize import Detokenizer
from ..words.spelling import Unspelled
from .kept import Kept
from .laying import Limits, lay_within
from .layout import Layout
from .reply import ReplyState, how_likely
from .rules import Does, Life, MediaLife, What, after
from .state import Begun, StreamState
from .taking import mid_character, question_of, takes, unit_of, words_that_cut
from .waiting import MOST_CHARACTERS, MOST_WORDS, Losses, Waiting, hurry, too_many
from .window import Sliding, Unfed


class Conversation:
    """The rules by which one stream's state changes. `kept` counts the spans that are laid; `sliding` lets the oldest
    rows go, None where the stream keeps all."""

    def __init__(
        self, family: Family, stream: StreamState, limits: Limits, kept: Kept, sliding: Sliding | None = None
    ) -> None:
        self.family = family
        self.stream = stream
        self.limits = limits
        self.kept = kept
        self.sliding = sliding
        # The closing ids of a turn, one row for a token that is still to be fed, and one for a first token.
        self.reserve = len(family.turn_ids["assistant_end"]) + 2
        # Tokens that a speaking reply says at least between two pieces of media.
        self.between = stream.request.splice_tokens or family.data.splice_tokens

    def accept(self, input: Input) -> None:
        """The next input. Where it is not `done`, spans may follow, and `resolve` ends them."""
        waiting = Waiting(input, input.done)
        if isinstance(input, TextInput | Question) and too_many(self.stream.inputs, input.text):
            message = f"{input.event}: expected at most {MOST_WORDS} inputs of {MOST_CHARACTERS} characters to wait"
            self.stream.events.append(Error("input", f"{message}, got more", input.seq))
            waiting.input = msgspec.structs.replace(input, text="")
            waiting.happens(What.REFUSAL)  # what it flushes goes in
        self.stream.inputs.append(waiting)
        self.advance()

    def spans(self, spans: list[Span]) -> None:
        """Spans of inputs that were accepted; those of an input that is gone are dropped."""
        for span in spans:
            # The last of that number: a question that was hurried stands before its media.
            waiting = next((input for input in reversed(self.stream.inputs) if input.seq == span.seq), None)
            if waiting is not None:
                waiting.spans.append(span)
                self.kept.wait([span])
        self.advance()

    def laid_out(self, seq: int, prompt: Prompt) -> None:
        """The request's own prompt, input `seq`."""
        for input in self.stream.inputs:
            if input.seq == seq:
                input.prompt = prompt
                self.kept.wait(prompt.rows)
        self.advance()

    def resolve(self, seq: int) -> None:
        """No further spans will come for input `seq`."""
        for input in self.stream.inputs:
            if input.seq == seq:
                input.done = True
        self.advance()

    def refuse(self, error: Error) -> None:
        """Something of input `error.seq` failed, and its client has been told. A question is not asked then."""
        for input in self.stream.inputs:
            if input.seq == error.seq:
                if isinstance(input.input, Question):
                    input.happens(What.REFUSAL)
                input.failed = input.failed or error

    def hurry(self, seq: int) -> None:
        """Let question `seq` wait no longer for media before it that is still being decoded or encoded."""
        hurry(self.stream.inputs, seq)
        self.advance()

    def interrupt(self, at: int | None, reply: int | None, until: int | None, turn: int | None = None) -> None:
        """End the running reply after its token `at` (None: its last), where it answers an input up to number `until`
        (None: whichever runs). `at` counts tokens of reply number `reply`: of another one its client had taken none.

        Where none runs, the first question up to `until` that waits is cut as soon as its reply begins. `turn`: turns
        of the user before this one ask for no reply, and a reply to this one or a later one goes on.
        """
        running = self.stream.reply
        self.stream.turn = max(self.stream.turn, turn or 0)
        if running is not None and turn is not None and running.turn >= turn:
            return
        if running is None:
            for input in self.stream.inputs:
                if until is not None and input.asks and input.seq <= until and input.life is not Life.REFUSED:
                    input.happens(What.INTERRUPT)
                    return
        elif until is None or running.seq <= until:
            self._cut(self._keep(running, at if reply in (None, running.id) else -1), What.INTERRUPT)
            self.advance()

    def stepped(self, id: int | None, likely: Likely | None) -> None:
        """Rows of the stream were fed. `id`: the token that was drawn for the running reply, and how likely it was."""
        if id is not None:
            self._sampled(id, likely)
        self.advance()

    def _sampled(self, id: int, likely: Likely | None) -> None:
        reply = self.stream.reply
        assert reply is not None
        self._happens(What.TOKEN)
        reply.drawn()
        stays_open = self.stream.stays_open(reply.params)
        end = reply.ended_by(id, stays_open)
        if end is What.FAULT:
            self.stream.events.append(Error(InputError.code, f"params.structured: {reply.fault}", reply.seq))
        if end is not None:
            self._happens(end)
            return
        index = len(reply.ids)
        text = reply.text.push(id)
        reply.ids.append(id)
        self._lay_token(reply, id)
        told = how_likely(likely, self.family.tokenizer)
        self.stream.events.append(Token(reply.id, index, id, text, self.stream.newest, *told))
        stopped = reply.text.stopped
        if stopped is not None:
            self._cut(reply.text.kept(stopped), What.STOP)
        elif len(reply.ids) >= reply.params.max_tokens or self._full():
            self._happens(What.LENGTH)
        elif stays_open and self.stream.layout.format.unit_us and not reply.text.open:
            if reply.since >= self.stream.request.unit_tokens:
                self._happens(What.LAST_OF_UNIT)

    def _happens(self, what: What) -> None:
        """The life of the running reply goes on, as rules.py has it."""
        reply = self.stream.reply
        assert reply is not None
        rule = after(reply.life, what)
        reply.life = rule.life
        match rule.does:
            case Does.TELL if reply.rest_told != len(reply.ids):  # its client is told once for what was said
                reply.rest_told = len(reply.ids)
                reply.guided(self.family.grammars, True)  # what it says next is another value of its grammar
                self.stream.events.append(Resting(reply.id, len(reply.ids)))
            case Does.REDRAW:
                reply.redraw()
        if rule.life is Life.DONE:
            self._finish(reply, rule.does.reason, close=what is not What.QUESTION)

    def _lay_token(self, reply: ReplyState, id: int) -> None:
        rows = self.stream.layout.token(id)
        reply.places.append(self.stream.rows)
        reply.positions.append(int(rows.positions[0, 0]))
        self.stream.lay([rows])

    def _full(self) -> bool:
        """The next token would not leave room for the closing of its turn."""
        closing, next = self.reserve - 1, self.stream.layout.cursor.reply_next
        if self.sliding is not None:
            with suppress(Unfed):
                self.sliding.make_room(closing, next + closing - 1)
        lowest = 0 if self.stream.fronts is None else self.stream.fronts.lowest
        return self.stream.size + closing > self.limits.rows or next + closing - lowest > self.limits.positions

    def _finish(self, reply: ReplyState, reason: str, close: bool) -> None:
        """`close`: its turn is closed here; a question that overtakes it closes it by itself."""
        self.stream.reply = None
        tokens, held = len(reply.ids), (min(self.stream.found, reply.row), self.stream.left_us, reply.row)
        self.stream.events.append(ReplyDone(reply.id, reason, tokens, reply.text.finish(tokens), *held))
        if close:
            self.stream.lay(self.stream.layout.end())
            self.stream.marks.add(reply.seq, self.stream.rows, self.stream.layout)
            if self.sliding is not None and len(self.stream.turns) < self.sliding.pinned_turns:
                self.stream.turns.append(self.stream.rows)

    def _keep(self, reply: ReplyState, at: int | None) -> int:
        """How many tokens stay when a reply is cut after token `at`."""
        return len(reply.ids) if at is None else max(0, min(at + 1, len(reply.ids)))

    def _cut(self, keep: int, what: What) -> None:
        """`what` ends a reply at its first `keep` tokens, or after the first one from which all can be laid again.

        The KV is truncated there; spans after the cut are laid again in order. Where no token goes, nothing does.
        """
        reply = self.stream.reply
        assert reply is not None
        keep = max(keep, reply.least_from(self.stream.least_row))
        if keep < len(reply.ids):
            again = reply.again(keep, self.stream.past)
            row, cursor, behind = reply.cut(keep)
            self.kept.remove(self.stream.cut(row))
            self.stream.layout.back_to(cursor)
            layout = self.stream.layout
            for splice in behind:
                rows = layout.media(splice.input) if isinstance(splice.input, Span) else layout.text(splice.input)
                self.stream.lay(rows)
                self.kept.add(rows)
            self.stream.again = max(self.stream.again, min(again, self.stream.rows))
        self._happens(what)

    def advance(self) -> None:
        """Let inputs act, in order, as far as their spans have come and the conversation allows. One that has a long
        text without ids waits for them (`spelt`)."""
        stream = self.stream
        stream.unspelled = None
        while stream.inputs:
            self._cut_for_words()
            try:
                if not self._act(stream.inputs[0]):
                    return
            except Unfed:
                return
            except Unspelled as unspelled:
                stream.unspelled = unspelled
                return
            self.kept.acted([acted := stream.inputs.popleft()])
            if not acted.asks:
                stream.marks.add(acted.seq, stream.rows, stream.layout)
            if stream.ready:
                stream.ready = {}

    def spelt(self, text: str, behind: bool, ids: list[int] | None) -> None:
        """The ids of a long text; None where the tokenizer refuses it, whose error then refuses the input."""
        ready = self.stream.ready or {}
        self.stream.ready = None if ids is None else {**ready, (text, behind): ids}
        self.advance()
        if ids is None:
            self.stream.ready = {}

    def _cut_for_words(self) -> None:
        """Where the format says so, words cut the running reply when all media before them has come."""
        reply = self.stream.reply
        if reply is not None and (words := words_that_cut(self.stream)) is not None:
            at = words.at if words.reply == reply.id else None  # what was taken of another reply says nothing
            self._cut(self._keep(reply, at), What.INTERRUPT)

    def _act(self, input: Waiting) -> bool:
        """Lay what has come of an input, then the input itself; True when that is done."""
        if isinstance(input.input, PromptInput):
            return self._lay_prompt(input)
        if not self._lay_media(input) or not input.done:
            return False
        self.stream.losses.note(input)
        match input.input:
            case MediaInput():
                return True
            case MediaEnd():
                return self._end_media()
            case words:
                return self._lay_words(input, words)

    def _lay_media(self, input: Waiting) -> bool:
        while input.spans and takes(self.stream, span := input.spans[0], self.between):
            if span.turn is not None:
                newest = span.turn.number >= self.stream.turn  # else somebody has gone on to speak since
                if newest and not self._lay_words(input, question_of(span.turn, input.seq, self.stream.request.params)):
                    return False
                input.spans.popleft()
                continue
            if not len(span.ids):
                self.stream.layout.passes(input.spans.popleft())
                self.stream.marks.shown(span.stop_us)
                continue
            if self.stream.reply is not None and span.clip_fps is not None:  # one video, and no part of what is said
                self._cut(len(self.stream.reply.ids), What.INTERRUPT)
            reply, laid = self.stream.reply, self._lay_span(input, span)
            self.kept.done([input.spans.popleft()])
            if reply is not None and laid:
                self._happens(What.MEDIA)
                reply.splice(span, unit_of(self.stream, span))
            elif reply is not None:
                self._happens(What.MISSED)
                reply.do_without()
        return not input.spans

    def _lay_span(self, input: Waiting, span: Span) -> bool:
        """Lay one span if it fits. The first that does not fit fails its input, with the numbers. Those after it that
        do not fit either are reported as dropped. An image among them still fails its input, since the next question
        is most likely about it. A camera's frames do not: its client knows, and else no question would be asked."""
        try:
            if self.sliding is not None:
                self.sliding.expire(span.stop_us)
            self._lay(lambda layout: layout.media(span))
        except PenstockError as error:
            text = f"{error}; the stream goes on without this {span.modality}; words and questions go in while they fit"
            failed, refused = Error(error.code, text, input.seq), isinstance(error, InputError)
            known = self.stream.media is MediaLife.FULL and not refused
            input.failed = failed if not known or span.modality == "image" else input.failed
            if isinstance(input.input, Question) and not known:
                input.happens(What.REFUSAL)
            full = Dropped(input.seq, span.modality, 1, span.start_us, span.stop_us, "full")
            self.stream.events.append(full if known else failed)
            self.stream.happens_to_media(What.MEDIA if refused else What.MISSED)
            return False
        self.stream.happens_to_media(What.MEDIA)
        self.stream.marks.shown(span.stop_us)
        input.laid = True
        return True

    def _lay_prompt(self, input: Waiting) -> bool:
        prompt = input.prompt
        if prompt is None:
            return input.done
        if self._laid(input.seq, lambda layout: layout.prompt(prompt)):
            self._start(input, input.input)
        return True

    def _lay_words(self, input: Waiting, words: TextInput | Question) -> bool:
        if input.life is Life.REFUSED:
            return True
        reply, layout = self.stream.reply, self.stream.layout
        busy = reply is not None and layout.format.rests and not reply.life.rests
        if layout.step(words.event) is None or mid_character(self.stream) or busy:
            return False
        lost = self.stream.losses.all
        if isinstance(words, Question) and lost is not None and not words.despite:
            self.stream.losses = Losses()
            message = (
                f"input {lost.seq} before this question came to nothing: {lost.message}; ask again to go on without it"
            )
            self.stream.events.append(Error(lost.code, message, input.seq))
        elif not words.text and (isinstance(words, TextInput) or layout.state is not State.USER):
            message = f"{words.event}: expected words, or a question behind media in the open turn; got neither"
            self.stream.events.append(Error("input", message, input.seq))
        elif isinstance(words, TextInput):
            if self._laid(input.seq, lambda layout: layout.text(words.text)) and reply is not None:
                self._happens(What.TEXT)
                reply.splice(words.text)
        elif self._asked(input.seq, words.text):
            if reply is not None:
                self._happens(What.QUESTION)
            self._start(input, words)
        return True

    def _end_media(self) -> bool:
        self.stream.happens_to_media(What.END)
        if self.stream.reply is not None:
            self._happens(What.END)
        return True

    def _asked(self, seq: int, question: str) -> bool:
        row = self.stream.rows
        laid = self._laid(seq, lambda layout: layout.ask(question))
        if laid:
            self.stream.asked = row - self.stream.layout.taken_back
        return laid

    def _laid(self, seq: int, lay: Callable[[Layout], list[Rows]]) -> bool:
        """Lay rows if they fit; else tell the client, with the numbers, and go on without them."""
        try:
            self._lay(lay)
        except PenstockError as error:
            self.stream.events.append(Error(error.code, str(error), seq))
            return False
        return True

    def _lay(self, lay: Callable[[Layout], list[Rows]]) -> None:
        """Raises what `lay_within` does."""
        make_room = None if self.sliding is None else self.sliding.make_room
        self.kept.add(lay_within(self.stream, self.limits, lay, self.reserve, make_room))

    def _start(self, input: Waiting, asked: Input) -> None:
        assert isinstance(asked, Question | PromptInput)
        if isinstance(asked, PromptInput):
            self.stream.begun = Begun(input.seq, self.stream.rows, self.stream.layout.copy())
        self.stream.losses = Losses()
        turn = asked.turn if isinstance(asked, Question) else 0
        self.begin(input.seq, asked.params or self.stream.request.params, turn)
        if after(input.life, What.TURN).life is Life.DONE:
            self._cut(0, What.INTERRUPT)

    def begin(self, seq: int, params: SamplingParams, turn: int = 0) -> None:
        """A reply to input `seq`, or to what was said up to there in this turn, begins after the rows that are laid."""
        stream, family = self.stream, self.family
        stream.replies += 1
        text, cursor = Detokenizer(family.tokenizer, params.stop), stream.layout.cursor.copy()
        ends, own, first = family.stop_ids, family.data.sampling, family.data.first_barred
        stream.reply = ReplyState(stream.replies, seq, params, text, stream.rows, cursor, ends, own, turn, first)
        stream.reply.guided(family.grammars, held := stream.stays_open(params))
        stream.events.append(ReplyStarted(stream.replies, seq, held))
