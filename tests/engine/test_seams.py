"""Text that stands together is tokenised together: a stream has the ids of the template rendered whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.conversation import layout
from penstock.engine.conversation.laying import Limits
from penstock.engine.conversation.layout import Layout
from penstock.engine.family import Loaded
from penstock.streams.event import Error
from penstock.streams.format import LIVE, TURNS
from penstock.streams.segment import ImageSegment

from tests.reference.media import picture

from .rig import Rig

PICTURE = picture(1, 56, 56)
SEAMS = ("Where", " is it", "door ", "\n", "  ", "no.", "'s", "a", "4", "\n\nB", "ä", "it ")
words = st.lists(st.sampled_from(SEAMS), min_size=1, max_size=4).map("".join).filter(str.strip)
systems = st.none() | words
Item = str | None  # None: a picture


class Told:
    """What a layout has laid, as a stream keeps it."""

    def __init__(self, loaded: Loaded, system: str | None, format: Any = TURNS) -> None:
        self.loaded = loaded
        self.layout = Layout(loaded.family, format, "max", 1.0, system)
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.pictures = 0

    def keep(self, rows: list[Any]) -> None:
        left = len(self.ids) - self.layout.taken_back
        self.ids, self.positions = self.ids[:left], self.positions[:left]
        for run in rows:
            self.ids += run.ids.tolist()
            self.positions += run.positions[0].tolist()

    def tell(self, items: list[Item], asks: bool = True) -> Told:
        for place, item in enumerate(items):
            if item is None:
                self.pictures += 1
                ((span, _),) = self.loaded.towers.encode([(0, ImageSegment(self.pictures, 0, PICTURE))])
                self.keep(self.layout.media(span))
            elif asks and place == len(items) - 1:
                self.keep(self.layout.ask(item))
            else:
                self.keep(self.layout.text(item))
        if asks and items[-1] is None:
            self.keep(self.layout.ask(""))
        return self


def rendered(loaded: Loaded, system: str | None, turns: list[tuple[str, list[Item]]]) -> list[int]:
    """The ids of the same conversation by `apply_chat_template`, and by the processor where there are pictures."""
    family = loaded.family
    template = getattr(loaded.towers, "processor", family.tokenizer)

    def content(items: list[Item]) -> Any:
        if not family.turns.parts:
            return "".join(filter(None, items))
        return [{"type": "image", "image": "x"} if one is None else {"type": "text", "text": one} for one in items]

    messages = [] if system is None else [{"role": "system", "content": content([system])}]
    messages += [{"role": role, "content": content(items)} for role, items in turns]
    if not family.turns.parts:
        return template.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    text = template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pictures = [PICTURE for _, items in turns for item in items if item is None]
    options: dict[str, Any] = {}
    if pictures:
        options["images"] = [pictures] if getattr(loaded.towers, "nested", False) else pictures
        if "smolvlm" in family.data.name:
            options["images_kwargs"] = {"do_image_splitting": False}
    begun = bool(template.tokenizer.bos_token) and text.startswith(template.tokenizer.bos_token)
    made = template(text=[text], add_special_tokens=not begun, **options)
    return [int(id) for id in made["input_ids"][0]]


def check(loaded: Loaded, system: str | None, items: list[Item]) -> None:
    told = Told(loaded, system).tell(items)
    assert told.ids == rendered(loaded, system, [("user", items)])
    if loaded.family.data.axes == 1:
        assert told.positions == list(range(len(told.ids)))


@given(system=systems, items=st.lists(words, min_size=1, max_size=4))
def test_texts_of_text_models(text_served: Loaded, system: str | None, items: list[Item]) -> None:
    check(text_served, system, items)


@given(system=systems, items=st.lists(words | st.none(), min_size=1, max_size=4))
def test_texts_and_pictures(omni_loaded: Loaded, system: str | None, items: list[Item]) -> None:
    check(omni_loaded, system, items)


@given(system=systems, items=st.lists(words | st.none(), min_size=1, max_size=4))
def test_texts_and_pictures_of_sight(sight_served: Loaded, system: str | None, items: list[Item]) -> None:
    check(sight_served, system, items)


@given(system=systems, items=st.lists(words | st.none(), min_size=1, max_size=4))
def test_texts_and_pictures_of_stills(still_served: Loaded, system: str | None, items: list[Item]) -> None:
    """Two of the templates set pictures before words, and a stream keeps the order in which they came. A picture that
    is alone is cut into tiles by the processor of one of these."""
    name = still_served.family.data.name
    if name.startswith("llava"):
        items = sorted(items, key=lambda item: item is not None)
    if name == "llava_onevision" and items.count(None) == 1:
        items = [None, *items]
    check(still_served, system, items)


def test_words_after_a_reply(still_served: Loaded) -> None:
    """What closes a reply stands together with the words of the next turn; sampled tokens stand apart."""
    told = Told(still_served, "You watch.").tell(["Who?"])
    prompt = rendered(still_served, "You watch.", [("user", ["Who?"])])
    told.ids += [told.layout.token(id).ids.item() for id in (300, 301)]
    told.positions += [0, 0]
    told.keep(told.layout.end())
    told.tell(["And", " now?"])
    whole = rendered(
        still_served, "You watch.", [("user", ["Who?"]), ("assistant", ["\x00"]), ("user", ["And", " now?"])]
    )
    (mark,) = still_served.family.text_ids("\x00")
    assert told.ids == [*prompt, 300, 301, *whole[whole.index(mark) + 1 :]]


@given(items=st.lists(words, min_size=2, max_size=5), stops=st.integers(0, 5))
def test_text_that_is_fed_already_is_fed_anew_where_it_changes(
    text_served: Loaded, items: list[str], stops: int
) -> None:
    """Texts that come one by one, with steps between, leave the cache that they leave at once."""
    rig = Rig(text_served)
    slow, quick = rig.open(format="turns"), rig.open(format="turns")
    for item in items[:-1]:
        slow.text(item)
        rig.step(stops)
        quick.text(item)
    for session in (slow, quick):
        session.ask(items[-1], max_tokens=3)
    rig.run()
    assert slow.transcript()[0] == quick.transcript()[0]
    assert slow.transcript()[1].equal(quick.transcript()[1])
    assert slow.ids() == quick.ids()
    assert slow.of(Error) == quick.of(Error) == []
    rig.core.scheduler.check()


def test_a_fork_goes_on_from_its_own_text(text_loaded: Loaded) -> None:
    rig = Rig(text_loaded)
    session = rig.open(format="turns")
    session.text("The wat")
    rig.run()
    twin = rig.fork(session)
    session.ask("er", max_tokens=2)
    twin.ask("ch", max_tokens=2)
    rig.run()
    for one, end in ((session, "er"), (twin, "ch")):
        expected = rendered(text_loaded, None, [("user", [f"The wat{end}"])])
        assert one.transcript()[0][: len(expected)] == expected


def test_what_does_not_fit_leaves_the_text_as_it_was(text_loaded: Loaded) -> None:
    rig = Rig(text_loaded)
    session = rig.open(format="turns")
    session.text("The wat")
    rig.run()
    talk = rig.core.scheduler._talks[session.stream]
    wide, talk.limits = talk.limits, Limits(talk.stream.rows + 4, 9_999)
    session.text("er is clear and cold and small fish stand still behind the stones")
    rig.run()
    (error,) = session.of(Error)
    assert "expected at most" in error.message
    talk.limits = wide
    session.ask("er", max_tokens=2)
    rig.run()
    expected = rendered(text_loaded, None, [("user", ["The water"])])
    assert session.transcript()[0][: len(expected)] == expected


def test_long_text_is_not_tokenised_whole_at_each_input(text_loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_LONG", 1_000)
    monkeypatch.setattr(layout, "_KEPT", 200)
    told = Told(text_loaded, None)
    lengths: list[int] = []
    spelled = Layout._spelled
    monkeypatch.setattr(
        Layout, "_spelled", lambda self, text, first: lengths.append(len(text)) or spelled(self, text, first)
    )
    items: list[Item] = [f"The water of brook {place} is clear and cold.  " * 4 for place in range(60)]
    told.tell(items)
    assert max(lengths) < 1_400
    assert told.ids == rendered(text_loaded, None, [("user", items)])


def test_text_inside_a_reply_is_a_turn(omni_loaded: Loaded) -> None:
    told = Told(omni_loaded, "x", LIVE).tell(["Who?"])
    start = len(told.ids)
    told.layout.token(300)
    told.keep(told.layout.text("Now."))
    assert told.layout.taken_back == 0
    turns = omni_loaded.family.turns.wrappers
    text = turns["assistant_end"] + turns["user_start"] + "Now." + turns["user_end"] + turns["assistant_start"]
    assert told.ids[start:] == omni_loaded.family.spelling.ids(text)
    assert np.diff(told.positions[start:]).tolist() == [1] * (len(told.ids) - start - 1)
