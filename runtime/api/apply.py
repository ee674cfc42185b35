"""Applies job files that were sent: all tenants they speak for in one transaction."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Final

import msgspec
from anyio import to_thread
from litestar import Response, post

from protocols.messages import Hint, SchedulesChanged
from protocols.views import Applied
from runtime.api.asked import Given, told
from runtime.api.problems import wrong
from runtime.apply import apply_files
from runtime.files.load import load_texts
from runtime.postgres.operations.session import Connection

SOURCE_CHARS_MAX: Final = 1000


class SentFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job file: its name, for errors, and its YAML."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    text: str


class Apply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make these files the definitions of `source`."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=SOURCE_CHARS_MAX)]
    files: tuple[SentFile, ...]
    adopt: bool = False
    prune: bool = False
    dry_run: bool = False


class _NewKeyError(Exception):
    """The key is not known yet: what it stands for is still to be done."""


@post("/apply", opt={"body": Apply}, status_code=200)
async def apply(asked: Given) -> Response[Applied]:
    """Apply job files: the diff, which with `dry_run` is all that is done."""
    body = await asked.body(Apply)
    if "\0" in body.source:
        raise wrong("source", "a NUL character cannot stand in a source's name")

    async def unknown(conn: Connection) -> tuple[object, Sequence[Hint]]:
        del conn
        raise _NewKeyError

    # The apply is a transaction of its own, and doing it twice changes nothing more; so the key is
    # looked for before, and kept after.
    if asked.key is not None:
        try:
            return told(Applied, await asked.once("apply", body, unknown))
        except _NewKeyError:
            pass
    texts = [(file.name, file.text.encode()) for file in body.files]
    # A second for each megabyte: on the loop the node's beat would stop for as long.
    files = await to_thread.run_sync(partial(load_texts, texts, source=body.source))
    answers = await apply_files(
        asked.node.api,
        files,
        cwd=asked.node.settings.tasks_cwd,
        now=asked.now,
        who=asked.who,
        kafka=asked.node.settings.clustered,
        adopt=body.adopt,
        prune=body.prune,
        dry_run=body.dry_run,
    )
    answer = _together(list(answers.values()))

    async def keep(conn: Connection) -> tuple[object, Sequence[Hint]]:
        del conn
        return answer, ()

    if not body.dry_run:
        asked.hint(SchedulesChanged())
    return told(Applied, await asked.once("apply", body, keep))


def _together(answers: Sequence[Applied]) -> Applied:
    """One answer for files that speak for several tenants."""
    if len(answers) == 1:
        return answers[0]
    merged = {
        field: tuple(item for one in answers for item in getattr(one, field))
        for field in Applied.__struct_fields__
    }
    return Applied(**merged)


ROUTES: Final = [apply]
