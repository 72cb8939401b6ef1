"""What a reply may say next, by a schema, a regular expression, a choice or a grammar. `llguidance` does the work.

In: a tokenizer, what is asked for, and the ids that were said. Out: for each id of the vocabulary whether it may come
next. It knows no logits and no streams.
"""

from __future__ import annotations

import functools
import json
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ...streams.requests.structured import Structured

_KEPT = 64  # compiled grammars that are kept beside those with which somebody may still ask
_TOGETHER = 8  # so many guides are worth several threads
# What one grammar may cost: about a second to compile, and milliseconds for the ids that may come next.
_LIMITS = {
    "max_items_in_row": 2000,
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 20_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 200_000,
}
# Between the parts of a JSON value stands one space or none: with any number of them a reply may never end.
_JSON = {"whitespace_pattern": "[ ]?"}


class Allowed(NamedTuple):
    """Which ids may come next: a bit for each, that of id 0 the lowest of the first byte. `only_ends`: end tokens and
    nothing else."""

    bits: bytes
    only_ends: bool


class Guide:
    """How far one reply is in its grammar.

    `matcher` knows what was said. `fault`: why it cannot go on, empty while it can. It allows the end tokens then.
    `found`: what may come next, where it was found together with that of others; empty: it was not.
    """

    def __init__(self, compiled: Any) -> None:
        """`compiled`: a matcher that has seen nothing; it is not changed."""
        self._compiled = compiled
        self.matcher = compiled.deep_copy()
        self._followed = 0
        self.found = b""
        self.fault = ""

    def follow(self, ids: list[int]) -> None:
        """The ids that were said so far, of which it has seen the first ones before."""
        if len(ids) > self._followed:
            self.matcher.consume_tokens(ids[self._followed :])
            self._followed, self.found = len(ids), b""
            self._note_fault()

    def allowed(self, ends: Iterable[int], may_end: bool) -> Allowed:
        """What may come next. `ends` end the reply: they may come where the words are complete, or where it `may_end`
        all the same."""
        bits = bytearray(self.found or self.matcher.compute_bitmask())
        self._note_fault()
        for id in ends:
            bits[id >> 3] &= ~(1 << (id & 7))
        only_ends = bits.count(0) == len(bits)
        complete = may_end or self.matcher.is_accepting()
        if only_ends and not (complete or self.fault):
            self.fault = "no token of this model goes on from here"
        if self.fault:
            bits, only_ends = bytearray(len(bits)), True
        if complete or self.fault:
            for id in ends:
                bits[id >> 3] |= 1 << (id & 7)
        return Allowed(bytes(bits), only_ends)

    def again(self) -> Guide:
        """For another value of the same grammar, which is not compiled again."""
        return Guide(self._compiled)

    def copy(self) -> Guide:
        twin = Guide(self._compiled)
        twin.matcher = self.matcher.deep_copy()
        twin._followed, twin.found, twin.fault = self._followed, self.found, self.fault
        return twin

    def _note_fault(self) -> None:
        if self.matcher.is_error() and not self.fault:
            self.fault = _said(self.matcher.get_error())


class _Compiled:
    """A matcher that has seen nothing. An object of its own, since nobody can tell when a matcher goes."""

    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher


