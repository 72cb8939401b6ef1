"""The laws of a session, without a socket and without an event loop: order, bounds, credit, answers, and its end.

A `Player` stands for whoever holds the engine: it keeps the jobs that a session has given out, and a test says which of
them ends when, and how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.errors import InputError
from penstock.server import commands as c
from penstock.server import session as module
from penstock.server.session import Session
from penstock.streams.event import Closed, Credit, Error, ReplyDone, ReplyStarted
from penstock.streams.item import Text
from penstock.streams.requests.request import Request

NAMES = ("a", "b", "c")
MOST_STREAMS = 2
MOST_BYTES = 60
MOST_WAITING = 4
FACTS = c.StreamFacts(id=7, format="turns", why="asked for", trained=False)

Step = tuple[Any, ...]


class Player:
    """A session and what it has given out. `line` is what each stream has to carry out, in order; `carried` what it has
    been made to. Streams are known by their numbers, since names are used again.
    """

    def __init__(self) -> None:
        self.session = Session(MOST_STREAMS, MOST_BYTES)
        self.log: list[c.Action] = []
        self.jobs: dict[int, c.Begin | c.Carry] = {}
        self.channel: dict[str, int] = {}  # by name, the newest; numbers count the streams that were taken
        self._streams = 0
        self.open: set[int] = set()
        self.alive: set[int] = set()  # open, or on its way to be
        self.finished: set[int] = set()  # refs of commands that are done

    def play(self, step: Step) -> list[c.Action]:
        """Make one step; the actions that came of it."""
        match step:
            case ("take", command):
                self.session.take(command)
            case ("finish", name, place) if job := self._job(name, place):
                self._over(job)
                action = self.jobs.pop(job)
                if isinstance(action, c.Begin) or isinstance(action.command, c.ForkStream):
                    self.session.opened(job, FACTS)
                else:
                    self.session.done(job, 1, 1 if isinstance(action.command, c.AskQuestion) else None)
            case ("fail", name, place) if job := self._job(name, place):
                self._over(job)
                del self.jobs[job]
                self.session.failed(job, InputError("expected another item, got this one"))
            case ("event", name, event) if self.channel.get(name) in self.open:
                self.session.event(self.channel[name], event)
            case ("end", name) if self.channel.get(name) in self.open:
                self.session.event(self.channel[name], Closed("closed"))
                self.session.ended(self.channel[name])
                self.open.discard(self.channel[name])
                self.alive.discard(self.channel[name])
            case ("drain",):
                self.session.drain()
        actions = self.session.actions()
        opening = taken(step)
        if isinstance(opening, module.Opening) and not refused(actions, opening.ref):
            self._streams += 1
            self.alive.add(self._streams)
            self.channel[opening.copy if isinstance(opening, c.ForkStream) else opening.stream] = self._streams
        for action in actions:
            self._note(action)
        self.log += actions
        return actions

    def _job(self, name: str, place: int) -> int | None:
        """One of the jobs of this stream that are not over."""
        jobs = [job for job, action in self.jobs.items() if action.channel == self.channel.get(name)]
        return jobs[place % len(jobs)] if jobs else None

    def _over(self, job: int) -> None:
        action = self.jobs[job]
        if isinstance(action, c.Carry):
            self.finished.add(action.command.ref)

    def _note(self, action: c.Action) -> None:
        match action:
            case c.Begin() | c.Carry():
                self.jobs[action.job] = action
            case c.Cancel():
                del self.jobs[action.job]
            case c.StreamOpened():
                self.open.add(self.channel[action.stream])
            case c.Refused(stream=str(name), fatal=True):
                self.alive.discard(self.channel.get(name, 0))


def taken(step: Step) -> Any:
    """The command of a step, None where it is another step."""
    return step[1] if step[0] == "take" else None


EVENTS = (ReplyStarted(1, 1), ReplyDone(1, "stop", 0), Error("media", "none", 1), Credit(9, 9))
SIZES = (0, 5, 10, 25, 55)
MAKE: tuple[Callable[[str, str, int], Step], ...] = (
    lambda name, other, size: ("take", c.OpenStream(stream=name, size=size)),
    lambda name, other, size: ("take", c.OpenStream(stream=name, size=size, request=Request(prompt="p"))),
    *2 * (lambda name, other, size: ("take", c.AppendItem(stream=name, size=size, item=Text("x"))),),
    *3 * (lambda name, other, size: ("take", c.AskQuestion(stream=name, size=size)),),
    *3 * (lambda name, other, size: ("take", c.InterruptReply(stream=name, size=size)),),
    lambda name, other, size: ("take", c.ForkStream(stream=name, copy=other, size=size)),
    lambda name, other, size: ("take", c.RestoreStream(stream=name, name="kept", size=size)),
    lambda name, other, size: ("take", c.EndMedia(stream=name, size=size)),
    lambda name, other, size: ("take", c.CloseStream(stream=name, size=size)),
    *4 * (lambda name, other, size: ("finish", name, SIZES.index(size)),),
    lambda name, other, size: ("fail", name, SIZES.index(size)),
    lambda name, other, size: ("event", name, EVENTS[SIZES.index(size) % len(EVENTS)]),
    lambda name, other, size: ("end", name),
)
THREE = st.integers(0, len(NAMES) - 1)
PARTS = st.tuples(st.integers(0, len(MAKE) - 1), THREE, THREE, st.integers(0, len(SIZES) - 1))


def programs(most: int = 40) -> st.SearchStrategy[list[Step]]:
    """Steps in any order, after two streams have been opened. Each command has a `ref` of its own."""
    first: list[Step] = [("take", c.OpenStream(stream="a")), ("take", c.OpenStream(stream="b")), ("finish", "a", 0)]

    def make(drawn: list[tuple[int, int, int, int]]) -> list[Step]:
        steps = [MAKE[kind](NAMES[one], NAMES[other], SIZES[size]) for kind, one, other, size in drawn]
        return [marked(step, number) for number, step in enumerate(first + steps)]

    return st.lists(PARTS, max_size=most).map(make)


def marked(step: Step, ref: int) -> Step:
    command = taken(step)
    if command is None:
        return step
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    return "take", type(command)(**{**fields, "ref": ref})


def refused(actions: list[c.Action], ref: Any) -> list[c.Refused]:
    return [action for action in actions if isinstance(action, c.Refused) and action.ref == ref]


cheap = settings(max_examples=10 * settings().max_examples)  # nothing here waits
bounded = mock.patch.object(module, "WAITING_COMMANDS", MOST_WAITING)


@cheap
@given(programs())
def test_what_is_sent_in_order_is_carried_out_in_order(steps: list[Step]) -> None:
    """Each command but a question is done before the next begins, nothing waits without need, and an interrupt comes
    either at once or right after the question that it is for. While a question waits or a reply runs it is busy.
    """
    player = Player()
    lines: dict[int, list[c.Command]] = {}  # of each stream what keeps its place, in order
    at_once: dict[int, list[c.Command]] = {}
    carried: dict[int, list[c.Command]] = {}
    running: dict[int, set[int]] = {}
    prompted: dict[int, bool] = {}
    with bounded:
        for step in steps:
            command = taken(step)
            number = player.channel.get(command.stream, 0) if command else 0
            line, done = lines.setdefault(number, []), carried.setdefault(number, [])
            asked = [one for one in done if isinstance(one, c.AskQuestion) and one.ref not in player.finished]
            meant = next((one for one in line if isinstance(one, c.AskQuestion) and one not in done), None)
            busy = bool(asked or running.get(number) or prompted.get(number))
            actions = player.play(step)
            for action in actions:
                match action:
                    case c.Begin():
                        opening = action.command
                        prompted[action.channel] = isinstance(opening, c.OpenStream) and opening.request.starts
                    case c.Carry():
                        carried.setdefault(action.channel, []).append(action.command)
                    case c.StreamEvent(stream=name, event=ReplyStarted()):
                        running.setdefault(player.channel[name], set()).add(1)
                        prompted[player.channel[name]] = False
                    case c.StreamEvent(stream=name, event=ReplyDone()):
                        running.setdefault(player.channel[name], set()).discard(1)
                    case c.StreamEvent(stream=name, event=Error()):
                        prompted[player.channel[name]] = False
            if command and not isinstance(command, c.OpenStream) and not refused(actions, command.ref):
                if isinstance(command, c.InterruptReply) and meant is not None and not busy:
                    line.insert(line.index(meant) + 1, command)
                elif isinstance(command, c.InterruptReply | c.CloseStream):
                    at_once.setdefault(number, []).append(command)
                else:
                    line.append(command)
            asked = [one for number in player.alive for one in lines.get(number, []) if isinstance(one, c.AskQuestion)]
            waits = any(one.ref not in player.finished for one in asked)
            speaks = any(running.get(number) or prompted.get(number) for number in player.alive)
            assert player.session.busy == (waits or speaks)
            for open_number in player.open:
                done, line = carried.get(open_number, []), lines.get(open_number, [])
                urgent = at_once.get(open_number, [])
                assert [one for one in done if one in urgent] == urgent
                kept = [one for one in done if one not in urgent]
                assert kept == line[: len(kept)]
                left = [one for one in kept if not isinstance(one, c.AskQuestion) and one.ref not in player.finished]
                assert left == [one for one in kept[-1:] if left] or not left, "one at a time"
                assert left or kept == line, "nothing waits without need"


@cheap
@given(programs())
def test_what_is_over_a_bound_is_refused_and_nothing_else_changes(steps: list[Step]) -> None:
    """The same steps without the commands that were refused as they came give the same actions but the refusals."""
    with bounded:
        player, kept, told = Player(), [], []
        for step in steps:
            actions = player.play(step)
            errors = refused(actions, step[1].ref) if taken(step) else []
            if errors:
                assert [action for action in actions if action not in errors] == []
            else:
                kept.append(step)
                told += actions
        again = Player()
        assert [action for step in kept for action in again.play(step)] == told


@cheap
@given(programs())
def test_what_is_refused_of_a_new_stream_names_it_and_its_source_goes_on(steps: list[Step]) -> None:
    """`fatal`: it was never opened. Where its name is taken, the stream of that name lives on, so it is not."""
    with bounded:
        player = Player()
        for step in steps:
            command = taken(step)
            alive = {name for name, number in player.channel.items() if number in player.alive}
            actions = player.play(step)
            if isinstance(command, module.Opening):
                name = command.copy if isinstance(command, c.ForkStream) else command.stream
                for error in refused(actions, command.ref):
                    assert (error.stream, error.fatal) == (name, name not in alive)
                    assert {name for name, number in player.channel.items() if number in player.alive} == alive


@cheap
@given(programs())
def test_the_bounds_are_those_that_were_given(steps: list[Step]) -> None:
    """What a stream takes is its credit: all that fits is taken, and what was taken is given back when it is done."""
    with bounded:
        player = Player()
        sizes: dict[int, dict[int, int]] = {}  # of each stream by ref
        for step in steps:
            player.session.actions()
            command = taken(step)
            known = player.channel.get(getattr(command, "stream", "")) in player.alive
            credit = player.session.credit(command.stream) if command else 0
            actions = player.play(step)
            assert player.session.streams <= MOST_STREAMS
            if known and not isinstance(command, module.Opening):
                number = player.channel[command.stream]
                errors = refused(actions, command.ref)
                assert all(error.code == "server_limit" for error in errors)
                if command.size > credit:
                    assert errors, "expected to be refused"
                elif not errors:
                    sizes.setdefault(number, {})[command.ref] = command.size
                else:
                    waiting = [ref for ref in sizes.get(number, {}) if ref not in player.finished]
                    assert "messages may wait" in errors[0].message and len(waiting) >= MOST_WAITING
            elif known and isinstance(command, c.ForkStream) and not refused(actions, command.ref):
                sizes.setdefault(player.channel[command.stream], {})[command.ref] = command.size
            for name, number in player.channel.items():
                if number in player.open:
                    left = sum(size for ref, size in sizes.get(number, {}).items() if ref not in player.finished)
                    assert player.session.credit(name) == MOST_BYTES - left


@cheap
@given(programs())
def test_each_command_is_answered_once(steps: list[Step]) -> None:
    """By its `ref`; or by the end of its stream, where it was being carried out or is a `CloseStream`."""
    with bounded:
        player = Player()
        for step in steps:
            player.play(step)
        cancelled = {action.job for action in player.log if isinstance(action, c.Cancel)}
        for _ in range(100):
            for name in NAMES:
                player.play(("finish", name, 0))
        for name in NAMES:
            player.play(("end", name))
        cancelled |= {action.job for action in player.log if isinstance(action, c.Cancel)}
    sent = [taken(step) for step in steps if taken(step)]
    jobs = {action.job: action for action in player.log if isinstance(action, c.Carry)}
    silent = {jobs[job].command.ref for job in cancelled if job in jobs and not jobs[job].copy}
    answers = [action.ref for action in player.log if isinstance(action, c.StreamOpened | c.CarriedOut | c.Refused)]
    for command in sent:
        if isinstance(command, c.CloseStream):
            assert answers.count(command.ref) <= 1
        else:
            assert answers.count(command.ref) == (command.ref not in silent), command
    assert player.session.streams == 0 and not player.session.busy and not player.jobs


@cheap
@given(programs(), programs(most=10))
def test_after_its_close_a_session_does_nothing(steps: list[Step], later: list[Step]) -> None:
    player = Player()
    for step in steps:
        player.play(step)
    still, open_streams = set(player.jobs), set(player.open)
    player.session.close()
    last = player.session.actions()
    assert {action.job for action in last if isinstance(action, c.Cancel)} == still
    assert {action.channel for action in last if isinstance(action, c.Shut)} == open_streams
    assert len(last) == len(still) + len(open_streams)
    for step in later:
        assert player.play(step) == []
    assert (player.session.streams, player.session.busy, player.session.credit("a")) == (0, False, 0)


def test_interrupts_do_not_wait_for_each_other() -> None:
    """Else the second one would cut a reply to a question that was sent after it."""
    player = Player()
    player.play(("take", c.OpenStream(stream="a")))
    player.play(("finish", "a", 0))
    kinds = [c.InterruptReply(stream="a"), c.InterruptReply(stream="a"), c.AskQuestion(stream="a")]
    actions = [action for command in kinds for action in player.play(("take", command))]
    carried = [action.command for action in actions if isinstance(action, c.Carry)]
    assert carried == kinds


def test_an_interrupt_is_for_the_prompt_before_it_is_for_a_question() -> None:
    player = Player()
    orders = [c.AskQuestion(stream="a", ref=1), c.InterruptReply(stream="a", ref=2)]
    for command in (c.OpenStream(stream="a", request=Request(prompt="p")), *orders):
        player.play(("take", command))
    actions = player.play(("finish", "a", 0))
    assert [action.command.ref for action in actions if isinstance(action, c.Carry)] == [2, 1]


def test_credit_passes_to_the_client_as_it_comes() -> None:
    player = Player()
    player.play(("take", c.OpenStream(stream="a")))
    player.play(("finish", "a", 0))
    credit = Credit(100, 5)
    assert player.play(("event", "a", credit)) == [c.StreamEvent(stream="a", event=credit)]


def test_a_fault_of_the_server_is_told_without_its_words() -> None:
    player = Player()
    player.play(("take", c.OpenStream(stream="a")))
    player.session.failed(1, RuntimeError("secret"))
    (error,) = player.session.actions()
    assert isinstance(error, c.Refused) and error.code == "internal" and "secret" not in error.message and error.fatal


def test_a_session_that_drains_takes_no_streams_and_no_questions_but_finishes() -> None:
    player = Player()
    for step in (("take", c.OpenStream(stream="a")), ("finish", "a", 0), ("take", c.OpenStream(stream="b"))):
        player.play(step)
    assert player.play(("drain",)) == [c.GoingDown(), c.StopMedia(channel=1)]
    for command in (
        c.OpenStream(stream="c", ref=1),
        c.AskQuestion(stream="a", ref=1),
        c.ForkStream(stream="a", copy="c", ref=1),
    ):
        (error,) = player.play(("take", command))
        assert isinstance(error, c.Refused) and (error.code, error.ref) == ("draining", 1)
    assert isinstance(player.play(("take", c.AppendItem(stream="a", item=Text("x"))))[0], c.Carry)
    player.session.finish()
    close, told, cancel = player.session.actions()
    assert close == c.Shut(channel=1) and cancel == c.Cancel(job=2)
    assert isinstance(told, c.Refused) and (told.stream, told.code, told.fatal) == ("b", "draining", True)
