"""Inputs of DAGs: what a schema takes, what it fills in, and that it is held to its own rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InvalidError
from protocols.input_schema import KEYWORDS, check_input, schema_problems

SCHEMA = {
    "type": "object",
    "required": ["day"],
    "additionalProperties": False,
    "properties": {
        "day": {"type": "string", "format": "date"},
        "n": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "mode": {"enum": ["full", "part", 1]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        "more": {"type": ["object", "null"], "properties": {"deep": {"const": True}}},
    },
}


def wrong(value, schema=SCHEMA):
    with pytest.raises(InvalidError) as caught:
        check_input(schema, value)
    return [(".".join(map(str, p.path)), p.message) for p in caught.value.problems]


def test_a_schema_takes_what_it_says_and_fills_in_its_defaults():
    assert schema_problems(SCHEMA) == []
    assert check_input(SCHEMA, {"day": "2026-01-01"}) == {"day": "2026-01-01", "n": 3}
    every = {
        "day": "2026-01-01",
        "n": 9.0,
        "share": 0.5,
        "mode": 1.0,
        "tags": ["a", "b"],
        "more": {"deep": True, "x": [1]},
    }
    assert check_input(SCHEMA, every) == every
    assert check_input({"properties": {"a": {"default": 1}}}, None) == {"a": 1}
    assert check_input(None, [1]) == [1]


def test_everything_that_is_wrong_is_told_at_once():
    given = {
        "n": 10,
        "share": 1,
        "mode": True,
        "tags": ["long", 2, "c"],
        "more": {"deep": 1},
        "Day": "x",
    }
    assert wrong(given) == [
        ("n", "10 is more than 9"),
        ("share", "1 is not less than 1"),
        ("mode", 'True is not one of "full", "part", 1'),
        ("tags", "this has 3 entries; at most 2 are allowed"),
        ("tags.0", "this has 4 characters; at most 3 are allowed"),
        ("tags.1", "2 is not text"),
        ("more.deep", "1 is not True"),
        ("Day", 'there is no "Day" in this input; did you mean "day"?'),
        ("", 'the input needs "day"'),
    ]
    assert wrong([]) == [("", "[] is not an object")]
    assert wrong({"day": "01/02/2026"}) == [("day", '"01/02/2026" is not a date')]
    assert wrong({"day": "2026-01-01", "n": True}) == [("n", "True is not a whole number")]


def test_a_schema_is_held_to_its_own_rules():
    said = [
        (problem.path, problem.message)
        for problem in schema_problems(
            {
                "type": "array",
                "requird": ["a"],
                "properties": {
                    "a": {"type": "str"},
                    "b": {"pattern": "(a+)+$"},
                    "c": {"type": "integer", "default": "x"},
                    "d": {"minimum": "1", "maxLength": -1},
                    "e": 3,
                },
            }
        )
    ]
    assert [path for path, _ in said] == [
        ("requird",),
        ("properties", "a", "type"),
        ("properties", "b", "pattern"),
        ("properties", "c", "default"),
        ("properties", "d", "minimum"),
        ("properties", "d", "maxLength"),
        ("properties", "e"),
        ("type",),
    ]
    assert 'did you mean "required"?' in said[0][1]
    deep: dict[str, object] = {"type": "object"}
    for _ in range(500):
        deep = {"properties": {"a": deep}}
    assert ["at most 16 levels" in problem.message for problem in schema_problems(deep)] == [True]


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("date", ["2026-12-01"], ["20261201", "2026-W01-1", "2026-13-01", "2026-1-1", ""]),
        (
            "date-time",
            ["2026-12-01T09:00:00Z", "2026-12-01t09:00:00.25+01:00"],
            ["2026-12-01T09:00:00", "2026-12-01", "2026-12-01T09", "2026-12-01 09:00:00Z"],
        ),
    ],
)
def test_dates_and_instants_are_those_of_the_standard(form, good, bad):
    schema = {"properties": {"at": {"type": "string", "format": form}}}
    for text in good:
        assert check_input(schema, {"at": text}) == {"at": text}
    for text in bad:
        assert wrong({"at": text}, schema) == [("at", f'"{text}" is not a {form}')]


def test_a_default_of_the_whole_input_is_refused_and_not_ignored():
    (problem,) = schema_problems({"type": "object", "default": {"a": 1}})
    assert problem.path == ("default",)
    assert "properties" in problem.message


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYWORDS), st.text(max_size=3)), inner),
    ),
    max_leaves=12,
)
SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(st.sampled_from(["object", "array", "integer", "string"]), JSON),
            "enum": JSON,
            "minimum": JSON,
            "maxItems": JSON,
            "required": JSON,
            "format": JSON,
            "default": JSON,
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.text(max_size=3), inner, max_size=3),
            "items": inner,
            "additionalProperties": st.one_of(st.booleans(), inner),
            "default": JSON,
        },
    ),
    max_leaves=6,
)


@given(st.one_of(SCHEMAS, JSON), JSON)
def test_a_schema_without_problems_checks_anything(schema, value):
    if schema_problems(schema):
        return
    try:
        filled = check_input(schema, value)
    except InvalidError as error:
        assert error.problems  # noqa: PT017 - either way is right
        return
    assert isinstance(filled, dict)


def test_an_input_that_is_all_wrong_is_not_looked_at_for_long():
    known = {f"property_{n}": {"type": "integer"} for n in range(1000)}
    schema = {"properties": known, "additionalProperties": False}
    found = wrong({f"propertyx{n}": n for n in range(10_000)}, schema)
    assert len(found) == 50
    assert sum("did you mean" in message for _, message in found) == 20
    problems = schema_problems({f"typ{n}": 1 for n in range(1000)})
    assert len(problems) == 1000
    assert sum("did you mean" in problem.message for problem in problems) == 20
