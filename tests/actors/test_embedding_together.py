"""Rows that see one another and were made elsewhere: no more of them than the narrowest layer sees."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from penstock.engine.family import Family
from penstock.errors import PenstockError
from penstock.streams.event import Appended, Error
from penstock.streams.item import Embedding
from penstock.streams.requests.request import Request
from penstock.streams.segment import ImageSegment

from tests.actors.conftest import House
from tests.actors.test_embedding import made
from tests.actors.test_embedding_prompt import message, part, told
from tests.actors.watch import Reader
from tests.fixtures.loaded import served
from tests.reference.media import picture


def test_more_rows_than_a_layer_sees_are_refused_where_rows_see_one_another(house: House) -> None:
    """In a prompt and in a stream; so many as it sees are taken."""
    family = served("gemma3").family
    data = msgspec.structs.replace(family.data, most_together=3)
    loaded = served("gemma3")._replace(family=Family(data, family.tokenizer, family.endings))
    rows = np.asarray(made(loaded, ImageSegment(1, 0, picture(1, 56, 56))).embeds.rows)
    four, three = (Embedding(rows[:count], "image") for count in (4, 3))
    words = "image: expected at most 3 rows that see one another, as many as a layer of this model sees, got 4"

    async def work() -> None:
        async with house.engine(loaded) as engine:
            with pytest.raises(PenstockError, match=words):
                await told(engine, messages=message(part(four), "Well?"))
            await told(engine, messages=message(part(three), "Well?"))
            async with await engine.stream(Request(window=None)) as stream:
                reader = Reader(stream)
                await stream.append(four)
                [error] = await reader.see(Error)
                assert words in error.message and not error.fatal
                await stream.append(three)
                await reader.see(Appended)

    house.run(work())
