"""The OpenAPI document of the HTTP doors, `/openapi.json`: made from the structs by which their bodies are read, so
that it says what the server takes. Out: plain data. Knows no engine."""

from __future__ import annotations

from typing import Any

import msgspec

from .doors.openai_chat import ChatBody
from .doors.openai_completions import CompletionBody
from .doors.openai_responses import ResponseBody
from .doors.openai_transcription import TranscriptionForm, TranslationForm

BODIES: dict[str, tuple[type[msgspec.Struct], str]] = {
    "/v1/chat/completions": (ChatBody, "Reply to a conversation of words and media."),
    "/v1/completions": (CompletionBody, "Continue a text."),
    "/v1/responses": (ResponseBody, "Reply to a conversation, in the form of OpenAI's responses."),
    "/v1/audio/transcriptions": (TranscriptionForm, "The words of a sound."),
    "/v1/audio/translations": (TranslationForm, "The words of a sound, in English."),
}
_FORMS = (TranscriptionForm, TranslationForm)
_REFUSED = {
    "400": "The request is wrong; `param` is the place.",
    "401": "No key, or a wrong one.",
    "403": "A page of another origin, or a foreign host.",
    "404": "Another model than the one that is served.",
    "408": "The request did not come in time.",
    "413": "A body over `--max-message-bytes`.",
    "429": "Too many requests at once.",
    "500": "The server is at fault; its log says more.",
    "503": "The server is going down, or its engine has failed.",
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
# What a field may be beside its type, as `SamplingParams` and the doors check it.
_RANGES: dict[str, dict[str, float]] = {
    "n": {"minimum": 1, "maximum": 8},
    "max_tokens": {"minimum": 1},
    "max_completion_tokens": {"minimum": 1},
    "max_output_tokens": {"minimum": 1},
    "temperature": {"minimum": 0, "maximum": 100},
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"minimum": 0},
    "min_p": {"minimum": 0, "maximum": 1},
    "min_tokens": {"minimum": 0},
    "repetition_penalty": {"exclusiveMinimum": 0, "maximum": 100},
    "presence_penalty": {"minimum": -2, "maximum": 2},
    "frequency_penalty": {"minimum": -2, "maximum": 2},
    "top_logprobs": {"minimum": 0, "maximum": 20},
}
_PART = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": ["text", "image_url", "input_audio", "video_url", "audio_url"]}},
}
_MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]},
    },
}
_CARD = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
    },
}


def document(version: str) -> dict[str, Any]:
    """The document of a server of this version of Penstock."""
    kinds = [kind for kind, _ in BODIES.values()]
    (*bodies,), schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for kind in kinds:
        _finish(schemas[kind.__name__])
    schemas["ChatBody"]["properties"]["messages"]["items"] = _MESSAGE
    for form in _FORMS:
        schemas[form.__name__]["properties"]["file"] = {"type": "string", "format": "binary"}
    schemas |= {"Error": _ERROR, "Model": _CARD}
    paths: dict[str, Any] = {}
    for (path, (kind, what)), body in zip(BODIES.items(), bodies, strict=True):
        content = _ANSWER | (_TEXT if kind in _FORMS else {})
        answer = {"description": "The answer, whole or as server-sent events.", "content": content}
        paths[path] = {
            "post": {
                "summary": what,
                "requestBody": {"required": True, "content": {_type(kind): {"schema": body}}},
                "responses": {"200": answer, **_refusals()},
            }
        }
    listed = {
        "type": "object",
        "required": ["object", "data"],
        "properties": {"data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}},
    }
    paths["/v1/models"] = {"get": _read("The model that is served.", listed)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Penstock", "version": version, "description": "docs/openai.md says what each field does."},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


_ANSWER = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {}}}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


def _type(kind: type[msgspec.Struct]) -> str:
    """The content type of a body."""
    return "multipart/form-data" if kind in _FORMS else "application/json"


def _finish(schema: dict[str, Any]) -> None:
    """A field that is null is one that is not there; the others have their ranges."""
    for name, field in schema["properties"].items():
        places = field.get("anyOf", [field])
        places[0] |= _RANGES.get(name, {})
        if name not in schema.get("required", ()) and "anyOf" not in field:
            default = {"default": field.pop("default")} if "default" in field else {}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **default}


def _read(what: str, schema: dict[str, Any]) -> dict[str, Any]:
    answer = {"description": what, "content": {"application/json": {"schema": schema}}}
    return {"summary": what, "responses": {"200": answer, **_refusals()}}


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": why, "content": content} for status, why in _REFUSED.items()}
