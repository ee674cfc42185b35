"""Reads what a job does: one command, python callable or HTTP request."""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from protocols.durations import shown
from protocols.expressions import ExpressionError
from protocols.tasks import CommandTask, HttpExpect, HttpTask, PlainTask, PythonTask
from protocols.templates import blanked, only_expression
from runtime.files.fields import (
    Fields,
    Refused,
    choice,
    filled,
    list_of,
    matching,
    plain,
    text,
    texts,
    whole,
)

KINDS: Final = ("command", "python", "http")
_TARGET: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_METHOD: Final = re.compile(r"[A-Z]{1,20}")
_target = matching(_TARGET, "a callable: give it as package.module:function")


def read_task(fields: Fields) -> PlainTask | None:
    """The job's one task; None where what stands there is wrong."""
    given = [kind for kind in KINDS if kind in fields]
    if len(given) != 1:
        found = " and ".join(given) if given else "none"
        fields.refuse((), f"a job does one of command, python and http; here is {found}")
    return read_plain(fields)


def read_plain(fields: Fields, *, references: bool = False) -> PlainTask | None:
    """The one of command, python and http that is there; None where it is wrong, or not the one.

    With `references` a URL may hold `${{ ... }}`.
    """
    found = [_command(fields), _python(fields), _http(fields, references=references)]
    tasks = [task for task in found if task is not None]
    return tasks[0] if len(tasks) == 1 else None


def _command(fields: Fields) -> CommandTask | None:
    line = fields.take("command", _command_line, None)
    only: dict[str, Callable[[object], Any]] = {"cwd": text, "env": _environment}
    values: dict[str, Any] = {name: fields.take(name, rule, None) for name, rule in only.items()}
    codes = fields.take("success_exit_codes", list_of(whole(0, 255), most=256), (0,))
    if "command" not in fields:
        for name in (*only, "success_exit_codes"):
            if name in fields:
                fields.refuse((name,), "this belongs to a command, and here is none")
        return None
    if line is None:
        return None
    return CommandTask(
        shell=line if isinstance(line, str) else None,
        argv=line if isinstance(line, tuple) else None,
        cwd=values["cwd"],
        env=values["env"] or {},
        success_exit_codes=codes,
    )


def _command_line(value: object) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        words = list_of(text, most=1000)(value)
        if not words or not words[0]:
            raise Refused("a command as a list begins with the program to run")
        return words
    return filled(value)


def _environment(value: object) -> dict[str, str]:
    env = texts(value)
    for key in env:
        if not _ENV_NAME.fullmatch(key):
            raise Refused(f"{shown(key)} is not the name of a variable", (key,))
        if key.startswith("RUNTIME_"):
            raise Refused("names that begin with RUNTIME_ are set by the node", (key,))
    return env


def _python(fields: Fields) -> PythonTask | None:
    target = fields.take("python", _target, None)
    args = fields.take("args", list_of(plain, most=1000), ())
    kwargs = fields.take("kwargs", _kwargs, {})
    isolation = fields.take("isolation", _isolation, None)
    if "python" not in fields:
        for name in ("args", "kwargs", "isolation"):
            if name in fields:
                fields.refuse((name,), "this belongs to a python task, and here is none")
        return None
    if target is None:
        return None
    return PythonTask(target=target, args=args, kwargs=kwargs, isolation=isolation)


def _isolation(value: object) -> Any:
    if value == "inline":
        raise Refused("inline is only for functions of a program that embeds the runtime")
    return choice("shared", "process")(value)


def _kwargs(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{shown(value)} is not a mapping of names to values")
    for key in value:
        if not isinstance(key, str) or not key.isidentifier():
            raise Refused(f"{shown(key)} is not the name of a parameter", (str(key),))
    return dict(plain(value))


def _http(fields: Fields, *, references: bool) -> HttpTask | None:
    raw = fields.raw("http")
    if raw is None:
        return None
    inner = Fields(
        raw, (*fields.path, "http"), fields.problems, what="{method, url, headers, body, expect}"
    )
    url = inner.take("url", _url_with_references if references else _url, None)
    method = inner.take("method", _method, "GET")
    headers = inner.take("headers", _headers, {})
    body = inner.take("body", plain, None)
    expect = _expect(inner)
    inner.close()
    if url is None:
        if "url" not in inner:
            inner.refuse((), "an http task needs its url")
        return None
    return HttpTask(method=method, url=url, headers=headers, body=body, expect=expect)


def _method(value: object) -> str:
    upper = value.upper() if isinstance(value, str) else value
    return matching(_METHOD, "an HTTP method such as GET or POST")(upper)


def _url(value: object) -> str:
    url = text(value, most=8000)
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(char.isspace() for char in url):
        raise Refused(f"{shown(value)} is not a URL such as https://example.org/path")
    return url


def _url_with_references(value: object) -> str:
    url = text(value, most=8000)
    try:
        whole = only_expression(url) is not None
    except ExpressionError as error:
        raise Refused(str(error)) from None
    _url("http://x" if whole else blanked(url))
    return url


def _headers(value: object) -> dict[str, str]:
    headers = texts(value)
    for key, item in headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", key) or re.search(r"[\r\n]", item):
            raise Refused(f"{shown(key)} is not a header of one line", (key,))
    return headers


def _expect(fields: Fields) -> HttpExpect:
    raw = fields.raw("expect")
    if raw is None:
        return HttpExpect()
    inner = Fields(raw, (*fields.path, "expect"), fields.problems, what="{status, body_contains}")
    status = inner.take("status", _statuses, ())
    contains = inner.take("body_contains", filled, None)
    inner.close()
    return HttpExpect(status=status, body_contains=contains)


def _statuses(value: object) -> tuple[int, ...]:
    one = whole(100, 599)
    return (one(value),) if isinstance(value, int) else list_of(one, most=100)(value)
