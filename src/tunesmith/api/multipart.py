"""Reads an upload's form while it comes in: small fields to a dict, the file's bytes straight to the store, never into memory.

Blocking code for a worker thread. The form's parts may come in any order; all is checked before the store keeps a byte.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tunesmith.errors import InvalidRequest

MAX_FIELD_BYTES = 64 * 1024
MAX_PARTS = 16


@dataclass
class Form:
    """What has come so far; complete when `file_chunks` is exhausted."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


def file_chunks(
    body: Iterable[bytes], content_type: str, form: Form, check: Callable[[Form], None], *, part: str = "file"
) -> Iterator[bytes]:
    """The bytes of the form's `part`, as they come; `form` is filled on the way and handed to `check` at the end.

    Raises InvalidRequest for a form that cannot be read, lacks the part, or does not end.
    """
    parser = _Parser(_boundary(content_type, part), form, part)
    for data in body:
        parser.feed(data)
        yield from parser.take()
    if not parser.is_complete:
        raise InvalidRequest("The upload ended in the middle of the form.", hint="Send it again.", param=part)
    if form.filename is None:
        raise InvalidRequest("The form holds no file.", hint=f"Send it as the part `{part}`.", param=part)
    check(form)


def _boundary(content_type: str, part: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidRequest("An upload is sent as multipart/form-data.", hint="See docs/files.md.", param=part)
    return options[b"boundary"]


class _Parser:
    """The push parser's callbacks: which part we are in, and where its bytes go."""

    def __init__(self, boundary: bytes, form: Form, file_part: str):
        self.is_complete = False
        self._form = form
        self._file_part = file_part
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._part: str | None = None
        self._is_file = False
        self._num_parts = 0
        self._field = bytearray()
        self._chunks: list[bytes] = []
        try:
            self._parser = MultipartParser(boundary, {
                "on_part_begin": self._begin,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            })
        except FormParserError as error:
            raise InvalidRequest("The form's boundary cannot be used.", hint="Use a shorter one.", param=file_part) from error

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest("The form cannot be read.", hint="Send multipart/form-data.", param=self._file_part) from error

    def take(self) -> list[bytes]:
        chunks, self._chunks = self._chunks, []
        return chunks

    def _begin(self) -> None:
        self._headers = {}
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.", hint="Send the file and its few fields.")

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._part == self._file_part
        self._field = bytearray()
        if self._is_file:
            if self._form.filename is not None:
                raise InvalidRequest("The form holds more than one file.", hint="Send one at a time.", param=self._file_part)
            self._form.filename = options.get(b"filename", b"").decode("utf-8", "replace") or "upload"

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._chunks.append(data[start:end])
            return
        self._field += data[start:end]
        if len(self._field) > MAX_FIELD_BYTES:
            raise InvalidRequest(f"A field is longer than {MAX_FIELD_BYTES} bytes.", hint="Shorten it.", param=self._part)

    def _on_part_end(self) -> None:
        if not self._is_file and self._part is not None:
            self._form.fields[self._part] = self._field.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.is_complete = True
