"""Expressions: what they mean, and that nothing makes one run away, grow or reach Python."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.expression_values import OUTPUT_BYTES_MAX, Work
from protocols.expressions import ExpressionError, evaluate, parse, paths
from protocols.templates import expressions_in, pieces, render, render_url, task_ids

SCOPE = {
    "input": {"n": 3, "day": "monday", "list": [1, 2, {"k-1": True}], "none": None, "a b": 1},
    "tasks": {"load-data": {"result": {"rows": [5, 6]}, "state": "succeeded"}},
    "run": {"id": "r1", "scheduled_for": "2026-01-01T00:00:00Z"},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1.5e1", -15.0),
        (r"'it\'s'", "it's"),
        ('"a\\nb"', "a\nb"),
        ("true and not false", True),
        ("null", None),
        ("input.n", 3),
        ("input['a b']", 1),
        ("input.list[2].k-1", True),
        ("tasks.load-data.result.rows[0]", 5),
        ("input.n - 1", 2),
        ("1 + 2 * 3 - 4 / 2", 5),
        ("7 / 2", 3.5),
        ("-7 % 3", 2),
        ("(1 + 2) * 3", 9),
        ("--2", 2),
        ("not not input.n", True),
        ("'a' + 'b'", "ab"),
        ("1 == 1.0", True),
        ("1 == true", False),
        ("null == false", False),
        ("[1, 'a'] == [1.0, 'a']", True),
        ("input.list[0] < 2 and 'b' > 'a'", True),
        ("input.day in ['monday', 'friday']", True),
        ("input.day not in ['sunday']", True),
        ("'mon' in input.day", True),
        ("'n' in input", True),
        ("contains(input.list, 2)", True),
        ("length(input.list) + length('ab')", 5),
        ("default(input.nothing.at.all, 7)", 7),
        ("default(input.none, 7)", 7),
        ("default(input.n, 7)", 3),
        ("upper(lower('aB'))", "AB"),
        ("startswith('abc', 'ab') and endswith('abc', 'c')", True),
        ("tojson(input.list)", '[1,2,{"k-1":true}]'),
        ("fromjson('[1]')", [1]),
        ("false and input.nothing", False),
        ("true or input.nothing", True),
        ("tasks.load-data.state == 'succeeded'", True),
    ],
)
def test_what_expressions_mean(text, value):
    found = evaluate(text, SCOPE)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said", "at"),
    [
        ("", "it ends, where a value was expected", 0),
        ("1 +", "it ends, where a value", 3),
        ("input.", "after a dot stands a name", 6),
        ("foo.bar", '"foo" is not one of input, item, run, tasks', 0),
        ("1 + __import__('os')", 'no function "__import__"', 4),
        ("eval('1')", 'no function "eval"', 0),
        ("input.__class__", "there is no input.__class__", 0),
        ("input.n-1", "there is no input.n-1", 0),
        ("input.list[9]", "there is no input.list[9]", 0),
        ("item", "there is no item", 0),
        ("1 < 2 < 3", "do not chain", 6),
        ("1 < 'a'", "have no order", 2),
        ("'a' * 3", "takes two numbers; here is text", 4),
        ("1 / 0", "divided by 0", 2),
        ("9223372036854775807 + 1", "beyond 64 bits", 20),
        ("9223372036854775808", "beyond 64 bits", 0),
        ("1e999", "too large", 0),
        ("1e308 * 10", "too large", 6),
        ("'abc", "has no end", 0),
        ("'\\x'", "of escapes there are", 1),
        ("length(1)", "a number has no length", 0),
        ("length()", "takes 1 arguments; here are 0", 0),
        ("1 2", "here stands `2`", 2),
        ("a" * 5000, "at most 4,096 characters", 0),
        ("(" * 500 + "1" + ")" * 500, "deeper than 20 levels", 20),
        ("[[" * 30, "deeper than 20 levels", 20),
        ("input['n'", "where `]` was expected", 9),
        ("1 not 2", "where a value was expected", 6),
        ("fromjson('{')", "is no JSON", 0),
        ("input; 1", "no place here", 5),
    ],
)
def test_what_is_refused_and_where(text, said, at):
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, SCOPE)
    assert said in str(caught.value)
    assert caught.value.at == at


def test_a_long_sum_is_no_deep_tree():
    assert evaluate("+".join(["1"] * 2000), {}) == 2000
    assert evaluate("not " * 1000 + "true", {}) is True
    assert evaluate("1 - " + "-" * 3000 + "1", {}) == 0


def test_growth_ends():
    huge = {"input": "x" * OUTPUT_BYTES_MAX}
    with pytest.raises(ExpressionError, match="more than"):
        evaluate("input + 'x'", huge)
    with pytest.raises(ExpressionError, match="KiB"):
        evaluate("[input, input]", huge)
    with pytest.raises(ExpressionError, match="KiB"):
        evaluate("tojson([input])", huge)
    wide = {"input": list(range(100_000))}
    with pytest.raises(ExpressionError, match="steps"):
        evaluate(" or ".join(["'x' in input"] * 200), wide)
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ExpressionError, match="deeper"):
        evaluate("tojson(input)", {"input": deep})
    assert evaluate("input == input", {"input": deep}) is True
    # What is made ready to be compared costs as well, also where the first look tells them apart.
    apart = {"input": [[0] * 60_000, [*[0] * 59_999, 1]]}
    assert evaluate("input[0] == input[1]", apart) is False
    with pytest.raises(ExpressionError, match="steps"):
        evaluate(" or ".join(["input[0] == input[1]"] * 100), apart)
    keys = {"input": [dict.fromkeys(map(str, range(60_000))), dict.fromkeys("a")]}
    with pytest.raises(ExpressionError, match="steps"):
        evaluate(" or ".join(["input[0] == input[1]"] * 100), keys)


def test_all_expressions_of_a_task_cost_no_more_than_a_task_may():
    whole = Work(1000)
    assert evaluate("input == input", {"input": [0] * 600}, within=whole) is True
    with pytest.raises(ExpressionError, match="more than 1,000 steps"):
        evaluate("input == input", {"input": [0] * 600}, within=whole)


LITERALS = st.sampled_from(
    ["1", "0", "2.5", "'a'", "''", "null", "true", "input", "input.n", "input.list", "item",
     "tasks.t.result", "[]", "[1, input]", "9223372036854775807"]
)  # fmt: skip
TREES = st.recursive(
    LITERALS,
    lambda inner: st.one_of(
        st.tuples(
            inner,
            st.sampled_from(
                ["+", "-", "*", "/", "%", "==", "<", ">=", "and", "or", "in", "not in"]
            ),
            inner,
        ).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["length", "lower", "upper", "tojson", "fromjson"]), inner).map(
            lambda t: f"{t[0]}({t[1]})"
        ),
        st.tuples(st.sampled_from(["default", "contains", "startswith"]), inner, inner).map(
            lambda t: f"{t[0]}({t[1]}, {t[2]})"
        ),
        inner.map(lambda t: f"not {t}"),
        inner.map(lambda t: f"-{t}"),
    ),
    max_leaves=25,
)
SOUP = st.lists(
    st.sampled_from(
        ["(", ")", "[", "]", ",", ".", "+", "-", "not ", "in ", " and ", "input", "tasks", "'", '"',
         "\\", "1", "e", "length", "__class__", "${{", "}}", " ", "\x00", "é", "==", "<"]
    ),
    max_size=40,
).map("".join)  # fmt: skip
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=2000)
@given(st.one_of(TREES, SOUP, st.text(max_size=60)), JSON, JSON)
def test_an_expression_ends_in_a_value_or_in_its_own_error(text, value, other):
    scope = {"input": value, "tasks": {"t": {"result": other, "state": "failed"}}, "run": {}}
    try:
        found = evaluate(text, scope)
    except ExpressionError as error:
        place, said = error.at, str(error)
    else:
        assert found is None or isinstance(found, bool | int | float | str | list | dict)
        return
    assert 0 <= place <= len(text)
    assert said


@settings(deadline=2000)
@given(st.one_of(SOUP, st.text(max_size=60)))
def test_a_text_is_cut_at_its_references_and_nothing_is_lost(text):
    try:
        found = pieces(text)
    except ExpressionError:
        assert "${{" in text
        return
    assert sum(piece.is_expression for piece in found) <= text.count("${{")
    rest = text
    for piece in found:
        place = rest.find(piece.text)
        assert place >= 0
        rest = rest[place + len(piece.text) :]


def test_work_on_long_texts_is_counted_too():
    long = {"input": "x" * OUTPUT_BYTES_MAX}
    with pytest.raises(ExpressionError, match="steps"):
        evaluate(" or ".join(["lower(input) == 'a'"] * 150), long)


def test_templates():
    values = {"input.a": 1, "'}}' + input.b": "x", "item": None, "input.c": "a/b?c"}
    assert expressions_in({"k": ["${{ input.a }} and ${{'}}' + input.b}}", 3]}) == (
        "input.a",
        "'}}' + input.b",
    )
    assert render(["${{input.a}}", " ${{ input.a }} ", "n=${{ input.a }}", 5], values) == [
        1,
        1,
        "n=1",
        5,
    ]
    assert render({"x": "[${{ item }}]"}, values) == {"x": "[]"}
    assert render_url("http://h/${{ input.c }}", values) == "http://h/a%2Fb%3Fc"
    assert task_ids("tasks.a.result + length(tasks['b.c'].result)") == {"a", "b.c"}
    assert [path.keys for path in paths(parse("input.a + default(item, [run.id])"))] == [
        ("input", "a"),
        ("item",),
        ("run", "id"),
    ]
    with pytest.raises(ExpressionError, match="has no"):
        pieces("a ${{ b } c")
