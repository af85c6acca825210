"""Reading protobuf messages."""

from typing import Any

from google.protobuf.message import Message


def known(message: Message, *names: str) -> dict[str, Any]:
    """Return the fields named, by name; absent ones and empty strings are None."""
    fields = message.DESCRIPTOR.fields_by_name
    return {
        name: None
        if fields[name].has_presence and not message.HasField(name)
        else (value if (value := getattr(message, name)) != "" else None)
        for name in names
    }
