"""An actor of one's own beside the node's: supervised, asked, and fed by what happens."""

import asyncio
import sys
from collections import Counter

import msgspec

from protocols import Actor, Context
from runtime import Runtime, job


class Finished(msgspec.Struct, frozen=True):
    """Something ended."""

    states: tuple[str, ...]


class HowMany(msgspec.Struct, frozen=True):
    """How many ended so?"""

    state: str


class Tally(Actor):
    """Counts how executions end."""

    def __init__(self) -> None:
        self.seen = Counter()

    async def receive(self, message, ctx: Context):
        match message:
            case Finished(states=states):
                self.seen.update(states)
            case HowMany(state=state):
                return self.seen[state]
        return None


@job("work", overlap="allow")
async def work(ctx):
    await asyncio.sleep(0)


async def main(data_dir: str) -> None:
    async with Runtime.embedded(data_dir) as rt:
        await rt.apply(work)
        tally = rt.spawn(Tally)
        for execution in [await rt.trigger("work") for _ in range(5)]:
            await execution.wait()
        async for event in rt.subscribe(from_start=True):
            if event.kind == "finished":
                tally.tell(Finished(tuple(event.states)))
            if await tally.ask(HowMany("succeeded"), deadline=1.0) == 5:
                break
        print("succeeded:", await tally.ask(HowMany("succeeded"), deadline=1.0))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
