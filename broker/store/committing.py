"""What has to be on the disk before anything is said: artifacts first, then the rows, in one transaction.

A disk that is full or read-only does not end the broker. The batch that could not be written waits and is tried again,
nothing of it is said, and meanwhile new jobs are refused in words: what was accepted is never lost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path

from broker.happenings import SaveArtifact, Saved
from broker.jobs.artifact_store import Artifact, ArtifactStore
from broker.jobs.life import Job
from broker.jobs.store import Answer, JobStore
from broker.store.room import why_no_room
from broker.store.sql import StoreUnavailableError

log = logging.getLogger(__name__)

LOOK_S = 5.0
RETRY_S = 0.5


class Committer:
    """`no_room` says why no new job is taken, or is None."""

    def __init__(self, store: JobStore, artifacts: ArtifactStore, folder: Path) -> None:
        self._store, self._artifacts, self._folder = store, artifacts, folder
        self.no_room: str | None = None

    async def watch_room(self) -> None:
        """Look after the room on the disk, until cancelled."""
        while True:
            self._found(await asyncio.to_thread(why_no_room, self._folder))
            await asyncio.sleep(LOOK_S)

    def _found(self, problem: str | None) -> None:
        if problem is not None and self.no_room is None:
            log.error("%s; no new jobs are taken until then", problem)
        elif problem is None and self.no_room is not None:
            log.warning("%s: there is room again, jobs are taken", self._folder)
        self.no_room = problem

    async def commit(
        self,
        saved: Sequence[Saved],
        pieces: Sequence[SaveArtifact],
        answers: Sequence[Answer],
        meanwhile: Callable[[], Awaitable[None]],
        *,
        speaks: bool = False,
    ) -> None:
        """Returns when all of it is stored, however long that takes; `meanwhile` is called between tries.

        With `speaks`, messages follow: then it returns only where this broker may speak, also with nothing to store.

        Raises:
            broker.store.sql.LeadershipLostError: another broker leads.
            sqlite3.Error, psycopg.Error: it can never be stored: a defect of ours, or a damaged file.
        """
        files: list[Artifact] = []
        removed: list[int] = []
        if pieces:
            files, removed = await asyncio.to_thread(self._take, pieces)
        stores = bool(saved or answers or files or removed)
        if not (stores or speaks):
            return
        while True:
            try:
                await (self._store.commit(saved, answers, files, removed) if stores else self._store.fence())
            except StoreUnavailableError as error:
                self._found(f"the broker's store cannot be written: {error}; make room there, make it writable")
                await meanwhile()
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def jobs_to_tell(self, ended_after: datetime, limit: int) -> list[Job]:
        """See `JobStore.jobs_to_tell`; waits for a store that cannot be used."""
        while True:
            try:
                return await self._store.jobs_to_tell(ended_after, limit)
            except StoreUnavailableError as error:
                self._found(f"the broker's store cannot be used: {error}; mend that")
                await asyncio.sleep(RETRY_S)

    def _take(self, pieces: Sequence[SaveArtifact]) -> tuple[list[Artifact], list[int]]:
        files = [artifact for piece in pieces if (artifact := self._artifacts.take(piece)) is not None]
        return files, self._artifacts.make_room() if self._artifacts.full else []

    async def forget(self, keep_jobs: int) -> None:
        """Remove all but the newest jobs from the store, and the files of those that it has forgotten."""
        try:
            await self._store.forget_jobs(keep_jobs)
            await self._forget_artifacts()
        except StoreUnavailableError as error:
            log.warning("old jobs are not removed now: %s", error)

    async def _forget_artifacts(self) -> None:
        jobs = await asyncio.to_thread(lambda: self._artifacts.jobs)
        known = await self._store.results.known(jobs)
        for job in jobs:
            if job not in known:
                await asyncio.to_thread(self._artifacts.forget, job)
