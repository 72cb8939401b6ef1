"""How replies are drawn, as OpenAI's clients say it. In: fields of a body. Out: `SamplingParams`, or MessageError with
the client's own name of the field."""

from __future__ import annotations

import msgspec

from ..errors import InputError
from ..streams.requests.messages import described
from ..streams.requests.request import SamplingParams
from ..streams.requests.structured import Structured
from .errors import MessageError
from .openai_words import as_places
from .tool_calls import CALL_ENDS

# The longest reply where a request does not say: a model that does not end must not take a place for ever.
DEFAULT_TOKENS = 4096


class Drawing(msgspec.Struct, kw_only=True):
    """The fields of a body that chats and completions share; those from `top_k` on are extensions, as vLLM has them."""

    model: str | None = None
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] = []
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[str, float] = {}
    stream: bool = False
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: list[int] = []
    min_tokens: int = 0
    ignore_eos: bool = False
    cache_salt: str | None = None


def sampling(
    body: Drawing,
    most: int,
    limit: str,
    logprobs: int | None = None,
    likely: str = "top_logprobs",
    form: Structured | None = None,
    one_call: bool = False,
) -> SamplingParams:
    """How each reply is drawn. `most`: its longest, from the field `limit`; `logprobs` come from the field `likely`;
    `form`: what it has to be; `one_call`: it ends with the first call of a tool."""
    try:
        bias = {int(id): value for id, value in body.logit_bias.items()}
    except ValueError:
        raise MessageError(
            f"logit_bias: expected token ids as names, got {described(body.logit_bias)}", "logit_bias"
        ) from None
    params = SamplingParams(
        max_tokens=most,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        seed=body.seed,
        stop=((body.stop,) if isinstance(body.stop, str) else tuple(body.stop)) + ((CALL_ENDS,) if one_call else ()),
        stop_token_ids=tuple(body.stop_token_ids),
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=bias,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        logprobs=logprobs,
        structured=form,
    )
    try:
        params.check()
    except InputError as error:
        raise as_places(error, {"max_tokens": limit, "logprobs": likely, "structured": "response_format"}) from None
    return params


def check_number(body: Drawing, prompts: int, most: int) -> None:
    """MessageError where more replies are asked for than one client may have streams."""
    if not 1 <= body.n * prompts <= most:
        each = "" if prompts == 1 else f" for {prompts} prompts"
        raise MessageError(f"n: expected 1 to {most // prompts or 1}{each}, got {body.n}", "n")
