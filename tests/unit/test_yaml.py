"""YAML is read with its places, as YAML 1.2 has it, and nothing hostile gets through."""

import pytest

from runtime.files.places import InvalidFileError, Place
from runtime.files.yaml import DEPTH_MAX, read_yaml


def wrong(text) -> str:
    with pytest.raises(InvalidFileError) as caught:
        read_yaml("f.yaml", text)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_values_and_their_places():
    text = "jobs:\n  - job_id: a\n    on: {event: x}\n    tags: [1, '2']\n"
    document = read_yaml("f.yaml", text)
    assert document.data == {"jobs": [{"job_id": "a", "on": {"event": "x"}, "tags": [1, "2"]}]}
    assert document.place(("jobs", 0, "tags", 1)) == Place(4, 15)
    assert document.place(("jobs", 0, "nowhere")) == Place(2, 5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("0123", 123),
        ("0o17", 15),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("~", None),
        ("True", True),
        ("'1'", "1"),
        ("", None),
        ("9" * 400, int("9" * 400)),
        ("9" * 401, "9" * 401),
        ("'.nan'", ".nan"),
        ("a: b\r\nc: d\r\n", {"a": "b", "c": "d"}),
        (b"\xef\xbb\xbfa: 1", {"a": 1}),
        ("&k a: &v 1\nb: *v", {"a": 1, "b": 1}),
        ("a:\t1", {"a": 1}),
        ("x" * 1_000_000, "x" * 1_000_000),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    assert read_yaml("f.yaml", text).data == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", 'f.yaml:2:1: the key "a" stands here twice'),
        ("a: !!python/object:os.system x", "f.yaml:1:4: the tag tag:yaml.org,2002:python"),
        ("a: !x {}", "f.yaml:1:4: the tag !x is not supported"),
        ("[" * 100_000, f"f.yaml:1:{DEPTH_MAX + 1}: nested deeper than {DEPTH_MAX} levels"),
        ("a: *b", "f.yaml:1:4: a: no finished anchor &b stands above"),
        ("a: &a [*a]", "f.yaml:1:8: a[0]: no finished anchor &a"),
        ("a\0b", "f.yaml:1:2: a NUL byte cannot stand here"),
        ('a: "\\0"', "f.yaml:1:4: a: a NUL character"),
        ('a: {"b\\0": 1}', "f.yaml:1:5: a: a NUL character cannot stand in a key"),
        ("a: \u00e9\nb: x\x1b", "f.yaml:2:5: the control character #x1b cannot stand here"),
        (b"a: \xff", "f.yaml:1:1: this is not UTF-8 text"),
        ("a: 1\n'a': 2", 'f.yaml:2:1: the key "a" stands here twice'),
        ("a: .inf", "f.yaml:1:4: a: .inf is no number here"),
        ("a: [-.Inf, .NaN]", "f.yaml:1:5: a[0]: -.Inf is no number here"),
        ("a:\n\tb: 1", "f.yaml:2:1: "),
        ("&k a: 1\nb: *k", "f.yaml:2:4: b: no finished anchor &k"),
        ("a: &v x\n*v : 1", "f.yaml:2:1: a key must be a plain string"),
        (b"\xef\xbb\xbfa: 1\r\na: 2", 'f.yaml:2:1: the key "a" stands here twice'),
        ("<<: {a: 1}", "f.yaml:1:1: merge keys are not supported"),
        ("a: 1e999", "f.yaml:1:4: a: 1e999 is too large a number"),
        ("? [a]\n: b", "f.yaml:1:3: a key must be a plain string"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a file holds one document"),
        ("{a: b", "f.yaml:2:1: did not find expected"),
    ],
)
def test_what_is_refused_is_told_with_its_place(text, message):
    assert wrong(text).startswith(message)


def test_an_alias_may_repeat_but_not_explode():
    assert read_yaml("f.yaml", "a: &x [1]\nb: *x").data == {"a": [1], "b": [1]}
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    assert "aliases make more than" in wrong(bomb)
