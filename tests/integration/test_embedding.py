"""`Runtime.embedded`: a node inside a program, left in every way, and refused in one sentence."""

from contextlib import AsyncExitStack

import anyio
import pytest

from protocols import Actor
from protocols.errors import InvalidError
from runtime import Runtime, dag, job, task
from runtime.database import DatabaseError
from runtime.settings import SettingsError

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


@job("add", max_retries=1)
async def add(ctx):
    return {"sum": sum(ctx.input)}


def closure(job_id):
    @job(job_id)
    async def made(ctx):
        return job_id

    return made


async def test_two_live_side_by_side_and_a_second_on_one_folder_is_refused(land):
    async with Runtime.embedded(land / "a") as one, Runtime.embedded(land / "b") as two:
        for runtime in (one, two):
            await runtime.apply(add)
            execution = await runtime.trigger("add", input=[1, 2])
            done = await execution.wait(timeout_s=30)
            assert (done.state, done.result) == ("succeeded", {"sum": 3})
        with pytest.raises(DatabaseError, match="pid"):
            async with Runtime.embedded(land / "a"):
                raise AssertionError("two nodes on one folder")


async def test_what_is_left_by_an_error_or_a_cancel_can_be_opened_again(land):
    async def fail():
        async with Runtime.embedded(land / "a") as runtime:
            await runtime.apply(add)
            raise LookupError("the program's own")

    with pytest.raises(LookupError, match="the program's own"):
        await fail()
    with anyio.CancelScope() as scope:
        # A stack around it walks the chain of errors, which must have an end.
        async with AsyncExitStack() as stack:
            runtime = await stack.enter_async_context(Runtime.embedded(land / "a"))
            assert (await runtime.apply(add)).unchanged == ("add",)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    async with Runtime.embedded(land / "a") as runtime:
        await runtime.apply(add)
        execution = await runtime.trigger("add", input=[2])
        assert (await execution.wait(timeout_s=30)).state == "succeeded"
        with pytest.raises(InvalidError) as caught:
            await runtime.apply(closure("one"), closure("two"))
        assert "is the function of one already" in str(caught.value)
        assert (await runtime.apply(closure("one"))).created == ("one",)


async def test_a_wrong_option_is_told_and_starts_nothing(land):
    with pytest.raises(SettingsError, match=r"pools.default.slots: slots is a whole number"):
        Runtime.embedded(land / "a", pools__default__slots=0)
    declared = [{"name": "a", "class": "nowhere:A"}, {"name": "b", "class": "json:loads"}]
    with pytest.raises(SettingsError) as caught:
        async with Runtime.embedded(land / "a", actors=declared):
            raise AssertionError("an actor that is not there")
    first, second = caught.value.lines
    assert "actors: a: nowhere:A: cannot be imported: ModuleNotFoundError" in first
    assert "not a class derived from protocols.Actor" in second
    assert not (land / "a").exists()


class Fragile(Actor):
    async def receive(self, message, ctx):
        if message == "break":
            raise ValueError(message)
        return message


@pytest.mark.asyncio
async def test_an_actor_that_spends_its_restarts_ends_alone(land):
    async with Runtime.embedded(land / "a") as runtime:
        fragile, sound = runtime.spawn(Fragile, name="fragile"), runtime.spawn(Fragile)
        assert fragile.path == "/actors/fragile/fragile"
        with anyio.fail_after(60):
            while fragile.alive:
                fragile.tell("break")
                await anyio.sleep(0.01)
        assert await sound.ask("still here", deadline=5.0) == "still here"
        again = runtime.spawn(Fragile, name="fragile")
        assert await again.ask("anew", deadline=5.0) == "anew"


@task
async def produce(ctx):
    return [1, 2]


@task
async def total(ctx, numbers):
    return sum(numbers)


@dag("drawn")
def drawn():
    total(produce())


async def test_a_dag_of_this_program_is_applied_with_its_functions(land):
    async with Runtime.embedded(land / "a") as runtime:
        assert (await runtime.apply(drawn, add)).created == ("add", "drawn")
        assert (await runtime.apply(drawn, add)).unchanged == ("add", "drawn")

        @dag("other")
        def other():
            task(closure("one").function)()
            task(closure("two").function)()

        with pytest.raises(InvalidError) as caught:
            await runtime.apply(other)
        assert "is the function of a task already" in str(caught.value)
