"""Logs show no secret, whoever wrote the line, and end nothing when they cannot be written."""

import pytest

from runtime.logs import Lines, hide_secrets


def shown(**event):
    return hide_secrets(None, "info", event)


@pytest.mark.parametrize(
    "event",
    [
        {"password": "s3cr3t"},
        {"api_token": "s3cr3t"},
        {"dsn": "host=x password=s3cr3t"},
        {"database_url": "postgresql://u:s3cr3t@h/d"},
        {"error": "cannot reach postgresql://u:s3c@r3t/s3cr3t@h:1/d now"},
        {"error": "http://h/?token=s3cr3t&x=1"},
        {"headers": {"Authorization": "Bearer s3cr3t"}},
        {"event": "sent Authorization: Bearer s3cr3t"},
        {"found": [{"deep": ("redis://:s3cr3t@h",)}]},
    ],
)
def test_a_secret_is_blotted_out(event):
    said = repr(shown(**event))
    assert "s3cr3t" not in said
    assert "***" in said


def test_what_is_no_secret_stays():
    event = {"fencing_token": 7, "url": "http://127.0.0.1:8700/x", "error": "a: b@c", "n": [1.5]}
    assert shown(**event) == event


def test_a_stream_that_cannot_be_written_ends_nothing():
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def flush(self):
            raise BrokenPipeError

    lines = Lines(Full())
    assert lines.write("x") == 0
    lines.flush()
