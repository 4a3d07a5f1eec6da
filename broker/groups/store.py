"""What is stored of groups beside their jobs: the messages that their boards have sent."""

from collections.abc import Iterable

from broker.groups.calls import Meeting
from broker.groups.members import members
from broker.happenings import SaveMeeting
from broker.jobs.life import Job
from broker.store.sql import Connection


def save_meeting(connection: Connection, item: SaveMeeting) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO meetings (job, attempt, board, call, text) VALUES (?, ?, ?, ?, ?)",
        (item.group, item.attempt, item.board, item.call, item.text),
    )


def stored_meetings(connection: Connection) -> list[Meeting]:
    """The messages of groups that have not ended, in the order in which they were sent."""
    rows = connection.execute(
        "SELECT m.job, m.attempt, m.board, m.call, m.text FROM meetings AS m JOIN jobs AS j ON j.number = m.job"
        " WHERE j.ended_flag = 0 ORDER BY m.number"
    )
    return [Meeting(row["job"], row["attempt"], row["board"], row["call"], row["text"]) for row in rows]


def mark_members(jobs: Iterable[Job]) -> list[int]:
    """Tell jobs that have not ended which group they are in; the numbers of the members among them that have ended."""
    known = {job.number: job for job in jobs}
    ended: list[int] = []
    for job in list(known.values()):
        if job.spec.group is None:
            continue
        job.group = job.number
        for number in range(job.number + 1, job.number + 1 + len(members(job.spec))):
            if number in known:
                known[number].group = job.number
            else:
                ended.append(number)
    return ended
