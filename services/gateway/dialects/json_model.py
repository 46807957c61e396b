"""Typed models of request bodies: every field is declared once, with its type, bounds, texts and example.

From the declarations follow three things: `read_model` checks a parsed body, `unread_paths` finds the fields that have
no influence, and services.gateway.openapi makes the document of the API. Decision record 0017 compares the libraries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import orjson
from msgspec import inspect

from services.gateway.errors import ApiError, bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message


class RequestModel(msgspec.Struct):
    """Base of the objects of request bodies. A field that is null counts as absent.

    Integers have both bounds, and dictionaries hold values of any type, so that the path of every error is exact.
    """

    conditions: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Schemas that the API's document adds, about several fields at once; readers check the same."""


class ResponseModel(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of the objects of responses, as the API's document has them. Responses are not made from it; tests compare.

    A field that may be absent is declared as `T | UnsetType`.
    """


M = TypeVar("M", bound=RequestModel)
NonNegative = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
HIDDEN: Final = msgspec.Meta(extra_json_schema={"x-hidden": True})
"""Marks a field that is read, and not part of the API's document."""
NULLABLE: Final = msgspec.Meta(extra_json_schema={"x-nullable": True})
"""Marks an optional field whose null is part of the API's document."""
REQUIRED: Final = msgspec.Meta(extra_json_schema={"x-required": True})
"""Marks a field as required in the API's document that may be absent here, because its reader checks it."""

_PATH: Final = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+)\]")
_MISSING: Final = re.compile(r"^Object missing required field `(?P<name>\w+)`")
_MOST_LEVELS: Final = 254
"""The most levels of objects and lists that orjson writes."""
_MOST_CONVERSIONS: Final = 32
"""The most conversions in one body. Each is about one field, or one list, that has integers written as 5.0."""
_NOTHING: Final[tuple[Any, ...]] = (None, [], {})
_TYPES: Final[dict[type[inspect.Type], str]] = {
    inspect.StructType: "object",
    inspect.DictType: "object",
    inspect.ListType: "array",
    inspect.StrType: "string",
    inspect.LiteralType: "string",
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
}
"""JSON Schema's names of types, which messages use in every language."""


def doc(
    en: str,
    fa: str,
    *,
    example: Any = msgspec.UNSET,
    default: Any = msgspec.UNSET,
    no_effect_values: tuple[Any, ...] | None = None,
    schema: Mapping[str, Any] | None = None,
    alternatives: Sequence[Mapping[str, Any]] = (),
) -> msgspec.Meta:
    """Return the documentation of a field, for `Annotated`.

    Args:
        en: The description in English.
        fa: The description in Persian.
        example: A value that the field may have.
        default: What an absent field stands for, where a worker decides it; otherwise it is the default of the model.
        no_effect_values: Values that change nothing. With any other value the field is reported as ignored.
        schema: Further keywords of JSON Schema, such as bounds that a worker checks.
        alternatives: The schemas of which a value matches one, if they say more than the types of the field.
    """
    further = {
        **(schema or {}),
        **({"x-alternatives": list(alternatives)} if alternatives else {}),
        **({} if example is msgspec.UNSET else {"examples": [example]}),
        **({} if default is msgspec.UNSET else {"x-default": default}),
    }
    return msgspec.Meta(
        extra_json_schema={"description": {"en": en, "fa": fa}, **further},
        extra=None if no_effect_values is None else {"no_effect_values": no_effect_values},
    )


def read_model(model: type[M], body: object) -> M:
    """Return a parsed body as an instance of its model.

    Integers that are written as 5.0 are integers in JSON Schema but not for msgspec; they are replaced in `body`.

    Raises:
        ApiError: A 400 for the first field that does not fit: its path, what it holds and what it must be.
    """
    for attempt in range(_MOST_CONVERSIONS):
        try:
            return msgspec.convert(body, model)
        except msgspec.ValidationError as error:
            problem = _find(model, body, str(error))
            if attempt == _MOST_CONVERSIONS - 1 or not problem.is_integral_float():
                raise bad_request(problem.message()) from None
            _write_as_integers(problem)
    raise AssertionError


