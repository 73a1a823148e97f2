"""JSON Schema dialects: tool schemas rewritten for servers that cannot read all of draft 2020-12.

Each rule widens the schema or says the same in other words. Only `nullable` takes an allowed value away, the null that
stands for "left out"; such an argument may still be left out where it is not required.
"""

from collections.abc import Callable
from typing import Any, cast

from anyclaude.translate.profile import SchemaRule

Schema = dict[str, Any]

_MAX_REFERENCES = 500

_META = frozenset({"$schema", "$id", "$comment", "$anchor", "$vocabulary"})
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_SUBSCHEMAS = frozenset(
    {"anyOf", "oneOf", "allOf", "prefixItems", "items", "additionalProperties", "additionalItems", "not", "contains"}
    | {"unevaluatedProperties", "unevaluatedItems", "propertyNames", "if", "then", "else"}
)


def rewrite_schema(schema: Schema, rules: frozenset[SchemaRule]) -> Schema:
    """`meta`: no `$schema` and other notes to validators. `refs`: local `$ref` written out. `nullable`:
    "X or null" becomes X. `format`, `pattern`: these keywords are left out."""
    if "refs" in rules:
        schema = _without_definitions(_Inliner(schema).inline(schema, ()))
    steps = [step for rule, step in _STEPS.items() if rule in rules]
    return _everywhere(schema, steps)


def _everywhere(schema: Schema, steps: list[Callable[[Schema], Schema]]) -> Schema:
    for step in steps:
        schema = step(schema)
    return _map_children(schema, lambda child: _everywhere(child, steps))


def _map_children(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """The same schema with every subschema changed; property names and examples are not subschemas."""
    mapped: Schema = {}
    for key, value in schema.items():
        if key in _BY_NAME and isinstance(value, dict):
            mapped[key] = {name: _changed(child, change) for name, child in cast("Schema", value).items()}
        else:
            mapped[key] = _changed(value, change) if key in _SUBSCHEMAS else value
    return mapped


def _changed(child: object, change: Callable[[Schema], Schema]) -> object:
    if isinstance(child, dict):
        return change(cast("Schema", child))
    if isinstance(child, list):
        return [_changed(item, change) for item in cast("list[object]", child)]
    return child


def _drop_meta(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in _META}


def _drop_format(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "format"}


def _drop_pattern(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "pattern"}


def _drop_null(schema: Schema) -> Schema:
    """Only where one other alternative is left: the argument may then be omitted instead."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        named = [kind for kind in cast("list[object]", kinds) if kind != "null"]
        return schema | {"type": named[0]} if len(named) == 1 else schema
    options = schema.get("anyOf")
    if not isinstance(options, list):
        return schema
    alternatives = cast("list[Any]", options)
    rest = [option for option in alternatives if option != {"type": "null"}]
    if len(rest) == len(alternatives) or len(rest) != 1 or not isinstance(rest[0], dict):
        return schema
    outer = {key: value for key, value in schema.items() if key != "anyOf"}
    return cast("Schema", rest[0]) | outer


class _Inliner:
    """Writes out local references. A schema that refers to itself, directly or around corners, allows anything at that
    point, and so does every reference past the budget: definitions that refer to each other multiply."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _MAX_REFERENCES

    def inline(self, schema: Schema, seen: tuple[str, ...]) -> Schema:
        target = schema.get("$ref")
        if not isinstance(target, str):
            return _map_children(schema, lambda child: self.inline(child, seen))
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        found = None if target in seen or self._left <= 0 else _resolve(self._root, target)
        if found is None:
            return rest
        self._left -= 1
        return self.inline(found | rest, (*seen, target))


def _resolve(root: Schema, target: str) -> Schema | None:
    """The schema at a local JSON pointer (RFC 6901), or None."""
    if not target.startswith("#"):
        return None
    node: Any = root
    for step in target.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, dict):
            return None
        node = cast("Schema", node).get(name)
    return cast("Schema", node) if isinstance(node, dict) else None


def _without_definitions(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}


_STEPS: dict[SchemaRule, Callable[[Schema], Schema]] = {
    "nullable": _drop_null,  # first: it lifts an alternative, whose keywords the others drop
    "meta": _drop_meta,
    "format": _drop_format,
    "pattern": _drop_pattern,
}
