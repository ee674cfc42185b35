"""A job's ETag, and what `If-Match` and `If-None-Match` say of it (RFC 9110, section 13.1)."""

import re
from typing import Final

from protocols.errors import PreconditionError
from protocols.views import JobDetail
from runtime.api.asked import HttpRequest
from runtime.api.problems import RefusedError

# Each blank has one place in the pattern: with two, a long row of them would be tried in every way.
_TAGS: Final = re.compile(r'\s*+(?:\*|(?:W/)?"[^"]*+"(?:[\s,]++(?:W/)?"[^"]*+")*+)[\s,]*+')
_TAG: Final = re.compile(r'(?:W/)?"[^"]*"')


def etag_of(job: JobDetail) -> str:
    """Names the version in force, and which job of this name it is of.

    A job that was deleted and made anew begins again at version 1.
    """
    born = re.sub(r"\D", "", job.created_at)
    return f'"{job.version}-{int(born):x}"'


class Match:
    """The conditions of one request."""

    def __init__(self, request: HttpRequest) -> None:
        self._match = _tags(request, "If-Match")
        self._none = _tags(request, "If-None-Match")

    @property
    def given(self) -> bool:
        """Whether the client has said which version it has seen."""
        return self._match is not None

    def check(self, job: JobDetail | None) -> None:
        """Raise `PreconditionError` unless the job that stands there is the one that is meant."""
        tag = None if job is None else etag_of(job)
        if self._match is not None and (tag is None or not {"*", tag} & self._match):
            stands = "there is no such job" if tag is None else f"{tag} is in force"
            raise PreconditionError(f"If-Match names another version: {stands}; read it again")
        if self._none is not None and tag is not None and {"*", tag} & self._none:
            raise PreconditionError(f"If-None-Match: there is a job of this id already ({tag})")


def tags_of(text: str, name: str) -> frozenset[str]:
    """The ETags that a header of this name lists, or `*`.

    Raises:
        RefusedError: it is no such list; an empty one too, which would guard nothing.
    """
    if not _TAGS.fullmatch(text):
        raise RefusedError(400, "unreadable", f'{name} holds ETags such as "3-5f", or *')
    return frozenset(_TAG.findall(text)) or frozenset({"*"})


def _tags(request: HttpRequest, name: str) -> frozenset[str] | None:
    values = request.headers.getall(name, [])
    return tags_of(", ".join(values), name) if values else None
