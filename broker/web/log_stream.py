"""A job's log while it runs, as server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from broker.web.asking import AskError
from broker.web.desk import Desk
from broker.web.live import event_text

PIECES = 200
LOOK_EVERY_S = 0.5
"""How soon new lines are shown: a page that looks costs the broker two questions to its store a second."""
HEARTBEAT_EVERY = 20
"""In looks: ten seconds without a line."""


async def job_log(desk: Desk, job: str) -> AsyncIterator[bytes]:
    """Events `log` with pieces of the log, then `end` with the job, or `problem` with the reason why not."""
    following, quiet = 0, 0
    while True:
        try:
            answer = await desk.asker.broker("logs", {"job": job, "from_chunk": following, "limit": PIECES})
        except AskError as error:
            yield event_text("problem", error.info.model_dump(mode="json", exclude_none=True))
            return
        chunks = answer.get("chunks")
        if isinstance(chunks, list) and chunks:
            quiet = 0
            for chunk in chunks:
                yield event_text("log", chunk, str(chunk.get("seq")))
        number = answer.get("next")
        following = number if isinstance(number, int) else following
        if answer.get("ended"):
            try:
                yield event_text("end", await desk.asker.broker("job", {"job": job}))
            except AskError as error:
                yield event_text("problem", error.info.model_dump(mode="json", exclude_none=True))
            return
        if not chunks:
            quiet += 1
            if quiet % HEARTBEAT_EVERY == 0:
                yield b": still here\n\n"
            await asyncio.sleep(LOOK_EVERY_S)
