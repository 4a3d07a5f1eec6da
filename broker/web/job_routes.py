"""The API's jobs: handed on to the broker, with the name of who asks."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from broker.web.access import Person, Role
from broker.web.desk import Desk
from broker.web.guard import api_error
from broker.web.log_stream import job_log
from broker.web.models import JobList, LogView, SubmitJob, Submitted
from wire.phases import ErrorKind, JobState

MOST_LISTED = 1000


def routes(desk: Desk) -> APIRouter:
    """The routes over `desk`."""
    router = APIRouter(tags=["jobs"])
    reader = Annotated[Person, Depends(desk.guard.needs(Role.READER))]
    user = Annotated[Person, Depends(desk.guard.needs(Role.USER))]
    limit = Annotated[int, Query(ge=1, le=MOST_LISTED)]

    @router.get("/jobs")
    async def jobs(
        _who: reader, limit: limit = 50, state: JobState | None = None, before: str | None = None
    ) -> JobList:
        """Jobs, the newest first."""
        data = {"limit": limit, "state": state, "before": before}
        found = await desk.asker.broker("jobs", {key: value for key, value in data.items() if value is not None})
        return JobList.model_validate(found, strict=False)

    @router.post("/jobs", status_code=201)
    async def submit(asked: SubmitJob, who: user) -> Submitted:
        """Hand in a job, as YAML."""
        return Submitted.model_validate(
            await desk.asker.broker("submit", {"yaml": asked.yaml, "submitter": who.name}, timeout_s=60)
        )

    @router.get("/jobs/{job}")
    async def job(job: str, _who: reader) -> dict[str, object]:
        """One job with its attempts."""
        return await desk.asker.broker("job", {"job": job})

    @router.get("/jobs/{job}/log")
    async def log(job: str, _who: reader, from_chunk: Annotated[int, Query(ge=0)] = 0, limit: limit = 200) -> LogView:
        """A part of a job's log; ask again with `next`."""
        asked: dict[str, object] = {"job": job, "from_chunk": from_chunk, "limit": limit}
        return LogView.model_validate(await desk.asker.broker("logs", asked))

    @router.get("/jobs/{job}/log/live", response_class=StreamingResponse)
    async def log_live(job: str, _who: reader) -> StreamingResponse:
        """The log from its beginning, and on while the job runs, as server-sent events `log` and one `end`."""
        return StreamingResponse(job_log(desk, job), media_type="text/event-stream")

    @router.post("/jobs/{job}/cancel")
    async def cancel(job: str, who: user) -> dict[str, object]:
        """Stop a job: one's own, or anybody's for an operator."""
        if not who.role.covers(Role.OPERATOR):
            found = await desk.asker.broker("job", {"job": job})
            if found.get("submitter") != who.name:
                raise api_error(ErrorKind.NOT_ALLOWED, f"{job} is not {who.name}'s; an operator may cancel it")
        return await desk.asker.broker("cancel", {"job": job})

    return router