def _write_as_integers(problem: _Problem) -> None:
    """Replace an integer that is written as 5.0; in a list also the others, so that each list is converted once."""
    if isinstance(problem.parent, list):
        for index, value in enumerate(problem.parent):
            if isinstance(value, float) and value.is_integer():
                problem.parent[index] = int(value)
    else:
        problem.parent[problem.name] = int(problem.value)


def unread_paths(request: RequestModel, body: Mapping[str, Any]) -> list[str]:
    """Return the paths of fields in a body that its model does not have. Null, [] and {} ask for nothing.

    `request` is what `read_model` made of `body`.
    """
    paths: list[str] = []
    _add_unread(request, body, "", paths)
    return paths


def missing(path: str, expected: str) -> ApiError:
    """Return the error of an absent field. `expected` is its type in JSON Schema; `a | b` for either of two."""
    return bad_request(Message("field_missing", field=path, expected=expected))


def wrong_type(path: str, expected: str, value: object) -> ApiError:
    """Return the error of a value of another type than `expected`, as above."""
    return bad_request(Message("wrong_type", field=path, value=shown(value), expected=expected))


def json_text(path: str, value: Any) -> str:
    """Return a field's value as JSON text. Raises ApiError for one that is nested too deeply for the encoder."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise bad_request(Message("nested_too_deeply", field=path, limit=_MOST_LEVELS)) from None


def literals(model: type[msgspec.Struct], name: str) -> list[str]:
    """Return the strings that a field may be, in the order of their declaration. msgspec sorts them."""
    return list(_literals(get_type_hints(model, include_extras=True)[name]))


def _literals(hint: Any) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        for argument in get_args(hint):
            yield from _literals(argument)


class _Shape(NamedTuple):
    """The part of a model that decides which fields of a body have no influence."""

    names: frozenset[str]
    """The fields that it has."""
    inner: tuple[str, ...]
    """The fields that may hold objects with a model of their own."""
    no_effect_values: tuple[tuple[str, tuple[Any, ...]], ...]
    """The fields that may only ask for what is done anyway, and how they do."""


@cache
def _shape(model: type[RequestModel]) -> _Shape:
    info = inspect.type_info(model)
    assert isinstance(info, inspect.StructType)  # noqa: S101  # for the type checker
    names = {field.encode_name for field in info.fields} | {info.tag_field or ""}
    no_effect_values = [
        (field.encode_name, field.type.extra["no_effect_values"])
        for field in info.fields
        if isinstance(field.type, inspect.Metadata) and field.type.extra
    ]
    inner = [field.encode_name for field in info.fields if any(_holds_models(kind) for kind in _kinds(field.type))]
    return _Shape(frozenset(names), tuple(inner), tuple(no_effect_values))


def _holds_models(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.ListType):
        return any(_holds_models(item) for item in _kinds(kind.item_type))
    return isinstance(kind, inspect.StructType)


def _kinds(node: inspect.Type) -> Iterator[inspect.Type]:
    """Yield the alternatives of a type, without null."""
    if isinstance(node, inspect.Metadata):
        yield from _kinds(node.type)
    elif isinstance(node, inspect.UnionType):
        for alternative in node.types:
            yield from _kinds(alternative)
    elif not isinstance(node, inspect.NoneType):
        yield node


def _add_unread(request: RequestModel, body: Mapping[str, Any], prefix: str, paths: list[str]) -> None:
    shape = _shape(type(request))
    if not body.keys() <= shape.names:
        paths += [f"{prefix}{name}" for name in body if name not in shape.names and body[name] not in _NOTHING]
    for name, values in shape.no_effect_values:
        if name not in body:
            continue
        value = getattr(request, name)
        if value is not None and value not in _NOTHING and value not in values:
            paths.append(f"{prefix}{name}")
    for name in shape.inner:
        if name not in body:
            continue
        value = getattr(request, name)
        if isinstance(value, RequestModel):
            _add_unread(value, body[name], f"{prefix}{name}.", paths)
        elif isinstance(value, list):
            for index, (item, json_item) in enumerate(zip(value, body[name], strict=True)):
                if isinstance(item, RequestModel):
                    _add_unread(item, json_item, f"{prefix}{name}[{index}].", paths)


@dataclass(slots=True)
class _Problem:
    """A value that does not fit its model."""

    path: str
    value: Any
    kinds: list[inspect.Type]
    """The types that it may have. Empty for a field that tells models apart."""
    choices: list[str]
    """The strings that it may be, if it is one of some."""
    parent: Any
    name: Any
    """The field's name in `parent`, or its index."""

    def is_integral_float(self) -> bool:
        """Return whether the value is an integer that is written as a decimal."""
        takes_integers = any(isinstance(kind, inspect.IntType) for kind in self.kinds)
        return takes_integers and isinstance(self.value, float) and self.value.is_integer()

    def message(self) -> Message:
        """Describe the problem to the caller."""
        expected = _joined_types(self.kinds) or "string"
        if not self.path:
            return Message("body_not_object", value=shown(self.value))
        if self.value is None and isinstance(self.parent, dict):
            return self._missing(expected)
        if self.choices and isinstance(self.value, str):
            return self._not_one_of()
        if self.value == [] and any(isinstance(kind, inspect.ListType) for kind in self.kinds):
            return Message("list_empty", field=self.path)
        for kind in self.kinds:
            if isinstance(kind, inspect.IntType) and isinstance(self.value, int) and not isinstance(self.value, bool):
                # Integers have both bounds.
                least, most = kind.ge or 0, kind.le or 0
                return Message("out_of_range", field=self.path, value=self.value, least=least, most=most)
        return Message("wrong_type", field=self.path, value=shown(self.value), expected=expected)

    def _missing(self, expected: str) -> Message:
        if self.choices:
            return Message("choice_missing", field=self.path, choices=", ".join(self.choices))
        return Message("field_missing", field=self.path, expected=expected)

    def _not_one_of(self) -> Message:
        value, choices = shown(self.value), ", ".join(self.choices)
        others = _joined_types(kind for kind in self.kinds if not isinstance(kind, inspect.LiteralType))
        if not others:
            return Message("not_one_of", field=self.path, value=value, choices=choices)
        return Message("neither_choice_nor_type", field=self.path, value=value, choices=choices, expected=others)


