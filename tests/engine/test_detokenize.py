"""Text while it comes: all of it, in whole characters, and nothing of a stop string."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from penstock.engine.words.detokenize import Detokenizer, decoder

texts = st.text(alphabet="aé🙂漢 \n<|door", max_size=30) | st.text(max_size=20)


def pushed(tokenizer: Any, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    """The pieces that are shown, up to a stop string."""
    text = Detokenizer(tokenizer, stop)
    shown = []
    for id in ids:
        shown.append(text.push(id))
        if text.stopped is not None:
            break
    return shown, text


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@given(text=texts)
@example("🙂🙂")
@example("door 漢字 é")
def test_all_of_it_in_whole_characters(text_qwen: tuple[Any, Any], text: str) -> None:
    tokenizer = text_qwen[1]
    ids = ids_of(tokenizer, text)
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    shown, last = pushed(tokenizer, ids)
    assert "".join(shown) + last.finish(len(ids)) == whole
    assert not any("\ufffd" in piece for piece in shown) or "\ufffd" in whole


@given(st.lists(st.integers(0, 744), max_size=40))
def test_any_ids(text_qwen: tuple[Any, Any], ids: list[int]) -> None:
    """Also bytes that never become a character; one that is still open at the end is told as `decode` tells it."""
    tokenizer = text_qwen[1]
    shown, last = pushed(tokenizer, ids)
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(shown) + last.finish(len(ids)) == whole


@given(text=texts, stop=st.text(alphabet="aé🙂漢 door", min_size=1, max_size=4), other=st.sampled_from([(), ("zzz",)]))
@example("the door is red", "door", ())
@example("do do door", "door", ())
def test_nothing_of_a_stop_string_is_shown(
    text_qwen: tuple[Any, Any], text: str, stop: str, other: tuple[str, ...]
) -> None:
    tokenizer = text_qwen[1]
    ids = ids_of(tokenizer, text)
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    shown, last = pushed(tokenizer, ids, (stop, *other))
    found = min((place for word in (stop, *other) if (place := whole.find(word)) >= 0), default=None)
    assert last.stopped == found
    kept = len(shown) if found is None else last.kept(found)
    assert "".join(shown) + last.finish(kept) == whole[:found]
    assert "".join(shown[:kept]) + last.finish(kept) == whole[:found], "tokens that are kept have told their own text"
    if found is not None:
        before = tokenizer.decode(ids[:kept], skip_special_tokens=True)
        assert (
            len(before.rstrip("\ufffd")) <= found < len(tokenizer.decode(ids[: len(shown)], skip_special_tokens=True))
        )


@given(text=texts, stop=st.text(alphabet="aé🙂漢 door", min_size=1, max_size=4), keep=st.integers(0, 20))
@example("a do or", "door", 2)
@example("door 🙂🙂", "zz", 7)
def test_a_reply_that_is_cut_has_the_text_of_its_tokens(
    text_qwen: tuple[Any, Any], text: str, stop: str, keep: int
) -> None:
    """Also where the end of it may have been the beginning of a stop string, or a character is left open."""
    tokenizer = text_qwen[1]
    ids = ids_of(tokenizer, text)
    shown, last = pushed(tokenizer, ids, (stop,))
    if last.stopped is None:
        keep = min(keep, len(shown))
        assert "".join(shown[:keep]) + last.finish(keep) == tokenizer.decode(ids[:keep], skip_special_tokens=True)


@given(text=texts, keep=st.integers(0, 20))
def test_a_copy_goes_on_alone(text_qwen: tuple[Any, Any], text: str, keep: int) -> None:
    tokenizer = text_qwen[1]
    ids = ids_of(tokenizer, text)
    shown, first = pushed(tokenizer, ids[:keep])
    twin = first.copy()
    rest = [twin.push(id) for id in ids[keep:]]
    assert "".join([*shown, *rest]) + twin.finish(len(ids)) == tokenizer.decode(ids, skip_special_tokens=True)
    assert first.text == "".join(shown)


@given(text=texts)
def test_open_says_that_a_character_has_begun(text_qwen: tuple[Any, Any], text: str) -> None:
    tokenizer = text_qwen[1]
    ids = ids_of(tokenizer, text)
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    last = Detokenizer(tokenizer, ())
    for count, id in enumerate(ids, 1):
        last.push(id)
        so_far = tokenizer.decode(ids[:count], skip_special_tokens=True)
        assert last.open == (not whole.startswith(so_far))
    assert not last.open


def test_the_compiled_tokenizer_is_asked_where_the_library_adds_nothing(text_qwen: tuple[Any, Any]) -> None:
    tokenizer = text_qwen[1]
    ids = ids_of(tokenizer, "The door is red.")
    assert decoder(tokenizer).func == tokenizer.backend_tokenizer.decode

    class Own(type(tokenizer)):
        def decode(self, token_ids: Any, skip_special_tokens: bool = False, **_: Any) -> str:
            return "mine"

    tokenizer = copy.copy(tokenizer)
    tokenizer.__class__ = Own
    assert decoder(tokenizer)(ids) == "mine"
