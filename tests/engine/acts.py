"""What hypothesis may do to a stream: acts of a client with steps in between, and the strangers beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from tests.reference.media import frames, picture, sound

from .rig import FRAME_US, RATE, Rig, Session

FRAMES = frames(1, 40)
OTHER_SIZE = frames(2, 40, 84, 56)
SOUND = sound(3, 40.0)
PICTURES = [picture(seed) for seed in range(4)]
WORDS = ["Look.", "Hey you, what is it?", "door", "I see a red box and a blue light."]
QUESTIONS = ["What do you see?", "Who came in?", "Is the light on or off?"]
# For oracles: an example is run twice or more and compared with a dense forward, a fifth of a second each.
COSTLY = settings(max_examples=settings().max_examples * 5 // 8)


@dataclass(frozen=True)
class Act:
    """Steps to run first, then what to do; `size` is seconds of sound, or which picture or words."""

    steps: int
    kind: str
    size: int = 0


class Client:
    """Sends media that goes on where it stopped."""

    def __init__(self, session: Session, offset: int = 0) -> None:
        self.session = session
        self.shown = self.heard = offset

    def do(self, kind: str, size: int = 0, **params: Any) -> None:
        session = self.session
        match kind:
            case "frame":
                session.frame(FRAMES[self.shown % len(FRAMES)], self.shown * FRAME_US)
                self.shown += 1
            case "pair":
                self.do("frame")
                self.do("frame")
            case "unit":  # one second of a video with its sound
                self.do("pair")
                self.do("sound", 3)
            case "sound":
                count = (size + 1) * RATE // 4
                start = self.heard % (len(SOUND) - 3 * RATE)
                session.sound(SOUND[start : start + count])
                self.heard += count
            case "image":
                session.image(PICTURES[size % len(PICTURES)])
            case "text":
                session.text(WORDS[size % len(WORDS)])
            case "ask":
                session.ask(QUESTIONS[size % len(QUESTIONS)], **params)
            case "interrupt":
                told = len(session.story.places)
                session.interrupt(min(size, told - 1) if told else None)
            case _:
                raise AssertionError(kind)


def acts(*kinds: str, most: int = 6) -> st.SearchStrategy[list[Act]]:
    one = st.builds(Act, st.integers(0, 3), st.sampled_from(kinds), st.integers(0, 3))
    return st.lists(one, max_size=most)


def perform(rig: Rig, client: Client, todo: list[Act]) -> None:
    for act in todo:
        rig.step(act.steps)
        client.do(act.kind, act.size)


def strangers(rig: Rig, count: int, load: int = 0, with_media: bool = True) -> list[Client]:
    """Other streams in mid-reply, in all formats, with `load` words each and some with media."""
    others = []
    for number in range(count):
        client = Client(rig.open(format=("live", "turns", "interrupt")[number % 3]), offset=10 * number)
        if load:
            client.session.text("door " * load)
        if with_media and number % 2 == 0:
            client.do("pair")
        client.do("ask", number, max_tokens=12 + 8 * number)
        others.append(client)
    return others