def _joined_types(kinds: Iterable[inspect.Type]) -> str:
    return " | ".join(dict.fromkeys(_TYPES[type(kind)] for kind in kinds))


def _find(model: type[RequestModel], body: Any, message: str) -> _Problem:
    """Find what msgspec's message is about. It states the path, and neither the value nor all that is allowed."""
    place = _PATH.search(message)
    steps: list[Any] = [step["name"] or int(step["index"]) for step in _STEP.finditer(place["path"] if place else "")]
    if missing := _MISSING.match(message):
        steps.append(missing["name"])
    problem = _Problem("", body, [inspect.type_info(model)], [], None, None)
    for step in steps:
        problem = _step(problem, step)
    return problem


def _step(problem: _Problem, name: str | int) -> _Problem:
    """Go from an object to a field, or from a list to an entry."""
    parent = problem.value
    if isinstance(name, int):
        item = next(kind.item_type for kind in problem.kinds if isinstance(kind, inspect.ListType))
        path, value, kinds, choices = f"{problem.path}[{name}]", parent[name], list(_kinds(item)), []
    else:
        path, value = f"{problem.path}.{name}" if problem.path else name, parent.get(name)
        models = [kind for kind in problem.kinds if isinstance(kind, inspect.StructType)]
        if any(model.tag_field == name for model in models):
            return _Problem(path, value, [], [str(model.tag) for model in models], parent, name)
        chosen = next(model for model in models if not model.tag_field or model.tag == parent.get(model.tag_field))
        field = next(field for field in chosen.fields if field.encode_name == name)
        kinds = list(_kinds(field.type))
        choices = literals(chosen.cls, name)
    return _Problem(path, value, kinds, choices, parent, name)
