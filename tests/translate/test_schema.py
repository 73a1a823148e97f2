import json
from typing import Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.backends.kinds import KINDS
from anyclaude.translate.profile import SchemaRule
from anyclaude.translate.schema import rewrite_schema

ALL: frozenset[SchemaRule] = frozenset(get_args(SchemaRule))


def rewritten(schema: dict[str, Any], *rules: SchemaRule) -> dict[str, Any]:
    before = json.dumps(schema)
    result = rewrite_schema(schema, frozenset(rules))
    assert json.dumps(schema) == before, "the request's own schema was changed"
    return result


def everywhere(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in every place where a schema can stand."""
    return {
        "type": "object",
        "properties": {"p": schema},
        "patternProperties": {"^x": schema},
        "$defs": {"d": schema},
        "definitions": {"d": schema},
        "dependentSchemas": {"p": schema},
        "anyOf": [schema],
        "oneOf": [schema],
        "allOf": [schema],
        "prefixItems": [schema],
        "items": schema,
        "additionalProperties": schema,
        "additionalItems": schema,
        "unevaluatedProperties": schema,
        "unevaluatedItems": schema,
        "not": schema,
        "contains": schema,
        "propertyNames": schema,
        "if": schema,
        "then": schema,
        "else": schema,
    }


def test_without_rules_a_schema_stays_as_it_is() -> None:
    schema = everywhere(
        {"$schema": "x", "type": ["string", "null"], "format": "uri", "pattern": "a", "$ref": "#/$defs/d"}
    )

    assert rewritten(schema) == schema


@pytest.mark.parametrize(
    ("rule", "schema", "expected"),
    [
        ("meta", {"$schema": "x", "$id": "y", "$comment": "z", "type": "string"}, {"type": "string"}),
        ("format", {"type": "string", "format": "uri"}, {"type": "string"}),
        ("pattern", {"type": "string", "pattern": "^a"}, {"type": "string"}),
        ("nullable", {"type": ["string", "null"]}, {"type": "string"}),
        ("nullable", {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "t"}, {"type": "string", "title": "t"}),
    ],
)
def test_each_rule_reaches_every_place(rule: SchemaRule, schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert rewritten(schema, rule) == expected
    assert rewritten(everywhere(schema), rule) == everywhere(expected)
    assert rewritten(everywhere(everywhere(schema)), rule) == everywhere(everywhere(expected))


def test_a_list_of_item_schemas_is_reached_too() -> None:
    assert rewritten({"items": [{"format": "uri"}, True]}, "format") == {"items": [{}, True]}


@pytest.mark.parametrize(
    "name", ["format", "pattern", "$ref", "$schema", "$defs", "definitions", "properties", "anyOf", "type"]
)
def test_a_property_with_the_name_of_a_keyword_survives(name: str) -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}

    assert rewritten(schema, *ALL) == schema


def test_values_are_no_schemas() -> None:
    schema = {
        "enum": [{"format": "x"}, None],
        "const": {"pattern": "x"},
        "default": {"$ref": "#/x", "type": ["string", "null"]},
        "examples": [{"$schema": "x"}],
        "required": ["format"],
    }

    assert rewritten(schema, *ALL) == schema


def test_true_and_false_are_schemas() -> None:
    schema = {"properties": {"a": True, "b": False}, "additionalProperties": False, "items": True, "anyOf": [True]}

    assert rewritten(schema, *ALL) == schema


def test_a_union_of_more_than_one_keeps_its_null() -> None:
    for schema in ({"type": ["string", "integer", "null"]}, {"type": ["null"]}):
        assert rewritten(schema, "nullable") == schema
    three = {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}
    assert rewritten(three, "nullable") == three


def test_a_union_of_one_without_null_stays() -> None:
    one = {"type": "object", "anyOf": [{"type": "string"}]}

    assert rewritten(one, "nullable") == one


def test_an_alternative_that_is_lifted_out_is_rewritten_itself() -> None:
    inner = {"type": "object", "$comment": "c", "properties": {"u": {"type": ["string", "null"], "format": "uri"}}}
    schema = {"anyOf": [inner | {"format": "f", "pattern": "p"}, {"type": "null"}]}

    assert rewritten(schema, "meta", "format", "pattern", "nullable") == {
        "type": "object",
        "properties": {"u": {"type": "string"}},
    }


def test_references_are_written_out_with_what_stands_beside_them() -> None:
    schema = {
        "properties": {
            "a": {"$ref": "#/$defs/path", "description": "here"},
            "b": {"items": {"$ref": "#/definitions/n"}},
        },
        "$defs": {"path": {"type": "string", "description": "a path"}},
        "definitions": {"n": {"type": "integer"}},
    }

    assert rewritten(schema, "refs") == {
        "properties": {"a": {"type": "string", "description": "here"}, "b": {"items": {"type": "integer"}}}
    }


def test_references_of_references_are_followed() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string"}}}

    assert rewritten(schema, "refs") == {"type": "string"}


def test_a_pointer_with_escapes_is_resolved() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/x~1y~0z"}}, "$defs": {"x/y~z": {"type": "string"}}}

    assert rewritten(schema, "refs") == {"properties": {"a": {"type": "string"}}}


def test_a_reference_to_itself_ends_and_allows_anything_there() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}

    assert rewritten({"$ref": "#/$defs/tree", "$defs": {"tree": tree}}, "refs") == {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {}}},
    }


def test_a_reference_to_the_whole_ends() -> None:
    result = rewritten({"type": "object", "properties": {"child": {"$ref": "#"}}}, "refs")

    assert result == {"type": "object", "properties": {"child": {"type": "object", "properties": {"child": {}}}}}


def test_references_in_a_ring_end() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}

    assert rewritten(schema, "refs") == {}


@pytest.mark.parametrize(
    "target", ["#/$defs/none", "https://example.com/x.json", "other.json", "#/required/0", "#/x/y"]
)
def test_a_reference_that_leads_nowhere_allows_anything(target: str) -> None:
    schema = {"required": ["a"], "x": 5, "properties": {"a": {"$ref": target, "description": "d"}}}

    assert rewritten(schema, "refs")["properties"] == {"a": {"description": "d"}}


_KEYWORDS = st.sampled_from(["$schema", "$comment", "format", "pattern", "title", "description"])


def _joined(*parts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["a", "format", "pattern", "$ref", "properties", "$schema"])
    children = st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(names, inner, max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, max_size=3),
        },
    )
    return st.builds(_joined, _plain(), children)


def _plain() -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.sampled_from(["string", "object", "null", ["string", "null"], ["integer", "string"]])
    notes = st.dictionaries(_KEYWORDS, st.just("x"), max_size=3)
    return st.builds(_joined, st.fixed_dictionaries({}, optional={"type": kinds}), notes)


def _schemas() -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(_plain(), _nested, max_leaves=10)


def _subschemas(schema: object) -> list[dict[str, Any]]:
    """The schema and all below it."""
    if not isinstance(schema, dict):
        return []
    fields = cast("dict[str, Any]", schema)
    children = [*fields.get("properties", {}).values(), *fields.get("anyOf", ()), fields.get("items")]
    return [fields, *(below for child in children for below in _subschemas(child))]


def _keywords(schema: dict[str, Any]) -> set[str]:
    return {key for below in _subschemas(schema) for key in below}


def _names(schema: dict[str, Any]) -> list[str]:
    return [name for below in _subschemas(schema) for name in below.get("properties", {})]


@settings(max_examples=100, deadline=None)
@given(schema=_schemas())
def test_after_all_rules_no_keyword_is_left_that_a_rule_takes_out(schema: dict[str, Any]) -> None:
    result = rewritten(schema, *ALL)

    assert not _keywords(result) & {"$schema", "$comment", "format", "pattern"}
    assert len(_names(result)) <= len(_names(schema))


@settings(max_examples=100, deadline=None)
@given(schema=_schemas(), rules=st.frozensets(st.sampled_from(["meta", "refs", "format", "pattern"])))
def test_rules_that_take_keywords_out_keep_every_property_and_are_done_once(
    schema: dict[str, Any], rules: frozenset[SchemaRule]
) -> None:
    result = rewrite_schema(schema, rules)

    assert _names(result) == _names(schema)
    assert rewrite_schema(result, rules) == result


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_schema_of_claude_code_keeps_its_meaning_for_every_kind(kind: str) -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"file_path": {"description": "absolute", "type": "string"}, "limit": {"type": "integer"}},
        "required": ["file_path"],
        "additionalProperties": False,
    }
    expected = {key: value for key, value in schema.items() if key != "$schema"}

    assert rewrite_schema(schema, KINDS[kind].profile.schema_rules) == expected


def test_definitions_that_refer_to_each_other_stay_within_a_budget() -> None:
    names = [f"d{n}" for n in range(12)]
    everything = {name: {"$ref": f"#/$defs/{name}"} for name in names}
    schema = {"properties": everything, "$defs": {name: {"properties": everything} for name in names}}
    written = rewrite_schema(schema, frozenset({"refs"}))
    assert len(json.dumps(written)) < 100_000
    assert "$ref" not in json.dumps(written)
