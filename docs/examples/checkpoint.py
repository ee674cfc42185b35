"""A job that is tried again, and goes on from where it was: checkpoints and `once`."""

import asyncio
import sys

from runtime import Runtime, job


@job("import", max_retries=2, retry={"backoff": "fixed", "base": "100ms", "jitter": 0})
async def import_pages(ctx):
    done = ctx.checkpoint or 0
    for page in range(done, 10):
        if page == 5 and ctx.attempt == 1:
            raise ConnectionError("the line broke")
        await ctx.save(page + 1)
    if await ctx.once("mail", ttl=3600):
        print("one mail is sent, whatever happens")
    return {"from": done, "attempt": ctx.attempt}


async def main(data_dir: str) -> None:
    async with Runtime.embedded(data_dir) as rt:
        await rt.apply(import_pages)
        ended = await (await rt.trigger("import")).wait()
        print("import:", ended.result, [attempt.state for attempt in ended.attempts])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
