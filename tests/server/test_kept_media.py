"""Media that clients have named: found under its name by clients of the same key, and bounded."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.errors import InputError
from penstock.server.errors import MessageError
from penstock.server.kept_media import KeptMedia
from penstock.server.openai_messages import checked_messages

URL = "data:image/png;base64," + "A" * 78  # 100 characters


def said(uuid: Any, url: str | None = URL, kind: str = "image_url") -> list[dict[str, Any]]:
    part = {"type": kind, kind: None if url is None else {"url": url}, "uuid": uuid}
    return checked_messages([{"role": "user", "content": [part, {"type": "text", "text": "x", "uuid": "t"}]}], True)


def send(kept: KeptMedia, uuid: str, key: str = "k") -> None:
    kept.keep(said(uuid), kept.fill(said(uuid), key), key)


def test_a_name_finds_what_came_under_it_for_the_same_key() -> None:
    kept = KeptMedia()
    send(kept, "a")
    assert kept.fill(said("a", None), "k") == said("a")
    with pytest.raises(InputError, match=r"messages\[0\].content\[0\].uuid: .*got 'a', which has nothing"):
        kept.fill(said("a", None), "other")
    with pytest.raises(InputError, match="which has image_url"):
        kept.fill(said("a", None, "video_url"), "k")
    with pytest.raises(InputError, match="expected text of 1 to 256 characters, got nothing|got null"):
        kept.fill([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "uuid:"}}]}], "k")


def test_what_was_named_longest_ago_goes_first_and_the_same_name_is_held_once() -> None:
    kept = KeptMedia(most_bytes=250)
    for name in ("a", "b", "b"):
        send(kept, name)
    kept.fill(said("a", None), "k")
    send(kept, "c")
    assert [name for name in "abc" if holds(kept, name)] == ["a", "c"]
    kept.keep(said("d", URL * 3), said("d", URL * 3), "k")  # more than all that may be held
    assert not holds(kept, "d") and holds(kept, "a") and holds(kept, "c")


def holds(kept: KeptMedia, name: str) -> bool:
    try:
        return bool(kept.fill(said(name, None), "k"))
    except InputError:
        return False


@pytest.mark.parametrize("uuid", ["", "x" * 257, 5, {"a": 1}])
def test_what_is_no_name_is_refused(uuid: Any) -> None:
    with pytest.raises(MessageError, match="expected text of 1 to 256 characters"):
        said(uuid)
