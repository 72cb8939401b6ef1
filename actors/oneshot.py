"""Whole replies, one or several, to the prompt of a request. In: whatever opens streams, an engine or a connection to
one, and the request. Out: texts. Streams are opened, used and closed here; who cancels leaves none behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

import msgspec

from ..errors import InputError
from ..streams.requests.request import Request, SamplingParams


class StreamOpener(Protocol):
    """What opens streams."""

    async def stream(self, request: Request) -> Any:
        """A new stream, also an async context manager."""
        ...


async def generate(host: StreamOpener, request: Request, params: SamplingParams | None) -> str:
    """One reply, which ends where the model ends it; `params` None: those of the request."""
    async with await host.stream(_whole("generate", request, params)) as stream:
        return await (await stream.prompted()).text()


async def generate_all(host: StreamOpener, request: Request, n: int, params: SamplingParams | None) -> list[str]:
    """`n` replies to a prompt that is computed once; reply i is drawn with the seed plus i, if there is one."""
    if n < 1:
        raise InputError(f"n: expected at least 1, got {n}")
    request = _whole("generate_all", request, params)
    seed = request.params.seed
    seeds = [None if seed is None else seed + place for place in range(n)]
    ways = [msgspec.structs.replace(request.params, seed=each) for each in seeds]
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(await host.stream(msgspec.structs.replace(request, params=ways[0])))
        replies = [await first.prompted()]
        async for _ in replies[0]:
            break  # now the prompt is in the cache
        for way in ways[1:]:
            twin = await stack.enter_async_context(await first.fork(again=way))
            replies.append(await twin.prompted())
        texts = await asyncio.gather(*(reply.text() for reply in replies), return_exceptions=True)
    for text in texts:
        if isinstance(text, BaseException):
            raise text
    return [text for text in texts if isinstance(text, str)]


def _whole(call: str, request: Request, params: SamplingParams | None) -> Request:
    """The request with positions as the library has them and with these params, if any; its reply is not held open."""
    request.check()
    if not request.starts:
        raise InputError(f"{call}: expected a request with messages or a prompt, got none")
    params = msgspec.structs.replace(params or request.params, hold=False)
    return msgspec.structs.replace(request, params=params, positions="transformers")
