"""The door `/v1/responses`: one request of OpenAI's responses to commands of a session, its answers to events or to one
body. The server keeps no responses: each request brings its whole conversation.

In come a request's body and the answers of its session; out go `Command`s and JSON. Knows neither sockets nor the
engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ...streams.requests.request import Request
from .. import commands as c
from ..answer import adapter_names, model_name
from ..config import ServerConfig
from ..errors import MessageError
from ..openai_form import reply_form
from ..openai_inputs import conversation_of, tools_of
from ..openai_messages import checked_messages, checked_tools
from ..openai_output import ResponseOutput
from ..openai_params import DEFAULT_TOKENS, Drawing, sampling
from ..openai_replies import Began, Ended, PartSaid, Replies
from ..openai_words import Failure, RequestBody, RequestMark, at_place, at_places, named_model, read_body, sse
from ..tool_calls import ToolCallReader

if TYPE_CHECKING:
    from ...actors.info import EngineInfo

_KEPT = "this server keeps no responses: send the whole conversation as input"
_REFUSES = {
    "previous_response_id": _KEPT,
    "conversation": _KEPT,
    "background": _KEPT,
    "prompt": "this server keeps no prompts",
    "include": "this server has nothing to add to a response",
    "reasoning": "this server does not change how long a model thinks",
    "max_tool_calls": "this server runs no tools",
}


class TextOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What the text of a response has to be."""

    format: dict[str, Any] | None = None


class ResponseBody(msgspec.Struct, kw_only=True):
    """The body of `/v1/responses`."""

    input: str | list[Any]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: TextOptions | None = None
    tools: list[Any] = []
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    truncation: str = "disabled"
    stream: bool = False


class ResponsesDoor:
    """One request. `MessageError` where its body is refused."""

    media_type = "application/json"

    def __init__(self, info: EngineInfo, config: ServerConfig, body: RequestBody, mark: RequestMark) -> None:
        asked = read_body(body.data, ResponseBody, _REFUSES)
        model, adapter = named_model(asked.model, model_name(info.model), adapter_names(info))
        if asked.truncation != "disabled":
            raise MessageError(
                f"truncation: expected 'disabled', got {asked.truncation!r:.40}: what does not fit is refused",
                "truncation",
            )
        self.streams = asked.stream
        request, self._places = _request(asked, info, adapter)
        names = [tool["function"]["name"] for tool in request.tools]

        def reader(choice: int) -> ToolCallReader:
            most = None if asked.parallel_tool_calls else 1
            return ToolCallReader(names, lambda call: f"call_{mark.id}{call:02d}", most)

        self._size = len(body.data)
        self._replies = Replies([request], 1, reader if names else None)
        self._output = ResponseOutput(mark.id)
        self._sequence = 0
        self._response: dict[str, Any] = {
            "id": f"resp_{mark.id}",
            "object": "response",
            "created_at": mark.created,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": model,
            "output": [],
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": [{"parameters": None, "strict": False, **tool} for tool in asked.tools],
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None,
            "metadata": {},
        }

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._replies.done

    @property
    def failure(self) -> Failure | None:
        """What has come between."""
        failure = self._replies.failure
        if failure is None:
            return None
        error = failure.body["error"]
        if error["param"] == "response_format":  # as chats call it
            error["param"] = "text.format"
        return at_places(failure, self._places)

    def greet(self) -> Iterator[c.Command]:
        """What the session is to do."""
        return self._replies.open(self._size)

    def tell(self, answer: c.Answer) -> Iterator[bytes | c.Command]:
        """What follows from an answer of the session: events, where the client wants them."""
        for happened in self._replies.take(answer):
            match happened:
                case Began():
                    events = [{"type": f"response.{name}", "response": self._response} for name in _BEGINNING]
                case PartSaid(part=part):
                    events = list(self._output.take(part))
                case Ended(reason=reason):
                    events = list(self._output.end(complete=reason == "stop"))
                    self._finish(reason)
                case _:
                    continue
            if self.streams:
                yield from map(self._event, events)

    def end(self) -> Iterator[bytes]:
        """The last event: the whole response, or why it is broken off."""
        failure = self.failure
        if failure is not None:
            error = failure.body["error"]
            yield self._event({"type": "error", **{name: error[name] for name in ("code", "message", "param")}})
            return
        yield self._event({"type": f"response.{self._response['status']}", "response": self._response})

    def body(self) -> bytes:
        """The whole answer."""
        return msgspec.json.encode(self._response)

    def _event(self, event: dict[str, Any]) -> bytes:
        self._sequence += 1
        return sse({**event, "sequence_number": self._sequence - 1}, event["type"])

    def _finish(self, reason: str) -> None:
        replies = self._replies
        self._response |= {
            "status": "completed" if reason == "stop" else "incomplete",
            "incomplete_details": None if reason == "stop" else {"reason": "max_output_tokens"},
            "output": self._output.items,
            "usage": {
                "input_tokens": replies.rows,
                "input_tokens_details": {"cached_tokens": replies.cached, "cache_write_tokens": 0},
                "output_tokens": replies.tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": replies.rows + replies.tokens,
            },
        }


_BEGINNING = ("created", "in_progress")


def _request(asked: ResponseBody, info: EngineInfo, adapter: str | None) -> tuple[Request, list[str]]:
    """The request, and where in the body each of its messages came from."""
    tools, choice = checked_tools(tools_of(asked.tools), asked.tool_choice)
    form = reply_form(asked.text.format if asked.text else None, "text.format", tools, choice)
    given, places = conversation_of(asked.input, asked.instructions)
    try:
        messages = checked_messages(given, bool(info.modalities))
    except MessageError as error:
        raise MessageError(at_place(str(error), places), at_place(error.path or "", places) or None) from None
    most = DEFAULT_TOKENS if asked.max_output_tokens is None else asked.max_output_tokens
    drawing = Drawing(temperature=asked.temperature, top_p=asked.top_p)
    one_call = bool(tools) and form is None and not asked.parallel_tool_calls
    params = sampling(drawing, most, "max_output_tokens", form=form, one_call=one_call)
    return Request(messages=messages, tools=tools, adapter=adapter, params=params), places
