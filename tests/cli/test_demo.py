"""`boardhand up --demo` with everything real but the boards, which are light ones: no QEMU, five seconds."""

import json
import sys
from pathlib import Path

from tests.cli.farm_double import boardhand


def demo(folder: Path, *arguments: str) -> tuple[int, list[dict[str, object]], str]:
    (folder / "run").mkdir()
    done = boardhand(
        "up", "--demo", "--boards", "0", "--light", "2", "--json", *arguments,
        XDG_RUNTIME_DIR=str(folder / "run"), XDG_STATE_HOME=str(folder / "state"),
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that still know this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and sys.executable.rsplit("/", 1)[1] in words:
            found.append(words)
    return found


def test_the_story_is_seen_and_nothing_stays(tmp_path: Path) -> None:
    code, documents, said = demo(tmp_path)
    assert code == 0, said + json.dumps(documents, indent=1)
    story = [str(document.get("text")) for document in documents]
    for words in ("-- 1. 2 board(s)", "ready: has registered", "boardhand demo: hello", "sleeping: had nothing to do"):
        assert any(words in line for line in story), words
    assert story.index(next(line for line in story if "-- 4." in line)) > story.index(
        next(line for line in story if "sleeping" in line)
    )
    assert any(line.startswith("-- seen: 2 board(s)") for line in story)
    assert left_behind(tmp_path) == []
    # A second run over the same state must not take the retained words of the first for news.
    (tmp_path / "run" / "boardhand").rmdir()
    (tmp_path / "run").rmdir()
    code, documents, said = demo(tmp_path)
    assert code == 0, said
    texts = [str(document.get("text")) for document in documents]
    first_ready = next(n for n, line in enumerate(texts) if "ready: has registered" in line)
    assert texts.index("-- 1. 2 board(s) are switched on") < first_ready


def test_what_is_not_seen_in_time_is_a_failure_that_names_the_logs(tmp_path: Path) -> None:
    code, _, said = demo(tmp_path, "--demo-deadline-s", "1", "--idle-s", "600")
    assert code == 1
    assert said.startswith("boardhand: demo: ")
    assert f"logs are in {tmp_path}/state/boardhand/up" in said
    assert left_behind(tmp_path) == []
