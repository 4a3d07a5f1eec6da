"""`boardhand root`: on a store of this machine, and asked of doubles of agents over a real Mosquitto."""

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from board.client import MqttConnection
from cli.exits import Exit
from cli.main import main
from tests.cli.farm_double import DEADLINE_S, boardhand, mosquitto, say


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """The folder of a store, named by the environment."""
    monkeypatch.setenv("BOARDHAND_ROOTS", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    return root


@pytest.fixture
def archive(tree, tmp_path):
    path = tmp_path / "root.tar.xz"
    subprocess.run(["tar", "--xz", "-cf", path, "-C", tree, "."], check=True, timeout=DEADLINE_S)
    return path


def say_json(capsys, *line):
    """The exit code and the one JSON document."""
    capsys.readouterr()
    code = main([*line, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_life_of_a_root_in_lines(roots, archive, capsys):
    assert main(["root", "import", "debian", str(archive)]) == Exit.OK
    said = capsys.readouterr().out
    assert said.startswith("debian: 3 files, 0.0 MB, in ")
    assert main(["root", "list"]) == Exit.OK
    heading, row, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ROOT", "SIZE", "FILES", "IMPORTED", "USED", "BY"]
    assert row.split()[:4] == ["debian", "0.0", "MB", "3"]
    assert last.startswith(f"{roots}: 1 roots, ")
    assert main(["root", "show", "debian"]) == Exit.OK
    shown = capsys.readouterr().out
    assert f"from {archive}\n" in shown
    assert "used by   no board" in shown
    assert main(["root", "verify", "debian"]) == Exit.OK
    assert capsys.readouterr().out == "debian: as it was imported, 3 files, 0.0 MB\n"
    assert main(["root", "remove", "debian"]) == Exit.OK
    assert capsys.readouterr().out.startswith("debian: removed, ")
    assert list((roots / "trash").iterdir()) == []
    assert main(["root", "list"]) == Exit.OK
    assert capsys.readouterr().out.startswith(f"{roots}: no roots, ")


def test_a_life_of_a_root_as_json(roots, archive, capsys):
    code, made = say_json(capsys, "root", "import", "debian", str(archive))
    assert (code, made["root"]["name"], made["root"]["files"], made["root"]["lost"]) == (Exit.OK, "debian", 3, {})
    code, listed = say_json(capsys, "root", "list")
    assert (code, listed["store"], listed["roots"]) == (Exit.OK, str(roots), [{**made["root"], "users": []}])
    assert say_json(capsys, "root", "show", "debian") == (
        Exit.OK,
        {"root": made["root"], "users": [], "profiles": None},
    )
    assert say_json(capsys, "root", "verify", "debian") == (Exit.OK, {"name": "debian", "ok": True, "differences": []})
    (roots / "roots/debian/tree/etc/os-release").write_text("ID=else\n")
    code, verdict = say_json(capsys, "root", "verify", "debian")
    assert (code, verdict["differences"]) == (Exit.FAILED, ["etc/os-release: its content has changed"])
    code, removed = say_json(capsys, "root", "remove", "debian")
    assert (code, removed["removed"]) == (Exit.OK, "debian")


WRONG = {
    "no verb": ([], Exit.USAGE, "root needs a verb"),
    "a name that is none": (["import", "../x", "."], Exit.USAGE, "no root id"),
    "no such source": (["import", "a", "missing"], Exit.FAILED, "missing: cannot be read"),
    "a checksum that is none": (["import", "a", ".", "--sha256", "abc"], Exit.USAGE, "no SHA-256"),
    "a size that is none": (["import", "a", ".", "--max-size", "big"], Exit.USAGE, "no size"),
    "a URL without a checksum": (["import", "a", "http://h/x"], Exit.FAILED, "--sha256"),
    "no such root": (["show", "nothing"], Exit.NO_ANSWER, "known are: none"),
    "nothing to verify": (["verify", "nothing"], Exit.NO_ANSWER, "no root 'nothing'"),
    "nothing to remove": (["remove", "nothing"], Exit.NO_ANSWER, "no root 'nothing'"),
    "settings that are not there": (["list", "--settings", "missing.toml"], Exit.USAGE, "missing.toml"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_goes_wrong_is_one_line_and_an_exit_code(roots, tmp_path, monkeypatch, capsys, case):
    line, code, words = WRONG[case]
    monkeypatch.chdir(tmp_path)
    assert main(["root", *line]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_what_must_not_be_done_is_exit_5(roots, archive, capsys):
    assert main(["root", "import", "debian", str(archive)]) == Exit.OK
    assert main(["root", "import", "debian", str(archive)]) == Exit.FAILED
    assert "already" in capsys.readouterr().err
    (roots / "views/pi-1").mkdir()
    (roots / "views/pi-1/view.json").write_text('{"root": "debian"}')
    assert main(["root", "remove", "debian"]) == Exit.NOT_ALLOWED
    assert "in use by pi-1" in capsys.readouterr().err
    code, shown = say_json(capsys, "root", "show", "debian")
    assert (code, shown["users"]) == (Exit.OK, ["pi-1"])


def test_the_settings_of_an_agent_name_the_store_and_the_profiles(roots, archive, capsys, monkeypatch, tmp_path):
    """Their form is the agent's business, and tested there."""
    profiles = {"ci": SimpleNamespace(root="debian"), "old": SimpleNamespace(root=None)}
    settings = SimpleNamespace(roots=SimpleNamespace(dir=roots), profiles=profiles)
    monkeypatch.setattr("cli.root_settings.load", lambda _path: settings)
    monkeypatch.setenv("BOARDHAND_ROOTS", str(tmp_path / "elsewhere"))
    assert main(["root", "import", "debian", str(archive), "--settings", "agent.toml"]) == Exit.OK
    code, shown = say_json(capsys, "root", "show", "debian", "--settings", "agent.toml")
    assert (code, shown["profiles"]) == (Exit.OK, ["ci"])
    assert main(["root", "remove", "debian", "--settings", "agent.toml"]) == Exit.NOT_ALLOWED
    assert "root debian is what profile ci boots" in capsys.readouterr().err
    profiles.clear()
    assert main(["root", "remove", "debian", "--settings", "agent.toml"]) == Exit.OK
    settings.roots = None
    assert main(["root", "list", "--settings", "agent.toml"]) == Exit.USAGE
    assert "has no table [roots]" in capsys.readouterr().err


def test_a_user_without_rights_is_told_and_may_lose(tmp_path, tree):
    path = tmp_path / "root.tar"
    subprocess.run(["tar", "--owner=7:7", "-cf", path, "-C", tree, "."], check=True, timeout=DEADLINE_S)
    command = ["unshare", "--user", sys.executable, "-m", "cli", "root", "import", "debian", path]
    command += ["--dir", tmp_path / "store", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == Exit.NOT_ALLOWED, done.stderr
    assert "owners cannot be kept by user" in json.loads(done.stdout)["error"]["message"]
    done = subprocess.run([*command, "--lossy"], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout)["root"]["lost"] == {"owners": 3}


# --- from the net ---


@pytest.fixture
def origin(archive):
    """A web server with the archive's folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    handler = functools.partial(Quiet, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(DEADLINE_S)


def test_a_root_is_fetched_checked_and_imported(roots, archive, origin, capsys):
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    url = f"{origin}/root.tar.xz"
    code, failed = say_json(capsys, "root", "import", "debian", url, "--sha256", "0" * 64)
    assert code == Exit.FAILED
    assert f"the file there has SHA-256 {sha256}" in failed["error"]["message"]
    code, failed = say_json(capsys, "root", "import", "debian", f"{origin}/nothing", "--sha256", sha256)
    assert code == Exit.FAILED
    assert f"{origin}/nothing" in failed["error"]["message"]
    assert list((roots / "incoming").iterdir()) == []
    code, made = say_json(capsys, "root", "import", "debian", f"{url}?token=secret", "--sha256", sha256)
    assert (code, made["root"]["source"], made["root"]["files"]) == (Exit.OK, url, 3)
    assert sorted(entry.name for entry in (roots / "roots/debian").iterdir()) == ["manifest.gz", "root.json", "tree"]


def test_a_file_larger_than_allowed_is_not_fetched(roots, archive, origin, capsys):
    line = ["root", "import", "debian", f"{origin}/root.tar.xz", "--sha256", "0" * 64, "--max-size", "100"]
    code, failed = say_json(capsys, *line)
    assert code == Exit.FAILED
    assert "--max-size" in failed["error"]["message"]


# --- asked of agents ---


class RootAgents:
    """Agents that are a thread: each answers by what its handler returns for a verb and data; None is no answer."""

    def __init__(self, port, **agents):
        self.agents = {name.replace("_", "-"): handler for name, handler in agents.items()}
        self.requests = []
        self._port = port
        self._link = MqttConnection("127.0.0.1", port, f"roots-{os.getpid()}-{port}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="root agents")

    def announce(self, agent, boards):
        said = {"state": "online", "session": 1, "since": "2026-11-21T12:00:00+00:00"}
        say(self._port, f"boardhand/agent/{agent}/state", json.dumps(said).encode(), retain=True)
        info = {"version": "1", "contract": "1.0", "host": "h", "controllers": [], "boards": boards}
        say(self._port, f"boardhand/agent/{agent}/info", json.dumps(info).encode(), retain=True)

    def __enter__(self):
        self._link.connect()
        for verb in ("roots", "root-reset", "root-save"):
            self._link.subscribe(f"boardhand/agent/+/request/{verb}")
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join(DEADLINE_S)
        self._link.close()

    def _run(self):
        while not self._stop.is_set():
            message = self._link.receive(0.1)
            if message is None:
                continue
            _, _, agent, _, verb = message.topic.split("/")
            request = json.loads(message.payload)
            self.requests.append((agent, verb, request["data"]))
            said = self.agents[agent](verb, request["data"])
            if said is not None:
                answer = said if "ok" in said else {"ok": True, "data": said}
                payload = json.dumps({"transaction": request["transaction"], **answer}).encode()
                self._link.publish(f"boardhand/agent/{agent}/response/{verb}", payload, wait=False)


@pytest.fixture
def server(tmp_path):
    with mosquitto(tmp_path / "mosquitto") as port:
        yield port


def refusal(kind, message):
    return {"ok": False, "error": {"kind": kind, "message": message}}


def test_a_view_is_reset(server):
    def answer(verb, data):
        if data.get("force") is None:
            return refusal("busy", "board pi-1 runs from its view: switch it off, or force")
        return {"board": data["board"], "root": "debian", "generation": 4, "took_ms": 12}

    with RootAgents(server, lab_1=answer, lab_2=lambda _verb, _data: refusal("unknown-board", "no")) as farm:
        farm.announce("lab-1", ["pi-1"])
        farm.announce("lab-2", ["pi-2"])
        done = boardhand("root", "reset", "pi-1", port=server)
        assert (done.returncode, done.stdout) == (Exit.FAILED, "")
        assert "agent lab-1: board pi-1 runs from its view" in done.stderr
        done = boardhand("root", "reset", "pi-1", "--force", port=server)
        assert (done.returncode, done.stdout) == (Exit.OK, "pi-1: root debian is as it was imported, in 12 ms\n")
        done = boardhand("root", "reset", "pi-1", "--force", "--json", port=server)
        assert json.loads(done.stdout) == {
            "agent": "lab-1", "board": "pi-1", "root": "debian", "generation": 4, "took_ms": 12,
        }  # fmt: skip
        done = boardhand("root", "reset", "pi-9", port=server)
        assert done.returncode == Exit.NO_ANSWER
        assert "unknown board pi-9" in done.stderr
    assert {agent for agent, _, data in farm.requests if data["board"] == "pi-1"} == {"lab-1"}


def work(**changes):
    return {
        "board": "pi-1",
        "name": "kept",
        "stage": "import",
        "done": 1,
        "total": 4,
        "ended": None,
        "error": None,
    } | changes


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_view_is_saved_and_its_end_is_waited_for(server, ends_well):
    asked = []

    def answer(verb, data):
        if verb == "root-save":
            return {"board": data["board"], "name": data["name"]}
        asked.append(verb)
        end = work(ended="2026-11-21T12:00:00+00:00", error=None if ends_well else "the store is full")
        return {
            "roots": [],
            "views": [],
            "free_bytes": 1,
            "work": [work(name="old", error="x"), work() if len(asked) < 2 else end],
        }

    with RootAgents(server, lab_1=answer) as farm:
        farm.announce("lab-1", ["pi-1"])
        done = boardhand("root", "save", "pi-1", "kept", "--live", port=server)
    if ends_well:
        assert (done.returncode, done.stdout) == (Exit.OK, "kept: made of pi-1's view, on agent lab-1\n")
    else:
        assert (done.returncode, done.stdout) == (Exit.FAILED, "")
        assert "agent lab-1: the store is full" in done.stderr
    assert len(asked) == 2
    assert ("lab-1", "root-save", {"board": "pi-1", "name": "kept", "live": True, "boards": ["pi-1"]}) in farm.requests


def test_a_save_need_not_be_waited_for_and_may_take_too_long(server):
    def answer(verb, data):
        if verb == "root-save":
            return {"board": data["board"], "name": data["name"]}
        return {"roots": [], "views": [], "free_bytes": 1, "work": [work()] if data.get("boards") else []}

    with RootAgents(server, lab_1=answer) as farm:
        farm.announce("lab-1", ["pi-1"])
        done = boardhand("root", "save", "pi-1", "kept", "--no-wait", "--json", port=server)
        assert json.loads(done.stdout) == {"agent": "lab-1", "board": "pi-1", "name": "kept", "ended": False}
        began = time.monotonic()
        done = boardhand("root", "save", "pi-1", "kept", "--timeout-s", "0.5", port=server)
        assert done.returncode == Exit.NO_ANSWER
        assert "the save of pi-1 as kept goes on" in done.stderr
        assert time.monotonic() - began < DEADLINE_S


def test_views_of_all_agents_are_listed(server):
    views = [{"board": "pi-1", "root": "debian", "upper": "server", "generation": 3, "running": True}]
    report = {"roots": [{"name": "debian"}], "views": views, "work": [work(error="full")], "free_bytes": 3 * 10**9}
    with RootAgents(
        server, lab_1=lambda _verb, _data: report, lab_2=lambda _v, _d: refusal("configuration", "no [roots] table")
    ) as farm:
        farm.announce("lab-1", ["pi-1"])
        farm.announce("lab-2", ["pi-2"])
        done = boardhand("root", "views", port=server)
        assert done.returncode == Exit.OK, done.stderr
        assert done.stdout.splitlines() == [
            "lab-1: 1 roots, 3.0 GB free",
            "  pi-1: root debian, written to server, running",
            "  pi-1 saved as kept: full",
            "agent lab-2 no [roots] table",
        ]
        done = boardhand("root", "views", "--json", port=server)
        assert json.loads(done.stdout) == {
            "agents": [{"agent": "lab-1", **report}], "silent": ["agent lab-2 no [roots] table"],
        }  # fmt: skip


def test_the_manual_page_of_every_verb(capsys):
    for verb in ("import", "list", "show", "verify", "remove", "views", "reset", "save"):
        assert main(["root", verb, "--help"]) == Exit.OK
        page = capsys.readouterr().out
        assert page.startswith(f"usage: boardhand root {verb}")
        assert "JSON: " in page
        assert "--mqtt" in page


def test_looking_for_help_imports_nothing_heavy():
    code = "import sys; from cli.main import main; main(['root', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert not {"aiohttp", "pydantic", "rich", "netboot.roots.store"} & set(done.stdout.split("'"))