class Grammars:
    """The compiled grammars of one tokenizer, found by what they say. Any thread may use it.

    The newest are kept, and all others for as long as a `Structured` lives that they were compiled or found for: so a
    question that waits for an hour finds its grammar, and it is not compiled on the thread of whoever begins the reply.

    `vocabulary`: how many ids the model has; `ends` are its end tokens.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Iterable[int]) -> None:
        self._tokenizer, self._vocabulary, self._ends = tokenizer, vocabulary, sorted(ends)
        self._lock = threading.Lock()
        self._newest: OrderedDict[tuple[str, str], _Compiled] = OrderedDict()
        self._known: weakref.WeakValueDictionary[tuple[str, str], _Compiled] = weakref.WeakValueDictionary()
        self._asked: dict[int, tuple[weakref.ref[Structured], _Compiled]] = {}  # by the address of who asks
        self._words: Any = None  # the tokenizer as llguidance has it
        self._mask_bytes = 0

    def has(self, structured: Structured) -> bool:
        """Whether it is compiled: then `guide` costs nothing for as long as `structured` lives."""
        with self._lock:
            return self._found(structured) is not None

    def compile(self, structured: Structured) -> None:
        """It takes up to a second, and the first time as long again for the tokenizer. InputError, which names the
        place, for what cannot be compiled and where the package or the tokenizer does not allow it."""
        self._matcher(structured)

    def guide(self, structured: Structured) -> Guide:
        """For a reply that has said nothing yet. Raises as `compile` does, which it does where it has to."""
        return Guide(self._matcher(structured))

    def find_together(self, guides: Sequence[Guide], threads: int) -> None:
        """What may come next in all of these, found by so many threads where it is worth it; `Guide.allowed` has it
        then. With one thread each is found by itself."""
        waiting = [guide for guide in guides if not (guide.found or guide.fault)]
        if len(waiting) < _TOGETHER or threads < 2:
            return
        from llguidance.numpy import fill_next_token_bitmask_par

        bits = np.empty((len(waiting), (self._as_words().vocab_size + 31) // 32), np.int32)
        fill_next_token_bitmask_par(_executor(threads), [(guide.matcher, at) for at, guide in enumerate(waiting)], bits)
        for at, guide in enumerate(waiting):
            guide.found = bits[at].tobytes().ljust(self._mask_bytes, b"\0")

    def _matcher(self, structured: Structured) -> Any:
        with self._lock:
            found = self._found(structured)
        if found is None:
            made = _Compiled(self._made(*structured.source()))
            with self._lock:
                self._known[structured.source()] = made
                found = self._found(structured) or made
        return found.matcher

    def _found(self, structured: Structured) -> _Compiled | None:
        """What is compiled for it, which is the newest now and stays while `structured` lives."""
        source = structured.source()
        found = self._known.get(source)
        if found is None:
            return None
        self._newest[source] = found
        self._newest.move_to_end(source)
        if len(self._newest) > _KEPT:
            self._newest.popitem(last=False)
        address = id(structured)
        self._asked[address] = weakref.ref(structured, lambda _: self._asked.pop(address, None)), found
        return found

    def _made(self, name: str, text: str) -> Any:
        llguidance = _library()
        place = f"params.structured.{name}"
        limits = llguidance.LLParserLimits(verbose_errors=False, **_LIMITS)
        try:
            grammar = _grammar(llguidance, name, text)
        except ValueError as error:
            raise InputError(f"{place}: {_said(str(error))}") from None
        matcher = llguidance.LLMatcher(self._as_words(), grammar, limits=limits, log_level=0)
        self._mask_bytes = len(matcher.compute_bitmask())  # the first takes longest, and here nobody waits for it
        if matcher.is_error():
            raise InputError(f"{place}: {_said(matcher.get_error())}")
        return matcher

    def _as_words(self) -> Any:
        """The tokenizer as llguidance has it, made once; it takes about a second for a large one."""
        if self._words is None:
            from llguidance.hf import from_tokenizer

            vocabulary = max(self._vocabulary, len(self._tokenizer))
            try:
                if not self._ends:
                    raise ValueError("it has no end token")
                self._words = from_tokenizer(self._tokenizer, n_vocab=vocabulary, eos_token=self._ends)
            except Exception as error:  # whatever it is, this model has no structured replies
                kind = type(self._tokenizer).__name__
                raise InputError(
                    f"params.structured: expected a tokenizer that llguidance can read, got a {kind}: {error}"
                ) from None
        return self._words


@functools.cache
def _executor(threads: int) -> Any:
    return _library().LLExecutor(threads)


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise InputError(
            'params.structured: expected the package llguidance: pip install "penstock[grammar]"'
        ) from None
    return llguidance


def _grammar(llguidance: Any, name: str, text: str) -> str:
    matcher = llguidance.LLMatcher
    match name:
        case "json_schema":
            return matcher.grammar_from_json_schema(text, _JSON)
        case "json_object":
            return matcher.grammar_from_json_schema('{"type": "object"}', _JSON)
        case "regex":
            return matcher.grammar_from_regex(text)
        case "choice":
            texts = (json.dumps(one, ensure_ascii=False) for one in json.loads(text))
            return matcher.grammar_from_lark("start: " + " | ".join(texts))
        case _:
            return matcher.grammar_from_lark(text)


def _said(error: str) -> str:
    """What llguidance says, in one line, without what it adds for its own makers."""
    return " ".join(error.removesuffix("<non-verbose/>").split())
