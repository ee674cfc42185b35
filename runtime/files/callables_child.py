"""The child that imports callables, so that nobody's module is ever run in the node or a command.

Reads JSON from stdin, `[[folder, ...], [target, ...]]`, looks in these folders first; writes, to
the stdout it was given, one line of JSON for each target as soon as it is known: `["async" | "sync"
| "error", reason]`. What the modules print goes to stderr.
"""

import importlib
import inspect
import json
import os
import sys

_REASON_CHARS_MAX = 500


def look(target: str) -> tuple[str, str]:
    """What kind of callable `package.module:function` is, or why it cannot be had."""
    module_name, _, path = target.partition(":")
    try:
        found: object = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except BaseException as error:  # noqa: BLE001 - a module may raise anything, SystemExit too
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return "error", reason[:_REASON_CHARS_MAX]
    if not callable(found):
        return "error", "this is not callable"
    is_async = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(
        getattr(found, "__call__", None)  # noqa: B004 - an object whose call is a coroutine
    )
    return ("async" if is_async else "sync"), ""


def main() -> None:
    """Answer on the stdout that was given, with stdout itself out of the modules' reach."""
    answers = os.dup(1)
    os.dup2(2, 1)
    (folders, targets), us = json.load(sys.stdin), os.getpid()
    sys.path[:0] = folders  # only now: a module of theirs may be named like one that we need
    for target in targets:
        found = look(target)
        if os.getpid() != us:
            os._exit(0)  # a module forked, and its child came back here
        os.write(answers, json.dumps(found).encode() + b"\n")
    os._exit(0)  # whatever the modules left running ends here
