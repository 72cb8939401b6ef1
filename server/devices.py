"""Which cameras, microphones and codecs there are, and `penstock devices`, which prints them with what can compute.

In comes the system (Linux: /sys and /proc; else what FFmpeg lists); out go names and what PyAV opens them by. Opens no
device. Loads torch only to print.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import av.device
import msgspec
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from ..codecs.container import CODECS
from ..codecs.picture import FORMATS

# What FFmpeg calls the cameras and the microphones of a system.
CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
MICROPHONES = {"linux": "alsa", "darwin": "avfoundation", "win32": "dshow"}
_ALIASES: dict[str, str] = {"libdav1d": "av1", "libopus": "opus", "mp3float": "mp3", "pcm_*": "pcm"}
_PCM = "pcm_s16le"
_MEDIA = {"camera": "video", "microphone": "audio"}


class Device(msgspec.Struct, frozen=True):
    """A camera or a microphone. `word` is what `penstock ask` takes, `source` what PyAV opens, `why` why it cannot."""

    kind: str
    word: str
    name: str
    source: str
    why: str | None = None


def cameras(sys_root: Path = Path("/sys/class/video4linux"), dev_root: Path = Path("/dev")) -> list[Device]:
    """The cameras of this machine. On Linux the first node of each: the others hold its metadata."""
    if sys.platform != "linux":
        return _listed("camera", CAMERAS)
    found = []
    for node in sorted(sys_root.glob("video*"), key=_number):
        if _read(node / "index") in ("0", ""):
            path = dev_root / node.name
            found.append(Device("camera", f"camera:{_number(node)}", _read(node / "name"), str(path), _barred(path)))
    return found


def microphones(proc_root: Path = Path("/proc/asound"), dev_root: Path = Path("/dev/snd")) -> list[Device]:
    """The microphones of this machine; on Linux ALSA's devices that record."""
    if sys.platform != "linux":
        return _listed("microphone", MICROPHONES)
    found = []
    for line in _read(proc_root / "pcm").splitlines():  # "00-02: ALC257 Analog : ALC257 Analog : capture 1"
        match = re.match(r"(\d+)-(\d+): (.*)", line)
        if match and "capture" in line:
            card, device = int(match[1]), int(match[2])
            name = _card(proc_root, card) or match[3].split(" : ")[0]
            barred = _barred(dev_root / f"pcmC{card}D{device}c")
            found.append(Device("microphone", f"microphone:{card},{device}", name, f"plughw:{card},{device}", barred))
    return found


def codecs() -> dict[str, dict[str, bool]]:
    """By "picture", "video" and "audio": each codec that Penstock takes, and whether this PyAV decodes it."""
    have: dict[str, dict[str, bool]] = {"picture": {name.lower(): True for name in FORMATS}}
    for kind, names in CODECS.items():
        found = have[kind] = {}
        for name in names:
            if name != "av1":  # FFmpeg's own decodes nothing without a GPU for it.
                codec = _ALIASES[name] if name in _ALIASES else name
                found[codec] = found.get(codec, False) or _decodes(_PCM if name == "pcm_*" else name)
    return have


def main(options: argparse.Namespace) -> int:
    """Print what there is: for people, or with `--json` one object a line."""
    from ..engine.loading.compute import computers

    shown = [*computers(), *cameras(), *microphones()]
    if options.json:
        for device in shown:
            print(msgspec.json.encode(device).decode())
        for kind, names in codecs().items():
            print(msgspec.json.encode({"kind": "codec", "media": kind, "names": names}).decode())
        return 0
    for line in _table(shown):
        print(line)
    return 0


def none_found(kind: str) -> str:
    """What to say where there is no camera or no microphone."""
    where = ""
    if sys.platform == "linux":
        where = {"camera": " (no /dev/video*)", "microphone": " (nothing that records in /proc/asound)"}[kind]
    return f"{kind}: none found{where}; plug one in, or give a file instead"


def _table(shown: Sequence[msgspec.Struct]) -> Iterator[str]:
    yield "compute"
    for device in shown:
        if not isinstance(device, Device):
            yield f"  {device}"
    for kind in ("camera", "microphone"):
        yield f"{kind}s"
        of_kind = [device for device in shown if isinstance(device, Device) and device.kind == kind]
        for device in of_kind:
            yield f"  {device.word:16} {device.name} ({device.source})" + (f": {device.why}" if device.why else "")
        if not of_kind:
            yield f"  {none_found(kind).removeprefix(f'{kind}: ')}"
    yield "decodes"
    for kind, names in codecs().items():
        missing = [name for name, there in names.items() if not there]
        lacks = f"; this PyAV lacks {', '.join(missing)}" if missing else ""
        yield f"  {kind:8} {', '.join(name for name, there in names.items() if there)}{lacks}"


def opens(format: str) -> bool:
    """Whether this PyAV has FFmpeg's input `format`."""
    return any(format in names.split(",") for names in av.formats_available)


def _listed(kind: str, formats: dict[str, str]) -> list[Device]:
    """What FFmpeg lists; an index opens a device of avfoundation, a name one of dshow."""
    format, media = formats.get(sys.platform), _MEDIA[kind]
    if format is None or not opens(format):
        return []
    devices = [device for device in av.device.enumerate_input_devices(format) if media in device.media_types]
    return [
        Device(kind, f"{kind}:{number}", device.description, _opened_by(kind, format, number, device.name))
        for number, device in enumerate(devices)
    ]


def _opened_by(kind: str, format: str, number: int, name: str) -> str:
    if format == "dshow":
        return f"{_MEDIA[kind]}={name}"
    return str(number) if kind == "camera" else f":{number}"


def _barred(path: Path) -> str | None:
    if not path.exists():
        return f"{path} does not exist"
    return None if os.access(path, os.R_OK | os.W_OK) else "no permission"


def _card(proc_root: Path, card: int) -> str:
    """The name of an ALSA card: " 0 [PCH ]: HDA-Intel - HDA Intel PCH"."""
    match = re.search(rf"^ *{card} \[.*\]: .* - (.*)$", _read(proc_root / "cards"), re.MULTILINE)
    return match[1] if match else ""


def _number(node: Path) -> int:
    return int(re.sub(r"\D", "", node.name) or 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _decodes(name: str) -> bool:
    try:
        Codec(name, "r")
    except UnknownCodecError:
        return False
    return True
