"""What a stream may ask of its engine. `Stream` depends on this alone; `Engine` imports `Stream`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..streams.requests.request import SamplingParams

if TYPE_CHECKING:
    from pathlib import Path

    from ..engine.command import Back
    from ..engine.frozen import Frozen, Snapshot
    from .grammars import Compiling
    from .lookback import Keeping
    from .mailbox import Mailbox
    from .messages import DecodeMessage
    from .stream import Stream


class Facts(Protocol):
    """What is checked before an input is accepted."""

    @property
    def modalities(self) -> tuple[str, ...]: ...

    @property
    def classes(self) -> dict[str, str]: ...

    @property
    def left_out(self) -> dict[str, str]: ...

    @property
    def embeddings(self) -> tuple[str, ...]: ...

    @property
    def live_trained(self) -> bool: ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def kv_tokens(self) -> int: ...

    @property
    def turn_model(self) -> str | None: ...

    @property
    def one_shot(self) -> bool: ...


class Host(Protocol):
    """The engine of a stream."""

    @property
    def info(self) -> Facts: ...

    @property
    def decode(self) -> Mailbox[DecodeMessage]: ...

    @property
    def failed(self) -> BaseException | None: ...

    @property
    def keeping(self) -> Keeping: ...

    @property
    def compiling(self) -> Compiling: ...

    def send(self, message: Any) -> None:
        """A control message to schedule; lost where the engine has failed or is stopped."""

    def check_alive(self) -> None:
        """StreamClosedError where the engine has failed or is stopped."""

    async def fork(self, stream: Stream, again: SamplingParams | None, back: Back | None) -> Stream:
        """A twin of a stream of which nothing is in decode or encode."""
        ...

    def freeze(self, id: int, frozen: Frozen) -> int:
        """Copy a stream of which nothing is in decode or encode. Returns the number under which the copy comes."""
        ...

    async def save(self, snapshot: Snapshot, path: Path) -> None:
        """Write the copy to a file. Raises InputError where that cannot be."""

    def end_stream(self, id: int, reason: str) -> None:
        """Close a stream; `closed` waits for it."""

    async def closed(self, id: int) -> None:
        """Wait until the end of a stream has been told."""

    def park(self, id: int, parked: bool) -> None:
        """The client of a stream has stopped reading, or reads again."""
