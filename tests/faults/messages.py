"""Messages of any type with any content, made from its description."""

import hypothesis.strategies as st
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

# What a field of some name may well hold; everything else is drawn from its type.
Pool = dict[str, st.SearchStrategy[object]]

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
# Surrogates have no UTF-8; the rest of Unicode does, NUL included.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["", "\x00", "x" * 300, "%s", "'; drop table windows; --", "../../etc/passwd"]
)


def messages(kind: Descriptor, pool: Pool, depth: int = 3) -> st.SearchStrategy[Message]:
    """Messages of a type: each field is absent or has any value that its type can have."""
    fields = {
        field.name: _field(field, pool, depth)
        for field in kind.fields
        if depth or field.message_type is None
    }
    made = GetMessageClass(kind)
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: _filled(made, values))


def _filled(made: type[Message], values: dict[str, object]) -> Message:
    # Of a oneof, the last one counts: set one by one.
    message = made()
    for name, value in values.items():
        message.MergeFrom(made(**{name: value}))
    return message


def _field(field: FieldDescriptor, pool: Pool, depth: int) -> st.SearchStrategy[object]:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        key, value = inner.fields_by_name["key"], inner.fields_by_name["value"]
        return st.dictionaries(_value(key, pool, depth), _value(value, pool, depth), max_size=35)
    one = pool.get(field.name, st.nothing()) | _value(field, pool, depth)
    return st.lists(one, max_size=4) if field.is_repeated else one


def _value(field: FieldDescriptor, pool: Pool, depth: int) -> st.SearchStrategy[object]:
    if field.message_type is not None:
        return messages(field.message_type, pool, depth - 1)
    if field.cpp_type in _INTEGERS:
        least, greatest = _INTEGERS[field.cpp_type]
        return st.sampled_from([0, 1, least, greatest]) | st.integers(least, greatest)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return TEXT
    assert field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE, field.full_name
    return st.floats()
