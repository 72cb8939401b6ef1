"""Any JSON as `messages` gets a reply or an error that says what is wrong with it, and the next one is answered."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.errors import InputError, MediaError
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.reference.media import picture, png

SHORT = SamplingParams(max_tokens=2)
WORDS = ["user", "assistant", "system", "text", "image", "video", "audio", "image_url", "input_audio", "Well?", ""]
WORDS += [
    "data:,",
    "data:;base64,AAAA",
    "data:image/png;base64,?",
    f"data:;base64,{base64.b64encode(png(picture(1, 60, 80))).decode()}",
]
KEYS = ["role", "content", "type", "text", "image", "image_url", "url", "data", "base64", "sampling_rate", "tool_calls"]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
kinds = st.sampled_from(["text", "image", "video", "audio", "image_url", "input_audio"])
part = st.one_of(
    values,
    st.fixed_dictionaries({"type": kinds}, optional={key: values for key in KEYS[3:]}),
    st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=5)),
    st.builds(lambda kind, word: {"type": kind, kind: word}, kinds, st.sampled_from(WORDS)),
)
message = st.one_of(
    values,
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(WORDS[:3]) | values,
            "content": st.text(max_size=9) | st.lists(part, max_size=3) | values,
        },
        optional={"name": values, "tool_calls": values},
    ),
)
conversations = st.lists(st.lists(message, max_size=3) | values, min_size=8, max_size=8)


@settings(max_examples=4)
@given(conversations)
def test_any_json_as_messages_is_answered_or_refused(house: House, given: list[Any]) -> None:
    async def answer(engine: Any, messages: Any) -> None:
        try:
            assert isinstance(await engine.generate(Request(messages=messages), SHORT), str)
        except (InputError, MediaError) as error:
            assert "expected" in str(error) and "Error:" not in str(error), (messages, str(error))

    async def work() -> None:
        async with house.engine() as engine:
            await asyncio.gather(*(answer(engine, messages) for messages in given if messages is not None))
            assert await engine.generate(Request(messages=[{"role": "user", "content": "Well?"}]), SHORT)

    house.run(work())
