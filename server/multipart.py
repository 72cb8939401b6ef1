"""Forms with files, `multipart/form-data`. In: a body and the `content-type` of its request. Out: its fields by name.
Knows no door; the whole form is in memory, since its request is bounded.
"""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .errors import MessageError

# No form that is served has as many parts.
_MOST_PARTS = 64


def read_form(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a form, each as its bytes. MessageError for what is no such form, one that ends in the middle, and
    a field that comes twice."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise MessageError(f"content-type: expected multipart/form-data with its boundary, got {content_type[:80]!a}")
    form = _Form()
    calls = {f"on_{name}": getattr(form, f"on_{name}") for name in _CALLS}
    try:
        parser = MultipartParser(options[b"boundary"], calls)  # pyright: ignore[reportArgumentType]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MessageError(f"form: expected multipart/form-data, got a body that is none: {error}") from None
    if not form.complete:
        raise MessageError("form: expected a last boundary, got a body that ends in the middle")
    return form.fields


_CALLS = ("part_begin", "header_field", "header_value", "header_end", "part_data", "part_end", "end")


class _Form:
    """What the parser tells."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.complete = False
        self._name = self._header = self._value = b""
        self._data: list[bytes] = []

    def on_part_begin(self) -> None:
        if len(self.fields) == _MOST_PARTS:
            raise MessageError(f"form: expected at most {_MOST_PARTS} fields, got more")
        self._name, self._data = b"", []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name", b"")
        self._header = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def on_part_end(self) -> None:
        name = self._name.decode(errors="replace")
        if not name:
            raise MessageError("form: expected a name for each field, got a field without one")
        if name in self.fields:
            raise MessageError(f"{name[:80]}: expected one value, got two", name[:80])
        self.fields[name] = b"".join(self._data)

    def on_end(self) -> None:
        self.complete = True
