"""The responses that run, and what the events of their streams make of them. In: `response.create`, events and refusals
of the session. Out: events for the client, and commands.

It knows neither how messages are written nor how sound comes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from ....errors import StreamClosedError
from ....streams.event import Event, ReplyDone, Resting, Token
from ... import commands as c
from ...tool_calls import ReplyPart, TextDelta, ToolCallReader, ToolCallStarted
from .items import RealtimeConversation, RealtimeItem, item_of
from .response import RealtimeResponse
from .settings import RealtimeSettings, check_modalities, check_prompt, checked_choice, checked_tools, forced_call
from .talk import AskedReply, RealtimeTalk
from .usage import ResponseUsage
from .wire import Fault, ReferenceSaid, ResponseSaid, encode, new_id, openai_code

Told = bytes | c.Command
# Where a content part stands in a prompt.
_PART = re.compile(r"messages\[\d+\]\.content\[\d+\]")
# What a response was that ended for one of these reasons.
_STATUS = {"stop": "completed", "length": "incomplete", "interrupted": "cancelled", "overtaken": "cancelled"}


class _Running:
    """A response, and the stream in which its reply runs. `reader`: finds calls of functions in its words; `own`: the
    stream is for this response alone."""

    def __init__(self, response: RealtimeResponse, begun: AskedReply, reader: ToolCallReader | None, own: bool) -> None:
        self.response = response
        self.stream = begun.stream
        self.places = begun.places
        self.reader = reader
        self.own = own
        self.begun = False  # its reply has begun


class Responses:
    """The responses of one connection. Of the conversation at most one runs."""

    def __init__(self, conversation: RealtimeConversation, settings: RealtimeSettings, talk: RealtimeTalk) -> None:
        self._conversation = conversation
        self._settings = settings
        self._talk = talk
        self._conversation_id = new_id("conv")
        self._running: dict[str, _Running] = {}  # by stream
        self._usage: dict[str, ResponseUsage] = {}  # by stream

    @property
    def active(self) -> RealtimeResponse | None:
        """The response of the conversation that runs."""
        return next((one.response for one in self._running.values() if one.response.in_conversation), None)

    def writes(self, item: RealtimeItem) -> bool:
        """Whether a response still writes this item."""
        return any(one.response.at_work_on is item for one in self._running.values())

    # ---- from the client ----
    def create(self, said: ResponseSaid) -> list[Told]:
        """Begin a response. Fault where it cannot be."""
        where = said.conversation or "auto"
        if where not in ("auto", "none"):
            expected = f"response.conversation: expected auto or none, got {where[:40]!r}"
            raise Fault(expected, param="response.conversation")
        if where == "auto" and (active := self.active) is not None:
            raise Fault(
                f"Conversation already has an active response in progress: {active.id}. Wait until the response is "
                "finished before creating a new one.",
                "conversation_already_has_active_response",
            )
        if said.output_modalities is not None:
            check_modalities(said.output_modalities, "response.output_modalities")
        tools = None if said.tools is None else checked_tools(said.tools, "response.tools")
        choice = self._settings.config["tool_choice"]
        if said.tool_choice is not None:
            choice = checked_choice(said.tool_choice, "response.tool_choice")
        if choice == "none":
            tools = []
        elif tools is None:
            tools = self._settings.config["tools"]
        check_prompt(said.prompt, "response.prompt")
        most = self._settings.config["max_output_tokens"] if said.max_output_tokens is None else said.max_output_tokens
        params = self._settings.params(most)
        terms = self._talk.terms(said.instructions, tools)
        params = msgspec.structs.replace(params, structured=forced_call(terms.tools, choice))
        response = self._response(most, said.metadata, where == "auto")
        ref = ("response", response.id)
        items = None if said.input is None else self._input(said)
        own = where == "none" or items is not None
        if own:
            busy = self._talk.name in self._running
            begun = self._talk.aside(terms, params, ref, items, busy)
        else:
            begun = self._talk.ask(terms, params, ref)
        self._begin(response, begun, [tool["name"] for tool in terms.tools], own)
        return [*response.created(), *begun.commands]

    def cancel(self, id: str | None) -> list[Told]:
        """Cut a response; without an id that of the conversation. Fault where none runs."""
        for one in self._running.values():
            if one.response.id == id or (id is None and one.response.in_conversation):
                one.response.cancelled = "client_cancelled"
                return [c.InterruptReply(stream=one.stream)]
        raise Fault("Cancellation failed: no active response found", "response_cancel_not_active")

    def cut_aside(self) -> list[Told]:
        """Speech cuts the response of the conversation that runs in a stream of its own; of the others their stream
        knows."""
        aside = (one for one in self._running.values() if one.own and one.response.in_conversation)
        return [c.InterruptReply(stream=one.stream) for one in aside]

    def began_by_itself(self) -> list[Told]:
        """The stream of the conversation has begun a reply that nobody has asked for by `response.create`."""
        assert self._talk.name is not None
        response = self._response(self._settings.config["max_output_tokens"], None, True)
        names = [tool["name"] for tool in self._talk.terms().tools]
        self._begin(response, AskedReply(self._talk.name, [], None), names, False)
        return list(response.created())

    def _response(self, most: int | str, metadata: dict[str, str] | None, in_conversation: bool) -> RealtimeResponse:
        conversation = self._conversation if in_conversation else None
        return RealtimeResponse(conversation, self._conversation_id, most, metadata, self._settings.tells_seen)

    def _begin(self, response: RealtimeResponse, begun: AskedReply, tools: list[str], own: bool) -> None:
        reader = ToolCallReader(tools, lambda _: new_id("call")) if tools else None
        self._running[begun.stream] = _Running(response, begun, reader, own)
        if begun.prompt is not None:
            self._usage[begun.stream] = ResponseUsage(begun.prompt)
        elif own and self._talk.name in self._usage:
            self._usage[begun.stream] = copy.deepcopy(self._usage[self._talk.name])

    def _input(self, said: ResponseSaid) -> list[RealtimeItem]:
        """The items to which a response alone is."""
        found: list[RealtimeItem] = []
        for item in said.input or ():
            if isinstance(item, ReferenceSaid):
                found.append(self._conversation.needed(item.id, "item_not_found", "response.input"))
            else:
                found.append(item_of(item, self._settings.sound))
        return found

    # ---- from the session ----
    def runs(self, stream: str) -> bool:
        return stream in self._running

    def event(self, stream: str, event: Event) -> Iterator[Told]:
        """An event of a stream."""
        self._usage.setdefault(stream, ResponseUsage()).note(event)
        one = self._running.get(stream)
        if one is None:
            return
        match event:
            case Token(text=text, seen=seen):
                one.begun = True
                parts: list[ReplyPart] = [TextDelta(text)] if one.reader is None else one.reader.feed(text)
                yield from self._write(one, parts, seen)
            case Resting(tokens=tokens) if self._settings.holds:
                yield encode("penstock.response.rest", response_id=one.response.id, tokens=tokens)
            case ReplyDone():
                yield from self._done(one, event)

    def _write(self, one: _Running, parts: list[ReplyPart], seen: Any = None) -> Iterator[bytes]:
        response = one.response
        for part in parts:
            count = len(response.items)
            if isinstance(part, TextDelta):
                yield from response.words(part.text, seen)
            elif isinstance(part, ToolCallStarted):
                yield from response.called(part.id, part.name)
            else:
                yield from response.arguments(part.text)
            if len(response.items) > count and not one.own:
                self._talk.hold(response.items[-1])

    def _done(self, one: _Running, done: ReplyDone) -> Iterator[Told]:
        response = one.response
        if one.reader is None:
            response.cut(done.tokens)
        parts: list[ReplyPart] = []
        if one.reader is None and (done.text or (done.reason == "stop" and not response.items)):
            parts = [TextDelta(done.text)]
        elif one.reader is not None:
            parts = [*one.reader.feed(done.text), *one.reader.end()]
        yield from self._write(one, parts)
        usage = self._usage[one.stream].of(done)
        status = _STATUS.get(done.reason, "failed")
        match status:
            case "completed":
                details = None
            case "incomplete":
                details = {"type": status, "reason": "max_output_tokens"}
            case "cancelled":
                reason = "turn_detected" if done.reason == "overtaken" else response.cancelled
                details = {"type": status, "reason": reason}
            case _:
                details = {"type": status, "error": {"type": "server_error", "code": "internal"}}
        yield from self._end(one, status, details, usage)

    def item_at(self, stream: str, message: str) -> str | None:
        """The item that an error of a stream's prompt names by its place."""
        one, found = self._running.get(stream), _PART.match(message)
        return None if one is None or found is None else one.places.get(found[0])

    def fail(self, stream: str, code: str, message: str) -> Iterator[Told]:
        """The reply of a stream comes to nothing."""
        one = self._running.get(stream)
        if one is not None:
            kind = "server_error" if code == "internal" else "invalid_request_error"
            details = {"type": "failed", "error": {"type": kind, "code": openai_code(code), "message": message}}
            yield from self._end(one, "failed", details, None)

    def lost(self, stream: str, message: str = "") -> Iterator[Told]:
        """A stream has ended."""
        self._talk.lost(stream)
        yield from self.fail(stream, StreamClosedError.code, message or "the stream has ended")
        self._usage.pop(stream, None)

    def _end(
        self, one: _Running, status: str, details: dict[str, Any] | None, usage: dict[str, Any] | None
    ) -> Iterator[Told]:
        del self._running[one.stream]
        yield from one.response.end_item("completed" if status == "completed" else "incomplete")
        yield from one.response.done(status, details, usage)
        if one.own:
            yield c.CloseStream(stream=one.stream, ref=("close", None))
