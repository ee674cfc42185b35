"""Actors that the kernel's tests share."""

import asyncio

import pytest

from protocols.actor import Actor, Backoff

AT_ONCE = Backoff(base_s=0)


class Recorder(Actor):
    """Writes down what it lives through; obeys a few words."""

    def __init__(self, log=None, gate=None):
        self.log = log if log is not None else []
        self.gate = gate

    async def on_start(self, ctx):
        self.log.append(("start", ctx.name))

    async def receive(self, message, ctx):
        if message == "crash" or getattr(message, "crash", False):
            raise ValueError("crash")
        if message == "wait":
            await self.gate.wait()
        elif message == "finish":
            ctx.stop()
        elif callable(message):
            answer = message(ctx)
            return await answer if asyncio.iscoroutine(answer) else answer
        self.log.append(message)
        return message

    async def on_stop(self, ctx):
        self.log.append(("stop", ctx.name))


@pytest.fixture
def recorder():
    """The class, since test modules are not importable from each other."""
    return Recorder


@pytest.fixture
def at_once():
    return AT_ONCE
