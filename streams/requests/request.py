"""How a stream is opened and how a reply is sampled. Plain data, checked where it enters."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from ...errors import InputError
from ..format import BY_NAME
from .messages import check_messages, check_tools, check_unicode
from .structured import Structured
from .turns import TurnDetection
from .window import Window

FORMATS = ("auto", *BY_NAME)
MOST_LOGPROBS = 20
MOST_STOPS, MOST_STOP_CHARACTERS = 64, 1024  # stop strings, and characters of each
FPS = (0.01, 60.0)
MOST_LATENESS_US = 60_000_000
STILL_SECONDS = (0.1, 3600.0)
LOOKBACK_SECONDS = (0.1, 600.0)
_UNTYPED = ("media", "messages", "params", "processor", "tools")  # looked at elsewhere


def _check_types(given: SamplingParams | Request) -> None:
    """InputError where a field is not of the type that it is declared with."""
    values = {name: getattr(given, name) for name in given.__struct_fields__ if name not in _UNTYPED}
    try:
        msgspec.convert(values, type(given))
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        place = path.strip("`").replace("key` in `$.", "a key of ").removeprefix("$.")
        raise InputError(f"{place}: {what[:1].lower()}{what[1:]}") from None


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint's replies are drawn if their params do not say, by its generation_config.json.

    The defaults are those of a checkpoint that says nothing: the likeliest token, without filters and penalty.

    temperature: 0 takes the likeliest token; otherwise the logits are divided by it.
    top_k: only the k likeliest tokens are drawn. 0: no such filter.
    top_p: only the likeliest tokens are drawn whose probabilities sum to this. 1: no such filter.
    min_p: only tokens are drawn that are at least this part as likely as the likeliest. 0: no such filter.
    repetition_penalty: see `SamplingParams`. 1: none.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __str__(self) -> str:
        plain = Sampling()
        names = [name for name in self.__struct_fields__ if getattr(self, name) != getattr(plain, name)]
        said = [f"{name} {getattr(self, name):g}" for name in names]
        return ", ".join(said if self.temperature else ["greedy", *said])


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the tokens of one reply are chosen. It belongs to the reply and goes on across media that is spliced in.

    A value out of range, or of another type, raises InputError at the call that gets it (`check`). If `temperature`,
    `top_k`, `top_p`, `min_p` or `repetition_penalty` is `None`, the value of the checkpoint's generation_config.json
    holds; if that has none, the defaults of `Sampling`.

    The order: penalties on the reply's own tokens so far, `logit_bias`, no end token before `min_tokens`, what
    `structured` allows, then `temperature`, `top_k`, `top_p`, `min_p`.

    max_tokens: the most tokens of the reply, at least 1. It then ends with the reason "length".
    temperature: 0 to 100. 0 takes the likeliest token (greedy).
    top_k: only the k likeliest tokens are drawn. 0: no such filter.
    top_p: above 0 and at most 1: only the likeliest tokens are drawn whose probabilities sum to this. 1: no filter.
    min_p: 0 to 1: only tokens are drawn that are at least this part as likely as the likeliest. 0: no such filter.
    seed: makes the draws of this reply repeatable. `None`: they are different each time.
    stop: strings that end the reply and are not part of it; at most 64 of at most 1,024 characters each, none empty.
    stop_token_ids: token ids that end the reply, beside the end tokens of the model.
    hold: in the formats `live`, `per-frame` and `units`, the reply stays open when the model ends it while media is
        still expected (`Stream.watch`). It ends with an interrupt, the next question or the end of the media.
    repetition_penalty: above 0 and at most 100: a positive logit of a token that the reply has is divided by it, a
        negative one is multiplied (arXiv 1909.05858). 1: none.
    presence_penalty: -2 to 2: is subtracted once from the logit of a token that the reply has.
    frequency_penalty: -2 to 2: is subtracted once for each time that the reply has the token.
    logit_bias: token id to a number from -100 to 100 that is added to its logit.
    min_tokens: no end token is drawn before the reply has so many tokens; 0 to `max_tokens`.
    ignore_eos: the end tokens of the model are words like others.
    logprobs: k from 0 to 20: each token comes with its log probability and the k likeliest tokens with theirs, by the
        model, before penalties, biases and filters. `None`: without.
    structured: what the words of the reply have to be (`Structured`, docs/structured.md). End tokens, those of
        `stop_token_ids` too, are drawn only where they are complete, and there also before `min_tokens` if nothing else
        may follow. Not with `ignore_eos`. `None`: anything.
    """

    max_tokens: int = 256
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    hold: bool = False
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    structured: Structured | None = None

    def seeded(self) -> SamplingParams:
        """The same params with a seed: a new random one if they have none."""
        return self if self.seed is not None else msgspec.structs.replace(self, seed=random.getrandbits(63))

    def over(self, own: Sampling) -> Sampling:
        """What the checkpoint says, except for the values that are set here."""
        said = {name: getattr(self, name) for name in Sampling.__struct_fields__}
        return msgspec.structs.replace(own, **{name: value for name, value in said.items() if value is not None})

    def check(self) -> None:
        """Raise InputError where a value is of another type or out of range; says what was expected, and the value."""
        _check_types(self)
        way = self.over(Sampling())
        longest = max(map(len, self.stop), default=0)
        rules = (
            ("max_tokens", self.max_tokens >= 1, "at least 1", self.max_tokens),
            ("temperature", 0 <= way.temperature <= 100, "in [0, 100]", self.temperature),
            ("top_k", way.top_k >= 0, "0 or more", self.top_k),
            ("top_p", 0 < way.top_p <= 1, "in (0, 1]", self.top_p),
            ("min_p", 0 <= way.min_p <= 1, "in [0, 1]", self.min_p),
            ("stop", all(self.stop), "strings that are not empty", self.stop),
            ("stop", len(self.stop) <= MOST_STOPS, f"at most {MOST_STOPS} strings", len(self.stop)),
            ("stop", longest <= MOST_STOP_CHARACTERS, f"at most {MOST_STOP_CHARACTERS} characters in each", longest),
            ("repetition_penalty", 0 < way.repetition_penalty <= 100, "in (0, 100]", self.repetition_penalty),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "in [-2, 2]", self.presence_penalty),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "in [-2, 2]", self.frequency_penalty),
            ("logit_bias", all(abs(b) <= 100 for b in self.logit_bias.values()), "in [-100, 100]", self.logit_bias),
            ("logprobs", 0 <= (self.logprobs or 0) <= MOST_LOGPROBS, f"0 to {MOST_LOGPROBS}", self.logprobs),
            ("min_tokens", 0 <= self.min_tokens <= self.max_tokens, f"0 to {self.max_tokens}", self.min_tokens),
        )
        for name, fits, expected, got in rules:
            if not fits:
                raise InputError(f"{name}: expected {expected}, got {got!r}")
        if self.structured is not None:
            self.structured.check()
            if self.ignore_eos:
                raise InputError(
                    "ignore_eos: expected false with structured, whose replies end with an end token, got true"
                )


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream, or one call of `generate`, starts from.

    A value of another type, or one that is not allowed, raises InputError at the call that gets the request (`check`).

    system: the system prompt. `None` takes the one of the chat template, if it has one.
    messages: a conversation; a reply to it starts at once. A list of `{"role": ..., "content": ...}`, where the content
        is text, or a list of parts as Hugging Face or OpenAI write them. At most one of `messages`, `prompt` and
        `prompt_ids` is given.
    tools: functions that the model may call, each `{"type": "function", "function": {"name": ..., "description": ...,
        "parameters": JSON schema}}`, as OpenAI writes them. The model's chat template writes them into the prompt, so
        they come with `messages`. What the model calls comes as words of the reply.
    prompt: the text of the model with its placeholders, ready for a reply, which starts at once.
    prompt_ids: its token ids, with one placeholder for each piece of media. A reply starts at once.
    media: what the placeholders of `prompt` or `prompt_ids` stand for, in order: PIL images, arrays (`(h, w, 3)` or
        `(n, h, w, 3)` uint8, `(n,)` float at the model's rate), `(samples, rate)`, sequences of pictures, bytes or
        paths of files, `data:` URLs, content parts, or items.
    control_tokens: words that look like a control token of the model count as one. They can then open a turn or ask for
        media. False: they are plain words. It holds for `system`, `messages`, texts and questions; `prompt` always has
        control tokens.
    processor: options of the model's processor, by name: `min_pixels`, `max_pixels`, `fps` and others that the model
        has. They hold for prompts and for what is appended.
    format: "turns", "live", "interrupt", "per-frame", "units", or "auto": live if the model declares that it was
        trained for it, else turns (docs/formats.md).
    splice_tokens: in "live", the fewest tokens that a reply says between two pieces of media, at least 1. `None`: as
        many as the model was trained to say, or 1 if it does not declare a number.
    unit_tokens: in "units", after how many tokens a reply waits for the next second of media, at least 1.
    policy: what happens if media comes faster than it is taken. "block", for files: `Stream.append` waits. "latest",
        for cameras: the oldest media that is not encoded is dropped.
    drop_still: drop video that shows nothing new and sound that is silent before they cost anything, but for one piece
        in so many seconds of media time, 0.1 to 3,600, and at most half of what the model has positions for. Each comes
        as a `Dropped` event, "still". Images and units of picture and sound are always taken. `None`: nothing is
        dropped for this reason.
    lookback: how many seconds of its newest frames and sound the stream keeps as they came, 0.1 to 600, so that a
        question may look back at them at their full frame rate (docs/fork.md). What has no `pts_us`, files and still
        pictures are not kept. The oldest go first, also if they are more than `MediaLimits.max_lookback_bytes`, 64 MiB.
        `None`: nothing is kept. InputError together with `audio_in_video`.
    video_fps: frames a second that the model gets, 0.01 to 60. `None` takes the rate of the model. With the policy
        "latest" it is also what the stream declares to need: it is refused with OverloadError if the machine would not
        keep up.
    video_fps_idle: frames a second while nothing happens, 0.01 to `video_fps`: no question waits, no reply speaks, and
        the scene has not just changed. With the policy "latest" it is also the rate while earlier media waits for more
        than a second, before any is lost. What is left out comes as `Dropped` events, "rate". Not with
        `audio_in_video`. `None`: the rate is always the same (docs/formats.md).
    video_pixels_idle: the most pixels that a frame has while nothing happens, and while earlier media waits for more
        than a second as above. A question, a reply and another scene give frames their full size at once.
        `Appended.rows` says which size went in. InputError for a number that the model's processor cannot give, for a
        model whose frames all have one number of rows, and together with `audio_in_video`. `None`: frames always have
        their full size (docs/formats.md).
    expected_frames: how many frames the video will have, if that is known. Then frames have the size that the model's
        processor gives such a video.
    audio_in_video: sound and picture are one source and go in as interleaved units of the model. InputError if the
        model has no such units.
    positions: where a row after a block of media stands. "max": after the largest position of all axes. "transformers":
        by the rule of the installed library (docs/formats.md).
    lateness_us: how far media may arrive out of order, in microseconds of media time, 0 to 60,000,000. Media waits so
        long before it goes to the model.
    window: how much of its past the stream keeps if it may not keep all (`Window`). By default its oldest media leaves
        when its part of the cache is full, and the stream goes on. `None`: it keeps all, and refuses what does not fit.
    reserve_tokens: the most rows of KV cache that the stream will need. They are reserved, or the stream is refused
        with InputError. `None`: nothing is reserved, and the stream may use the cache as far as there is room.
    cache_salt: streams share pages of the prefix cache only if they have the same salt (docs/memory.md). `None`: they
        share with all that have none.
    adapter: the name of the adapter that the stream wears, its towers, projector and decoder
        (`Engine.load_adapter`, docs/adapters.md). `None`: the model as it is.
    turn_detection: the stream hears when somebody speaks, replies when they stop and falls silent when they start
        (`TurnDetection`). `None`: its client asks and interrupts.
    params: how replies are drawn if a question does not say.
    """

    system: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] = []
    prompt: str | None = None
    prompt_ids: list[int] | None = None
    media: list[Any] = []
    control_tokens: bool = False
    processor: dict[str, bool | int | float] = {}
    format: str = "auto"
    splice_tokens: int | None = None
    unit_tokens: int = 20
    policy: str = "block"
    drop_still: float | None = None
    lookback: float | None = None
    video_fps: float | None = None
    video_fps_idle: float | None = None
    video_pixels_idle: int | None = None
    expected_frames: int | None = None
    audio_in_video: bool = False
    positions: str = "max"
    lateness_us: int = 0
    window: Window | None = Window()
    reserve_tokens: int | None = None
    cache_salt: str | None = None
    adapter: str | None = None
    turn_detection: TurnDetection | None = None
    params: SamplingParams = SamplingParams()

    def check(self) -> None:
        """Raise InputError where a value is of another type or not one of those above; says which are."""
        _check_types(self)
        if not isinstance(self.params, SamplingParams):
            raise InputError(f"params: expected SamplingParams, got {type(self.params).__name__}")
        if not isinstance(self.processor, dict):
            raise InputError(f"processor: expected a dictionary, got {type(self.processor).__name__}")
        if not isinstance(self.media, list | tuple):
            raise InputError(f"media: expected a list, got {type(self.media).__name__}")
        if self.messages is not None:
            check_messages(self.messages)
        check_tools(self.tools)
        for name, value, allowed in (
            ("format", self.format, FORMATS),
            ("policy", self.policy, ("block", "latest")),
            ("positions", self.positions, ("max", "transformers")),
        ):
            if value not in allowed:
                raise InputError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        for name, fps in (("video_fps", self.video_fps), ("video_fps_idle", self.video_fps_idle)):
            if fps is not None and not FPS[0] <= fps <= FPS[1]:
                raise InputError(f"{name}: expected a number in [{FPS[0]:g}, {FPS[1]:g}], got {fps}")
        for name, idle in (("video_fps_idle", self.video_fps_idle), ("video_pixels_idle", self.video_pixels_idle)):
            if idle is not None and self.audio_in_video:
                raise InputError(f"{name}: expected none with audio_in_video, whose units always go in whole; got both")
        if self.drop_still is not None and not STILL_SECONDS[0] <= self.drop_still <= STILL_SECONDS[1]:
            least, most = STILL_SECONDS
            raise InputError(f"drop_still: expected a number in [{least:g}, {most:g}], got {self.drop_still}")
        if self.lookback is not None and not LOOKBACK_SECONDS[0] <= self.lookback <= LOOKBACK_SECONDS[1]:
            least, most = LOOKBACK_SECONDS
            raise InputError(f"lookback: expected a number in [{least:g}, {most:g}], got {self.lookback}")
        if self.lookback is not None and self.audio_in_video:
            raise InputError("lookback: expected no audio_in_video beside it, got both")
        if self.expected_frames is not None and self.expected_frames < 1:
            raise InputError(f"expected_frames: expected at least 1, got {self.expected_frames}")
        if self.splice_tokens is not None and self.splice_tokens < 1:
            raise InputError(f"splice_tokens: expected at least 1, got {self.splice_tokens}")
        if self.unit_tokens < 1:
            raise InputError(f"unit_tokens: expected at least 1, got {self.unit_tokens}")
        if self.reserve_tokens is not None and self.reserve_tokens < 1:
            raise InputError(f"reserve_tokens: expected at least 1, got {self.reserve_tokens}")
        if not 0 <= self.lateness_us <= MOST_LATENESS_US:
            raise InputError(f"lateness_us: expected 0 to {MOST_LATENESS_US}, got {self.lateness_us}")
        self._check_prompt()
        self.params.check()
        if self.window is not None:
            self.window.check()
        if self.turn_detection is not None:
            self.turn_detection.check()
            if self.audio_in_video:
                raise InputError("turn_detection: expected no audio_in_video beside it, got both")

    @property
    def starts(self) -> bool:
        """A reply starts at once."""
        return any(given is not None for given in (self.messages, self.prompt, self.prompt_ids))

    def _check_prompt(self) -> None:
        given = [name for name in ("messages", "prompt", "prompt_ids") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"{given[1]}: expected one of messages, prompt and prompt_ids, got {' and '.join(given)}")
        if self.tools and self.messages is None:
            raise InputError("tools: expected messages beside them, got none")
        if self.media and given not in (["prompt"], ["prompt_ids"]):
            got = given[0] if given else "neither"
            raise InputError(f"media: expected prompt or prompt_ids beside them, got {got}")
        if self.system is not None and given in (["prompt"], ["prompt_ids"]):
            raise InputError(f"system: expected it inside {given[0]}, got both")
        if self.prompt_ids is not None and not self.prompt_ids:
            raise InputError("prompt_ids: expected at least one token id, got none")
        if self.prompt is not None and not self.prompt:
            raise InputError("prompt: expected at least one character, got none")
        check_unicode("prompt", self.prompt or "")
        check_unicode("cache_salt", self.cache_salt or "")
        check_unicode("adapter", self.adapter or "")
