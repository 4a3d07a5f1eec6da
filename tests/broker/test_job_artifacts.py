"""What boards send as artifacts, on a real folder: nothing they say leads out of it, fills it, or ends the broker."""

import base64
import hashlib
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.happenings import SaveArtifact
from broker.jobs.artifact_store import ArtifactStore, name_problem
from wire.payloads import WorkArtifact


def piece(data=b"", n=0, *, name="a.log", offset=0, end=None, job=1, attempt=1, room=1000, raw=None, problem=None):
    report = WorkArtifact(
        job=f"job-{job}", token=1, n=n, name=name, offset=offset, problem=problem,
        data=base64.b64encode(data).decode() if raw is None else raw,
        sha256=hashlib.sha256(end).hexdigest() if end is not None else None,
    )  # fmt: skip
    return SaveArtifact(job, attempt, report, room)


@pytest.fixture
def store(tmp_path):
    made = ArtifactStore(tmp_path / "artifacts", 10_000)
    made.open()
    return made


def test_a_file_comes_in_pieces_some_of_them_twice(store):
    assert store.take(piece(b"abc")) is None
    assert store.take(piece(b"abc")) is None
    assert store.take(piece(b"de", offset=3)) is None
    done = store.take(piece(b"f", offset=5, end=b"abcdef"))
    assert (done.name, done.size, done.problem) == ("a.log", 6, None)
    assert store.read(done, 2, 3) == b"cde"
    assert store.take(piece(b"f", offset=5, end=b"abcdef")) is None
    assert store.read(done, 0, 99) == b"abcdef"


def test_an_empty_file(store):
    done = store.take(piece(end=b""))
    assert done.problem is None and store.read(done, 0, 9) == b""


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "/../x", "a\nb", "\x1b[2J", ".", "//", "a/" * 70])
def test_names_that_are_not_kept(store, name, tmp_path):
    done = store.take(piece(b"evil", name=name, end=b"evil"))
    assert done.problem is not None and name_problem(name) == done.problem
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["/var/log/x.log", "a/b/c", "ü", "a..b", "...", "it's \\ \""])
def test_names_that_are_kept(store, name):
    assert store.take(piece(b"x", name=name, end=b"x")).problem is None


def test_what_is_wrong_with_a_file_is_said_and_nothing_of_it_stays(store):
    assert "is missing" in store.take(piece(b"b", offset=1, end=b"ab")).problem
    assert "checksum" in store.take(piece(b"b", n=1, end=b"c")).problem
    assert "base64" in store.take(piece(raw="A==="[:3], n=2, end=b"")).problem
    assert "more than the job's 5 bytes" in store.take(piece(b"123456", n=3, end=b"123456", room=5)).problem
    assert store.take(piece(n=4, problem="nothing has that name")).problem == "nothing has that name"
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []


def test_the_room_is_for_all_files_of_the_attempt(store):
    assert store.take(piece(b"1234", end=b"1234", room=6)).problem is None
    assert store.take(piece(b"567", n=1, end=b"567", room=6)).problem is not None
    assert store.take(piece(b"56", n=2, end=b"56", room=6)).problem is None


def test_the_oldest_jobs_go_when_the_store_is_full(store):
    for job in (1, 2, 3):
        data = bytes(4000)
        assert store.take(piece(data, job=job, end=data, room=5000)).problem is None
    assert store.full and store.make_room() == [1]
    again = ArtifactStore(store.folder, 10_000)
    again.open()
    assert again.jobs == [2, 3] and not again.full


def test_a_folder_that_cannot_be_written_costs_the_file_not_the_broker(tmp_path):
    store = ArtifactStore(tmp_path / "artifacts", 10)
    store.open()
    (tmp_path / "artifacts" / "1").write_text("a file where a folder should be")
    done = store.take(piece(b"x", end=b"x"))
    assert done.problem.startswith("the broker could not store it") or "is missing" in done.problem


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.binary(max_size=20), st.booleans()), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_whatever_comes_the_room_holds_and_what_is_kept_has_its_checksum(tmp_path, pieces):
    folder = tmp_path / os.urandom(4).hex()
    store = ArtifactStore(folder, 10_000)
    store.open()
    for n, offset, data, last in pieces:
        done = store.take(piece(data, n=n, offset=offset, end=data if last else None, room=50))
        if done is not None and done.problem is None:
            assert hashlib.sha256(store.read(done, 0, 999)).hexdigest() == done.sha256
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 50
