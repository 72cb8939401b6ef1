"""The functions that a Gemini client declares, as chat templates want them: OpenAI's form, with JSON schemas.

In: `tools` of a setup. Out: functions, or `GeminiFault`. Google's schemas write types in capitals.
"""

from __future__ import annotations

from typing import Any

from .wire import GeminiFault, choice_of, expected, fields, list_of, text_of

_FUNCTION = ("name", "description", "parameters", "parametersJsonSchema", "behavior", "response", "responseJsonSchema")


def tools_of(said: Any, place: str) -> list[dict[str, Any]]:
    """The functions of all tools. Tools that this server would have to run itself are faults."""
    found: list[dict[str, Any]] = []
    for number, tool in enumerate(list_of(said, place)):
        where = f"{place}[{number}]"
        declared = fields(tool, where, ("functionDeclarations",)).get("functionDeclarations", [])
        where += ".functionDeclarations"
        found += [_function(one, f"{where}[{n}]") for n, one in enumerate(list_of(declared, where))]
    return found


def _function(said: Any, place: str) -> dict[str, Any]:
    given = fields(said, place, _FUNCTION)
    if "behavior" in given:
        choice_of(given["behavior"], f"{place}.behavior", ("BLOCKING", "UNSPECIFIED"))
    if "parameters" in given and "parametersJsonSchema" in given:
        raise GeminiFault(f"{place}: expected parameters or parametersJsonSchema, got both")
    made: dict[str, Any] = {"name": text_of(given.get("name"), f"{place}.name")}
    if "description" in given:
        made["description"] = text_of(given["description"], f"{place}.description")
    schema = given.get("parametersJsonSchema") or json_schema(given.get("parameters") or {}, f"{place}.parameters")
    if not isinstance(schema, dict):
        raise expected(f"{place}.parametersJsonSchema", "an object", schema)
    made["parameters"] = schema or {"type": "object", "properties": {}}
    return {"type": "function", "function": made}


_SCHEMA = """type description title format enum items properties required nullable anyOf minimum maximum
minItems maxItems minLength maxLength minProperties maxProperties pattern default example propertyOrdering""".split()
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def json_schema(said: Any, place: str) -> dict[str, Any]:
    """A schema of Google's as a JSON schema."""
    made: dict[str, Any] = {}
    for name, value in fields(said, place, _SCHEMA).items():
        where = f"{place}.{name}"
        match name:
            case "type":
                made["type"] = text_of(value, where).lower()
            case "items":
                made["items"] = json_schema(value, where)
            case "properties":
                if not isinstance(value, dict):
                    raise GeminiFault(f"{where}: expected an object, got another value")
                made["properties"] = {key: json_schema(one, f"{where}.{key}") for key, one in value.items()}
            case "anyOf":
                made["anyOf"] = [json_schema(one, where) for one in list_of(value, where)]
            case "nullable" | "propertyOrdering" | "example":
                pass
            case _:
                made[name] = int(value) if name in _COUNTS and str(value).isdecimal() else value
    if said.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    return made
