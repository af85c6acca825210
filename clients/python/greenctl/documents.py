"""Messages as JSON documents: field names as in the protocol."""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message


def document(message: Message, indent: int | None = 2) -> str:
    """Return a message as one JSON document, without ``indent`` in one line.

    What is absent is left out.
    """
    return json.dumps(_plain(message), indent=indent, ensure_ascii=False)


def _plain(value: Any) -> Any:
    # MessageToDict's mapping, but with 64-bit integers as numbers.
    if isinstance(value, Message):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in value.DESCRIPTOR.fields
            if not field.has_presence or value.HasField(field.name)
        }
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float):
        return value
    return [_plain(item) for item in value]
