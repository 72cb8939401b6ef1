"""The door `/v1/completions`: OpenAI's older interface, in which a prompt is text and not a conversation.

In come a request's body and the answers of its session; out go `Command`s and JSON. Knows neither sockets nor the
engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ...streams.event import Token
from ...streams.requests.prompt import MADE_ELSEWHERE
from ...streams.requests.request import Request
from .. import commands as c
from ..answer import adapter_names, model_name
from ..config import ServerConfig
from ..errors import MessageError
from ..openai_params import Drawing, check_number, sampling
from ..openai_replies import Ended, PartSaid, Replies, Whole
from ..openai_words import DONE, Failure, RequestBody, RequestMark, finish_reason, named_model, read_body, sse, usage
from ..tool_calls import TextDelta

if TYPE_CHECKING:
    from ...actors.info import EngineInfo

_REFUSES = {"suffix": "this server does not fill in between", "best_of": "this server does not rank replies; use n"}
_MOST_TOKENS = 16  # OpenAI's own default here


class CompletionStreamOptions(msgspec.Struct):
    """How an answer is streamed."""

    include_usage: bool | None = None


class CompletionBody(Drawing, kw_only=True):
    """The body of `/v1/completions`. `prompt`: one text or its token ids, or several of them. `prompt_embeds`, in its
    place: the embeddings of a prompt, a safetensors file in base64, or several of them."""

    prompt: str | list[Any] | None = None
    prompt_embeds: str | list[str] | None = None
    echo: bool = False
    logprobs: int | None = None
    stream_options: CompletionStreamOptions | None = None


class CompletionsDoor:
    """One request. `MessageError` where its body is refused."""

    media_type = "application/json"

    def __init__(self, info: EngineInfo, config: ServerConfig, body: RequestBody, mark: RequestMark) -> None:
        self._mark = mark
        asked = read_body(body.data, CompletionBody, _REFUSES)
        self._model, adapter = named_model(asked.model, model_name(info.model), adapter_names(info))
        prompts = _prompts(asked)
        check_number(asked, len(prompts), config.max_streams)
        most = _MOST_TOKENS if asked.max_tokens is None else asked.max_tokens
        params = sampling(asked, most, "max_tokens", asked.logprobs, "logprobs")
        fields = {"cache_salt": asked.cache_salt, "adapter": adapter, "params": params}
        requests = [Request(**_given(prompt), **fields) for prompt in prompts]
        self.streams = asked.stream
        self._counts = bool(asked.stream_options and asked.stream_options.include_usage)
        self._logprobs = asked.logprobs is not None
        self._said_before = [_echoed(asked, prompt) for prompt in prompts for _ in range(asked.n)]
        self._size = len(body.data)
        self._replies = Replies(requests, asked.n)
        self._whole = [Whole() for _ in self._said_before]
        self._offsets = [len(text) for text in self._said_before]
        self._begun: set[int] = set()

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
            match happened:
                case c.ForkStream():
                    yield happened
                case PartSaid(choice=number, part=TextDelta(text), token=token) if self.streams:
                    yield self._chunk(number, self._first(number) + text, token)
                case Ended(choice=number, reason=reason) if self.streams:
                    yield self._chunk(number, self._first(number), None, finish_reason(reason))
                case PartSaid() | Ended():
                    self._whole[happened.choice].take(happened)

    def end(self) -> Iterator[bytes]:
        """The last chunks: what the answer has cost, or why it is broken off."""
        if self.failure is not None:
            yield sse(self.failure.body)
            return
        if self._counts:
            yield sse({**self._head(), "choices": [], "usage": self._usage()})
        yield DONE

    def body(self) -> bytes:
        """The whole answer."""
        choices = []
        for number, whole in enumerate(self._whole):
            text, logprobs = self._said_before[number] + whole.text, self._likely(number, whole.tokens)
            reason = finish_reason(whole.reason)
            choices.append({"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason})
        return msgspec.json.encode({**self._head(), "choices": choices, "usage": self._usage()})

    def _first(self, number: int) -> str:
        """The prompt, before the first piece of a reply that repeats it."""
        if number in self._begun:
            return ""
        self._begun.add(number)
        return self._said_before[number]

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self._mark.id}",
            "object": "text_completion",
            "created": self._mark.created,
            "model": self._model,
        }

    def _usage(self) -> dict[str, Any]:
        replies = self._replies
        return usage(replies.rows, replies.tokens, replies.cached)

    def _chunk(self, number: int, text: str, token: Token | None = None, reason: str | None = None) -> bytes:
        logprobs = None if token is None else self._likely(number, [token])
        choice = {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head(), "choices": [choice]}
        return sse({**chunk, "usage": None} if self._counts else chunk)

    def _likely(self, number: int, tokens: list[Token]) -> dict[str, Any] | None:
        """The tokens of a reply, or of the next piece of one, in the older form."""
        if not self._logprobs:
            return None
        offsets, words = [], []
        for token in tokens:
            texts = {id: text for id, text, _ in token.top_logprobs}
            offsets.append(self._offsets[number])
            words.append(texts.get(token.id, token.text))
            self._offsets[number] += len(token.text)
        return {
            "tokens": words,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{text: logprob for _, text, logprob in token.top_logprobs} for token in tokens],
            "text_offset": offsets,
        }


class Embedded(msgspec.Struct, frozen=True):
    """A prompt of which there are embeddings alone: a file in base64."""

    rows: str


def _prompts(asked: CompletionBody) -> list[str | list[int] | Embedded]:
    """The prompts of a request: a text is one, and so is a list of token ids."""
    if (asked.prompt is None) == (asked.prompt_embeds is None):
        got = "neither" if asked.prompt is None else "both"
        raise MessageError(f"prompt: expected one of prompt and prompt_embeds, got {got}", "prompt")
    if asked.prompt_embeds is not None:
        files = [asked.prompt_embeds] if isinstance(asked.prompt_embeds, str) else asked.prompt_embeds
        if not files:
            raise MessageError(
                "prompt_embeds: expected at least one safetensors file in base64, got none", "prompt_embeds"
            )
        return [Embedded(file) for file in files]
    given = asked.prompt
    if isinstance(given, str):
        return [given]
    each = [given] if given and all(isinstance(value, int) for value in given) else given
    prompts: list[Any]
    try:
        prompts = msgspec.convert(each, list[str | list[int]])
    except msgspec.ValidationError:
        prompts = []
    if not prompts:
        raise MessageError("prompt: expected text or token ids, or a list of them, got something else", "prompt")
    return prompts


def _given(prompt: str | list[int] | Embedded) -> dict[str, Any]:
    """The fields of its request."""
    match prompt:
        case str():
            return {"prompt": prompt}
        case Embedded(rows):
            part = {"type": "embedding", "kind": "text", "embedding": rows}
            return {"prompt_ids": [MADE_ELSEWHERE], "media": [part]}
        case _:
            return {"prompt_ids": prompt}


def _echoed(asked: CompletionBody, prompt: str | list[int] | Embedded) -> str:
    """What stands before a reply that repeats its prompt."""
    if not asked.echo:
        return ""
    if asked.logprobs is not None or not isinstance(prompt, str):
        raise MessageError("echo: expected a prompt of text and no logprobs beside it, got others", "echo")
    return prompt
