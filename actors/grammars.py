"""Grammars of replies are compiled in a thread, before what asks for them is accepted. In: parameters. Out: nothing, or
InputError; a reply then finds its grammar compiled."""

from __future__ import annotations

from collections.abc import Iterable

from ..engine.words.grammar import Grammars
from ..streams.requests.request import SamplingParams
from ..streams.requests.structured import Structured
from .inputs import check_params
from .thread import WorkThread


class Compiling:
    """The compiled grammars of one engine, and the thread that makes them."""

    def __init__(self, grammars: Grammars, vocabulary: int) -> None:
        self._grammars = grammars
        self._vocabulary = vocabulary
        self._thread = WorkThread("penstock-grammar")

    def ready(self, params: SamplingParams) -> bool:
        """Whether there is nothing to compile for them."""
        return params.structured is None or self._grammars.has(params.structured)

    async def check(self, params: SamplingParams) -> None:
        """Check them, and compile what they ask for. Raises InputError. A cancelled wait changes nothing."""
        check_params(params, self._vocabulary)
        if params.structured is not None:
            await self.compile([params.structured])

    async def compile(self, wanted: Iterable[Structured]) -> None:
        """Raises InputError for the first that cannot be compiled."""
        for structured in wanted:
            if not self._grammars.has(structured):
                await self._thread.run(self._grammars.compile, structured)

    def stop(self) -> None:
        """Wait for the thread."""
        self._thread.stop()
