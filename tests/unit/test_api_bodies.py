"""JSON that was sent: what it may not be is told with its place, at a cost that only grows with it.

A text that cost more than that would keep these tests from ending.
"""

import pytest

from protocols.errors import InvalidError
from runtime.api.bodies import DEPTH_MAX, read_json
from runtime.api.matching import tags_of
from runtime.api.problems import POINTER_CHARS_MAX, RefusedError, problem_of


def problems(raw: bytes):
    with pytest.raises(InvalidError) as caught:
        read_json(raw, dict)
    return [(problem.pointer, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("raw", "pointer", "key"),
    [
        (b'{"a": 1, "a": 1}', "/a", "a"),
        (b'{"x": [1, {"y": {"b/c": 1, "d": 2, "b/c": 3}}]}', "/x/1/y/b~1c", "b/c"),
        (b'{"": 1, "": 2}', "/", ""),
        (b'{"\\u0061": 1, "a": 2}', "/a", "a"),
    ],
)
def test_a_key_that_stands_twice_is_refused(raw, pointer, key):
    assert problems(raw) == [(pointer, f'the key "{key}" stands here twice')]


def test_the_same_key_in_two_objects_is_right():
    assert read_json(b'{"a": [{"b": 1}, {"b": 2}]}', dict) == {"a": [{"b": 1}, {"b": 2}]}


@pytest.mark.parametrize(
    "end", [b"", b"\\", b"\\\n", b"\n", b'\\"'], ids=["open", "half", "line", "feed", "quote"]
)
def test_an_open_string_full_of_quotes_is_read_once(end):
    raw = b"[" * (DEPTH_MAX + 1) + b'"' + b'\\"' * 400_000 + end
    assert problems(raw) == [("", f"this is nested deeper than {DEPTH_MAX} levels")]


def test_brackets_in_strings_are_no_nesting():
    assert read_json(b'{"a": "' + b'[{\\"' * 100 + b'"}', dict) == {"a": '[{"' * 100}


@pytest.mark.parametrize("text", ['"a"' + " " * 30_000 + "x", '"a",' * 8000 + "x", " " * 32_000])
def test_a_long_row_of_blanks_is_looked_at_once(text):
    with pytest.raises(RefusedError):
        tags_of(text, "If-Match")


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("*", {"*"}),
        (' "a" ', {'"a"'}),
        ('"a", W/"b" ,, "c,d"', {'"a"', 'W/"b"', '"c,d"'}),
        ('""', {'""'}),
    ],
)
def test_tags_are_read_as_the_standard_has_them(text, tags):
    assert tags_of(text, "If-Match") == tags


@pytest.mark.parametrize("text", ["", "a", '"a', "*, *", '"a" b', 'w/"a"'])
def test_what_is_no_list_of_tags_is_refused(text):
    with pytest.raises(RefusedError):
        tags_of(text, "If-Match")


def test_a_key_as_long_as_a_page_is_told_by_its_object():
    with pytest.raises(InvalidError) as caught:
        read_json(b'{"a": {"' + b"k" * 100_000 + b'": 1, "' + b"k" * 100_000 + b'": 2}}', dict)
    found = problem_of(caught.value)
    assert [error.pointer for error in found.errors] == ["/a"]
    assert len(found.detail) < POINTER_CHARS_MAX
