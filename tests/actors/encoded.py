"""Mailboxes whose messages go through bytes, as they would between processes."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.actors import messages, wiring
from penstock.actors.mailbox import Mailbox
from penstock.engine.encoding import decoder, encode

_DECODER = decoder(messages.Message)


class EncodedMailbox(Mailbox[Any]):
    """Encodes and decodes what is put in."""

    def put_now(self, message: Any, size_bytes: int = 0) -> None:
        super().put_now(_DECODER.decode(encode(message)), size_bytes)

    def put_control(self, message: Any) -> None:
        super().put_control(_DECODER.decode(encode(message)))


def encode_all(patch: pytest.MonkeyPatch) -> None:
    """Engines that are made from now on have such mailboxes."""
    patch.setattr(wiring, "Mailbox", EncodedMailbox)
