"""A program that runs its own jobs: functions with `@job`, and a node inside the program."""

import asyncio
import sys

from runtime import Runtime, job


@job("refresh", schedule="*/5 * * * *", max_retries=3, timeout="1m")
async def refresh(ctx):
    """Runs in this very process (`inline`), since it is a function of this program."""
    ctx.log.info("refreshing day %s, attempt %s", ctx.input["day"], ctx.attempt)
    return {"rows": 3 * ctx.input["day"]}


@job("report", on={"job": "refresh"}, max_retries=1)
def report(ctx):
    """Runs each time `refresh` has succeeded; a plain function runs in a thread."""
    return f"{ctx.input['job_id']} {ctx.input['state']}"


async def main(data_dir: str) -> None:
    async with Runtime.embedded(data_dir) as rt:
        await rt.apply(refresh, report)
        execution = await rt.trigger("refresh", input={"day": 3}, key="day-3")
        again = await rt.trigger("refresh", input={"day": 3}, key="day-3")
        assert again.execution_id == execution.execution_id
        print("refresh:", (await execution.wait()).result)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
