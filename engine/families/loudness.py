"""How loud the streams of towers that hear have been, as far as they were told. It knows no towers."""

from __future__ import annotations


class Loudness:
    """The loudest sound of each stream so far, for towers whose rows of a sound hang on it."""

    def __init__(self) -> None:
        self._loudest: dict[int, float] = {}

    def fork(self, stream: int, twin: int) -> None:
        if stream in self._loudest:
            self._loudest[twin] = self._loudest[stream]

    def loudest(self, stream: int) -> float | None:
        return self._loudest.get(stream)

    def heard(self, stream: int, loudest: float) -> None:
        self._loudest[stream] = loudest

    def forget(self, stream: int) -> None:
        self._loudest.pop(stream, None)
