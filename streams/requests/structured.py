"""What a reply has to look like: a schema, a regular expression, a choice or a grammar. Plain data, checked as far
as it can be without a model."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ...errors import InputError
from .messages import check_unicode

MOST_CHARACTERS = 65_536  # of what is given, as text
MOST_CHOICES = 4096


class Structured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, weakref=True):
    """What the words of a reply have to be (docs/structured.md). Exactly one of these is given.

    json_schema: JSON that is valid by this schema: a dictionary, or the schema's own text.
    json_object: any JSON object.
    regex: a text that this regular expression matches as a whole, as Rust's `regex` has them: without look-around and
        back-references.
    choice: one of these texts; at most 4,096, none empty.
    grammar: a text of this grammar, in the form of Lark that `llguidance` reads.

    Their text has at most 65,536 characters. The package `llguidance` compiles it before anything is asked, and what it
    cannot compile is refused with InputError.
    """

    json_schema: dict[str, Any] | str | None = None
    json_object: bool = False
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None

    def check(self) -> None:
        """Raise InputError, which names the field, where not exactly one is given, or one is of another type, empty or
        too long."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        given = [name for name, value in values.items() if value not in (None, False)]
        if len(given) != 1:
            known = ", ".join(self.__struct_fields__)
            raise InputError(f"structured: expected exactly one of {known}, got {' and '.join(given) or 'none'}")
        name = given[0]
        try:
            msgspec.convert({name: values[name]}, Structured)
        except msgspec.ValidationError as error:
            what = str(error).partition(" - at ")[0]
            raise InputError(f"structured.{name}: {what[:1].lower()}{what[1:]}") from None
        except RecursionError:
            raise InputError(f"structured.{name}: expected less deep nesting, got more") from None
        if name == "choice":
            self._check_choice(self.choice or [])
        text = self.source()[1]
        check_unicode(f"structured.{name}", text)
        if not text and name != "json_object":
            raise InputError(f"structured.{name}: expected at least one character, got none")
        if len(text) > MOST_CHARACTERS:
            raise InputError(f"structured.{name}: expected at most {MOST_CHARACTERS} characters, got {len(text)}")

    def source(self) -> tuple[str, str]:
        """Which field is given, and what it says as text. Raises InputError for a schema that is no JSON."""
        match self:
            case Structured(json_schema=dict() as given) | Structured(choice=list() as given):
                name = "choice" if self.choice is not None else "json_schema"
                try:
                    return name, json.dumps(given, ensure_ascii=False, allow_nan=False)
                except (TypeError, ValueError, RecursionError) as error:
                    raise InputError(f"structured.{name}: expected JSON, got a value that is none: {error}") from None
            case Structured(json_schema=str() as text):
                return "json_schema", text
            case Structured(regex=str() as text):
                return "regex", text
            case Structured(grammar=str() as text):
                return "grammar", text
        return "json_object", ""

    def _check_choice(self, choice: list[str]) -> None:
        if not 1 <= len(choice) <= MOST_CHOICES:
            raise InputError(f"structured.choice: expected 1 to {MOST_CHOICES} texts, got {len(choice)}")
        if not all(choice):
            raise InputError(
                f"structured.choice: expected texts that are not empty, got one at {choice.index('')} that is"
            )
