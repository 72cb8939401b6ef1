"""What decode holds of one stream as bytes, and back: frames that wait for their patch, sound that waits for its block.

Files that are being read are left out, and so is the past of a resampler, as in a fork. A detector of speech has
nothing of its own: what it knows of the sound before is with the ear.
"""

from __future__ import annotations

from typing import Any

from ..codecs import frame
from ..codecs.decoders import Decoders
from ..engine.graph import Graph
from ..streams import audio, event, order, segment, sieve, size, timeline, tracks, unit, video
from ..streams.listening import ear, rule
from ..streams.listening.detectors import Hearing
from ..streams.requests import turns
from ..streams.requests.request import Request
from ..streams.segment import MediaSpec
from . import intake
from .intake import Intake

_HOMES = (frame, audio, ear, event, order, rule, segment, sieve, size, timeline, tracks, turns, unit, video, intake)


def freeze(stream: Intake) -> bytes:
    """Raises TypeError where it holds what is no data."""
    return Graph(_HOMES, dict.fromkeys(_given(stream))).write(stream.fork())


def thaw(data: bytes, spec: MediaSpec, request: Request, decoders: Decoders, hearing: Hearing) -> Intake:
    """The intake that `freeze` wrote, for a stream with the same request. Raises ValueError for other bytes."""
    thawed = Graph(_HOMES, _given(Intake(spec, request, decoders, hearing))).read(data)
    if not isinstance(thawed, Intake):
        raise ValueError(f"expected an intake, got a {type(thawed).__name__}")
    return thawed


def _given(stream: Intake) -> dict[tuple[type, str], Any]:
    """What an intake has of its engine."""
    line, hears = stream._timeline, {}
    if line.ear is not None:
        heard = line.ear
        own = {"_detector": heard._detector, "_ends": heard._ends, "_make_resampler": intake.StreamResampler}
        hears = {(ear.Ear, name): value for name, value in own.items()}
    return {
        **hears,
        (Intake, "_decoders"): stream._decoders,
        (Intake, "_spec"): stream._spec,
        (Intake, "_request"): stream._request,
        (Intake, "_live"): stream._live,
        (Intake, "_hearing"): stream._hearing,
        (Intake, "_sized"): stream._sized,
        (timeline.Timeline, "_resize"): line._resize,
        (video.Pictures, "_resize"): line._resize,
        (audio.AudioBlocks, "_make_resampler"): intake.StreamResampler,
    }
