"""What `penstock ask` tells of a stream beside its answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.server.ask_view import TextView
from penstock.streams.event import Dropped, ReplyDone, ReplyStarted, Token

UNKNOWN = "I do not know."


@pytest.mark.parametrize("live", [False, True])
def test_damage_is_one_line_with_counts_and_times(live: bool, capsys: pytest.CaptureFixture[str]) -> None:
    view = TextView(live)
    view.started("brook", "turns", "asked for")
    view.event(Dropped(1, "video", 4, 438_069, 938_069, "damaged"))
    view.event(Dropped(1, "audio", 640, 500_000, 540_000, "damaged"))
    view.event(Dropped(1, "video", 3, 938_070, 2_021_403, "damaged"))
    view.event(Dropped(1, "video", 9, 0, 100, "latest"))
    view.close()
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert told.err.endswith("7 packets of video from 0.4 s to 2.0 s; 640 samples of sound from 0.5 s to 0.5 s\n")


def test_damage_without_times(capsys: pytest.CaptureFixture[str]) -> None:
    view = TextView(live=False)
    view.event(Dropped(1, "video", 2, None, None, "damaged"))
    view.close()
    assert capsys.readouterr().err.endswith(" 2 packets of video\n")


@given(before=st.text("I donkw.", max_size=30), after=st.text("I donkw.", max_size=30), data=st.data())
def test_what_brook_does_not_know_is_found_in_any_tokens(before: str, after: str, data: st.DataObject) -> None:
    text = before + data.draw(st.sampled_from([UNKNOWN, "", UNKNOWN[:-1]])) + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    view = TextView(live=False)
    view.started("brook", "turns", "asked for")
    view.event(ReplyStarted(1, 1))
    for index, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(text)], strict=True)):
        view.event(Token(1, index, 7, text[start:stop], None))
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(words)))
        view.event(ReplyDone(1, "stop", len(cuts) + 1))
        view.close()
    assert any("Brook knows" in line for line in lines) == (UNKNOWN in text)


@pytest.mark.parametrize(("live", "since_us"), [(False, 12_500_000), (False, None), (True, 12_500_000)])
def test_an_answer_that_media_had_left_before_says_so(
    live: bool, since_us: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Narration has told what it saw while it was there."""
    view = TextView(live)
    view.event(ReplyDone(1, "stop", 3, since_us=since_us))
    view.close()
    expected = "penstock: media before 12.5 s had left the stream's window when the answer ended\n"
    assert capsys.readouterr().err == (expected if since_us is not None and not live else "")


def test_what_was_said_is_not_kept() -> None:
    """A watch may last for days."""
    view = TextView(live=True)
    for index in range(2000):
        view.event(Token(1, index, 7, "a red circle. ", None))
    assert max(len(value) for value in vars(view).values() if isinstance(value, str)) < 100
