"""The door `/v1/chat/completions`: one request of OpenAI's chats to commands of a session, its answers to chunks or to
one body.

In come a request's body and the answers of its session; out go `Command`s and JSON. Knows neither sockets nor the
engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ...streams.event import Token
from ...streams.requests.request import Request
from .. import commands as c
from ..answer import adapter_names, model_name
from ..config import ServerConfig
from ..errors import MessageError
from ..openai_form import reply_form
from ..openai_messages import checked_messages, checked_tools
from ..openai_params import DEFAULT_TOKENS, Drawing, check_number, sampling
from ..openai_replies import Began, Ended, Happened, PartSaid, Replies, Whole
from ..openai_words import DONE, Failure, RequestBody, RequestMark, finish_reason, named_model, read_body, sse, usage
from ..tool_calls import TextDelta, ToolCallArguments, ToolCallReader, ToolCallStarted

if TYPE_CHECKING:
    from ...actors.info import EngineInfo

_REFUSES = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "replies are text",
    "web_search_options": "this server searches nothing",
    "reasoning_effort": "this server does not change how long a model thinks",
}


class StreamOptions(msgspec.Struct):
    """How an answer is streamed; what else clients say here does not change it."""

    include_usage: bool | None = None


class ChatBody(Drawing, kw_only=True):
    """The body of `/v1/chat/completions`."""

    messages: list[Any]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] = []
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    modalities: tuple[str, ...] = ("text",)
    stream_options: StreamOptions | None = None
    mm_processor_kwargs: dict[str, bool | int | float] = {}


class ChatDoor:
    """One request. `MessageError` where its body is refused."""

    media_type = "application/json"

    def __init__(self, info: EngineInfo, config: ServerConfig, body: RequestBody, mark: RequestMark) -> None:
        self._mark = mark
        asked = read_body(body.data, ChatBody, _REFUSES)
        named = named_model(asked.model, model_name(info.model), adapter_names(info))
        self._model = named.model
        check_number(asked, 1, config.max_streams)
        self.streams = asked.stream
        self._counts = bool(asked.stream_options and asked.stream_options.include_usage)
        self._logprobs, self._most = asked.logprobs, asked.top_logprobs or 0
        request = _request(asked, info, named.adapter)
        names = [tool["function"]["name"] for tool in request.tools]

        def reader(choice: int) -> ToolCallReader:
            most = None if asked.parallel_tool_calls else 1
            return ToolCallReader(names, lambda call: f"call_{mark.id}{choice:02d}{call:02d}", most)

        self._size = len(body.data)
        self._replies = Replies([request], asked.n, reader if names else None)
        self._whole = [Whole() for _ in range(asked.n)]
        self._began: set[int] = set()

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._replies.done

    @property
    def failure(self) -> Failure | None:
        """What has come between."""
        return self._replies.failure

    def greet(self) -> Iterator[c.Command]:
        """What the session is to do."""
        return self._replies.open(self._size)

    def tell(self, answer: c.Answer) -> Iterator[bytes | c.Command]:
        """What follows from an answer of the session: commands, and where the client wants them, chunks."""
        for happened in self._replies.take(answer):
            if isinstance(happened, c.ForkStream | c.OpenStream):
                yield happened
            elif not isinstance(happened, Began | PartSaid | Ended):
                continue
            elif self.streams:
                yield from self._chunks(happened)
            else:
                self._whole[happened.choice].take(happened)

    def end(self) -> Iterator[bytes]:
        """The last chunks: what the answer has cost, or why it is broken off."""
        if self.failure is not None:
            yield sse(self.failure.body)
            return
        if self._counts:
            yield sse({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        yield DONE

    def body(self) -> bytes:
        """The whole answer."""
        choices = [self._choice(number, whole) for number, whole in enumerate(self._whole)]
        answer = {**self._head("chat.completion"), "choices": choices, "usage": self._usage()}
        return msgspec.json.encode(answer)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._mark.id}",
            "object": kind,
            "created": self._mark.created,
            "model": self._model,
        }

    def _usage(self) -> dict[str, Any]:
        replies = self._replies
        return usage(replies.rows, replies.tokens, replies.cached)

    def _chunks(self, happened: Happened) -> Iterator[bytes]:
        number = happened.choice
        match happened:
            case Began():
                if number not in self._began:
                    self._began.add(number)
                    yield self._chunk(number, {"role": "assistant", "content": ""})
            case PartSaid(part=TextDelta(text), token=token):
                yield self._chunk(number, {"content": text}, token)
            case PartSaid(part=ToolCallStarted(index, id, name), token=token):
                call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                yield self._chunk(number, {"tool_calls": [call]}, token)
            case PartSaid(part=ToolCallArguments(index, text), token=token):
                call = {"index": index, "function": {"arguments": text}}
                yield self._chunk(number, {"tool_calls": [call]}, token)
            case Ended(reason=reason):
                reason = finish_reason(reason, bool(self._replies.calls(number)))
                yield self._chunk(number, {}, None, reason)

    def _chunk(
        self, number: int, delta: dict[str, Any], token: Token | None = None, reason: str | None = None
    ) -> bytes:
        logprobs = None
        if self._logprobs and token is not None:
            logprobs = {"content": [_likely(token, self._most)], "refusal": None}
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return sse({**chunk, "usage": None} if self._counts else chunk)

    def _choice(self, number: int, whole: Whole) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": whole.text, "refusal": None}
        if whole.calls:
            message["content"] = whole.text or None
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for call in whole.calls
            ]
        likely = [_likely(token, self._most) for token in whole.tokens]
        logprobs = {"content": likely, "refusal": None} if self._logprobs else None
        reason = finish_reason(whole.reason, bool(whole.calls))
        return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": reason}


def _request(asked: ChatBody, info: EngineInfo, adapter: str | None) -> Request:
    limit = "max_tokens" if asked.max_completion_tokens is None else "max_completion_tokens"
    most = getattr(asked, limit)
    if asked.top_logprobs is not None and not asked.logprobs:
        raise MessageError("logprobs: expected true beside top_logprobs, got false", "logprobs")
    if asked.modalities != ("text",):
        raise MessageError(
            f"modalities: expected ['text'], got {list(asked.modalities)}: replies are text", "modalities"
        )
    tools, choice = checked_tools(asked.tools, asked.tool_choice)
    form = reply_form(asked.response_format, "response_format", tools, choice)
    return Request(
        messages=checked_messages(asked.messages, bool(info.modalities)),
        tools=tools,
        processor=asked.mm_processor_kwargs,
        cache_salt=asked.cache_salt,
        adapter=adapter,
        params=sampling(
            asked,
            DEFAULT_TOKENS if most is None else most,
            limit,
            (asked.top_logprobs or 1) if asked.logprobs else None,
            form=form,
            one_call=bool(tools) and form is None and not asked.parallel_tool_calls,
        ),
    )


def _likely(token: Token, most: int) -> dict[str, Any]:
    """A token with its log probability, and at most so many of the likeliest in its place."""
    texts = {id: text for id, text, _ in token.top_logprobs}
    top = [_entry(text, logprob) for _, text, logprob in token.top_logprobs[:most]]
    return {**_entry(texts.get(token.id, token.text), token.logprob or 0.0), "top_logprobs": top}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
