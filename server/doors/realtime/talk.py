"""The streams of one Realtime connection: which items the KV cache holds, and what a stream is told so that a response
has all that is before it. In: the conversation and the settings. Out: commands of the session.

One stream holds the conversation. What the user says and shows is appended to it as it comes. Where the past is changed
(an item deleted or put in between, other instructions, a turn that the client brings) the cache does not hold the
conversation any more: the next response begins a new stream with all of it, whose words the prefix cache may have. So
what the model sees is always the conversation as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from ....streams.item import AudioChunk, Item
from ....streams.requests.request import Request, SamplingParams
from ....streams.requests.turns import TurnDetection
from ....streams.requests.window import Window
from ... import commands as c
from .items import RealtimeConversation, RealtimeItem, messages_of, opening
from .settings import RealtimeSettings


class Terms(NamedTuple):
    """What a stream is opened with, beside the conversation. A stream of another one does not serve a response."""

    instructions: str
    tools: list[dict[str, Any]]
    format: str
    whole: bool
    adapter: str | None = None

    def request(self, system: str | None, **fields: Any) -> Request:
        """The request of such a stream."""
        tools = {"tools": [_for_template(tool) for tool in self.tools]} if self.tools else {}
        window = None if self.whole else Window()
        return Request(system=system, format=self.format, window=window, adapter=self.adapter, **tools, **fields)


class AskedReply(NamedTuple):
    """The stream in which a response is to begin, and how it is brought there. `prompt`: the kinds of the media that
    come with its prompt; None: the stream goes on. `places`: the ids of items, by where they stand in the prompt."""

    stream: str
    commands: list[c.Command]
    prompt: list[str] | None
    places: Mapping[str, str] = MappingProxyType({})


class RealtimeTalk:
    """The stream that holds the conversation, and those beside it for responses of their own."""

    def __init__(self, conversation: RealtimeConversation, settings: RealtimeSettings) -> None:
        self._conversation = conversation
        self._settings = settings
        self._numbers = itertools.count(1)
        self.name: str | None = None
        self._terms: Terms | None = None
        self._params: SamplingParams | None = None  # how a reply is drawn that the stream begins by itself
        self._held: list[str] = []  # ids of the items in the cache, in their order
        self._in_step = -1  # the revision of the conversation of which the next is known
        self._reached = 0  # its first so many items are those, or came to nothing
        self._left_behind = -1  # the revision of the conversation that the stream cannot go on to hold
        self.dirty = False  # the cache holds what is not in the conversation
        self.detection: TurnDetection | None = None  # what the client wants to be listened for
        self._listens: TurnDetection | None = None  # what the stream listens for

    def terms(self, instructions: str | None = None, tools: list[dict[str, Any]] | None = None) -> Terms:
        """What the settings ask for, or a response for itself."""
        settings = self._settings
        said = settings.instructions if instructions is None else instructions
        return Terms(
            said, settings.tools if tools is None else tools, settings.format, settings.whole, settings.adapter
        )

    def fresh(self) -> bool:
        """Whether the stream holds the conversation and draws replies as the session says, so that a reply which it
        begins by itself is one to it."""
        return self._rest(self.terms()) == [] and self._params == self._settings.own_params

    def keep_up(self, event_id: str | None = None) -> list[c.Command]:
        """Append what the user has said and shown since; open the stream at the first of it."""
        terms, commands = self.terms(), list[c.Command]()
        if self.name is None and self._conversation.plain and not terms.tools:
            items = self._items()
            system, rest = opening(terms.instructions, items)
            if rest and all(item.appends for item in rest):
                commands.append(self._open(terms, self._alone(terms, system), ("open", event_id)))
                self._hold_all(items[: len(items) - len(rest)])
        return commands + self._append(self._rest(terms) or [])

    def ask(self, terms: Terms, params: SamplingParams, ref: Any) -> AskedReply:
        """Begin a response to the conversation. Fault where it needs media that is no longer kept."""
        rest = self._rest(terms)
        if self.name is not None and rest is not None and self._user_speaks():
            question = c.AskQuestion(stream=self.name, params=params, ref=ref)
            return AskedReply(self.name, [*self._append(rest), question], None)
        items = self._items()
        request, places = _prompt(terms, items, params)
        commands = [*self.leave(), self._open(terms, request, ref)]
        self._hold_all(items)
        assert self.name is not None
        return AskedReply(self.name, commands, _media_kinds(items), places)

    def aside(
        self, terms: Terms, params: SamplingParams, ref: Any, items: Sequence[RealtimeItem] | None, busy: bool
    ) -> AskedReply:
        """Begin a response in a stream of its own: to these items, or to the conversation as it is. Then it is a copy
        of the conversation's stream, unless a reply runs there (`busy`) or the past was changed."""
        name, rest = f"talk {next(self._numbers)}", self._rest(terms)
        if items is None and self.name is not None and rest is not None and self._user_speaks() and not busy:
            fork = c.ForkStream(stream=self.name, copy=name, ref=ref)
            question = c.AskQuestion(stream=name, params=params, ref=ref)
            return AskedReply(name, [*self._append(rest), fork, question], None)
        shown = self._items() if items is None else items
        request, places = _prompt(terms, shown, params)
        opened = c.OpenStream(stream=name, request=request, ref=ref)
        return AskedReply(name, [opened], _media_kinds(shown), places)

    def hold(self, item: RealtimeItem) -> None:
        """A response in the stream writes this item, which is in the conversation."""
        before = self._conversation.before(item)
        if self._held and self._held[-1] == before:
            self._hold_last(item)
            return
        self._in_step = self._left_behind = -1
        self._held.insert(self._held.index(before) + 1 if before in self._held else 0, item.id)

    # ---- sound that is heard as it comes ----
    def hear(self, sound: AudioChunk, event_id: str | None = None) -> list[c.Command]:
        """Append sound in which the stream listens for speech. Where it cannot hold the conversation yet, since that
        has turns which only a prompt can have, a stream listens that holds nothing else."""
        commands: list[c.Command] = []
        if self.name is None:
            terms = self.terms()._replace(tools=[])
            opened = self._alone(terms, terms.instructions or None)
            commands.append(self._open(terms, opened, ("open", event_id)))
            self._hold_all([])
            self.dirty = len(self._conversation) > 0
        if self._listens is None:
            commands += self.listen()
        return [*commands, self.append(sound, len(sound.data), ("sound", event_id))]

    def heard(self, item: RealtimeItem) -> None:
        """The stream has what was said, which is an item of the conversation now: its last."""
        self._hold_last(item)

    def _hold_last(self, item: RealtimeItem) -> None:
        """The stream has this item behind all others that it has."""
        if self._reached + 1 != len(self._conversation):
            self._in_step = self._left_behind = -1
        self._held.append(item.id)
        self._reached += 1

    def failed(self, item: RealtimeItem) -> None:
        """The media of an item came to nothing. Where it has more than that, the stream holds what the conversation has
        not."""
        self._conversation.fail(item)
        self.dirty |= len(item.pieces) > 1

    def listen(self) -> list[c.Command]:
        """Let the stream listen for what is wanted. While it does not hold the conversation it does not reply by
        itself."""
        wanted = self._wanted()
        if self.name is None or wanted == self._listens:
            return []
        self._listens = wanted
        return [c.Listen(stream=self.name, turn_detection=wanted, ref=("listen", None))]

    def _wanted(self) -> TurnDetection | None:
        wanted = self.detection
        if wanted is None or not wanted.respond or self.fresh():
            return wanted
        return msgspec.structs.replace(wanted, respond=False)

    @property
    def replies_by_itself(self) -> bool:
        """Whether the stream asks when speech has stopped."""
        return self._listens is not None and self._listens.respond

    def lost(self, stream: str) -> None:
        """A stream has ended."""
        if stream == self.name:
            self.name = None

    def leave(self) -> list[c.Command]:
        """Close the stream that holds the conversation, if there is one."""
        if self.name is None:
            return []
        name, self.name = self.name, None
        return [c.CloseStream(stream=name, ref=("close", None))]

    def _rest(self, terms: Terms) -> list[RealtimeItem] | None:
        """The items that the stream has yet to get; None: it cannot go on to hold the conversation."""
        conversation = self._conversation
        if self.name is None or self.dirty or terms != self._terms or self._left_behind == conversation.revision:
            return None
        if self._in_step != conversation.revision and not self._find_step():
            rest = None
        else:
            rest = [item for item in conversation.newest(len(conversation) - self._reached) if not item.failed]
            rest = rest if all(item.appends for item in rest) else None
        if rest is None:
            self._left_behind = conversation.revision
        return rest

    def _find_step(self) -> bool:
        """Whether the conversation begins with what the stream holds; looks at all of it."""
        conversation = self._conversation
        self._held = [id for id in self._held if (one := conversation.find(id)) is None or not one.failed]
        items = self._items()
        if [item.id for item in items[: len(self._held)]] != self._held:
            return False
        left = {item.id for item in items[len(self._held) :]}
        behind = sum(1 for _ in takewhile(lambda item: item.failed or item.id in left, reversed(conversation)))
        self._in_step, self._reached = conversation.revision, len(conversation) - behind
        return True

    def _user_speaks(self) -> bool:
        """Whether the newest is what the user has said or shown, so that a reply can go on from there."""
        newest = next((item for item in reversed(self._conversation) if not item.failed), None)
        return newest is not None and newest.appends

    def _items(self) -> list[RealtimeItem]:
        """The conversation, without what came to nothing."""
        return [item for item in self._conversation if not item.failed]

    def _hold_all(self, items: Iterable[RealtimeItem]) -> None:
        """The stream holds these items and no others."""
        self._held = [item.id for item in items]
        self._in_step = self._left_behind = -1

    def _alone(self, terms: Terms, system: str | None) -> Request:
        """The request of a stream that begins with no prompt but the system's."""
        return terms.request(system, params=self._settings.own_params or SamplingParams())

    def _append(self, items: Iterable[RealtimeItem]) -> list[c.Command]:
        commands: list[c.Command] = []
        for item in items:
            self._held.append(item.id)
            for piece in item.pieces:
                ref = ("words" if piece.kind == "text" else "item", item.id)
                commands.append(self.append(piece.item(), len(piece.data), ref))
            self._reached = len(self._conversation)
        return commands

    def append(self, item: Item, size: int, ref: Any = None) -> c.Command:
        """Append to the stream, which is open."""
        assert self.name is not None
        return c.AppendItem(stream=self.name, item=item, size=size, ref=ref)

    def _open(self, terms: Terms, request: Request, ref: Any = None) -> c.Command:
        self.name, self._terms, self.dirty = f"talk {next(self._numbers)}", terms, False
        self._params = request.params
        self._listens = None
        return c.OpenStream(stream=self.name, request=request, ref=ref)


def _prompt(terms: Terms, items: Sequence[RealtimeItem], params: SamplingParams) -> tuple[Request, Mapping[str, str]]:
    """The request of a stream that begins with a response to these items, and where each of them is in it."""
    system, rest = opening(terms.instructions, items)
    messages, places = messages_of(rest)
    if messages:
        return terms.request(system, messages=messages, params=params), places
    first = {"role": "system", "content": system} if system else {"role": "user", "content": ""}
    return terms.request(None, messages=[first], params=params), places


def _media_kinds(items: Iterable[RealtimeItem]) -> list[str]:
    return [piece.kind for item in items for piece in item.pieces if piece.kind != "text"]


def _for_template(tool: dict[str, Any]) -> dict[str, Any]:
    """A function as chat templates write it."""
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
