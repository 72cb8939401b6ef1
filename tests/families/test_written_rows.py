"""A model whose chat template writes the placeholders of all rows of a picture, and whose processor lays none."""

from __future__ import annotations

import pytest
import torch
from penstock.errors import InputError
from penstock.streams.requests.prompt import Content, Media
from penstock.streams.requests.request import Request, SamplingParams

from tests.engine.test_oracle1 import REPLY, assert_equal, generated
from tests.families.built import BUILDERS
from tests.families.suite import MEDIA, Tried, by_library, opened

PICTURE = MEDIA["image"][0]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    return opened(BUILDERS["pp_chart2table"].build(tmp_path_factory.mktemp("written")))


def test_words_alone_are_what_the_tokenizer_makes_of_them(tried: Tried) -> None:
    """Its processor takes no text without a picture."""
    request = Request(prompt="What do you see?", params=SamplingParams(max_tokens=REPLY))
    inputs = tried.towers.processor.tokenizer(["What do you see?"], return_tensors="pt")
    assert_equal(generated(tried.loaded, request), by_library(tried, inputs))


def test_one_placeholder_among_ids_becomes_all_rows_of_a_picture(tried: Tried) -> None:
    place = tried.towers.senses["image"].id
    inputs = tried.inputs(Content([Media("image", PICTURE)], ids=[5, place, 7]))
    assert inputs["input_ids"].tolist() == [[5, *[place] * 4, 7]]
    assert torch.equal(inputs["attention_mask"], torch.ones(1, 6, dtype=torch.int64))


def test_fewer_placeholders_than_a_picture_has_rows_are_refused_in_few_words(tried: Tried) -> None:
    with pytest.raises(InputError, match="prompt: expected 0 of <imgpad> 4 times, got 1 image"):
        tried.inputs(Content([Media("image", PICTURE)], text="<img><imgpad><imgpad></img>"))
