"""Roots as the agent has them: settings that fit, words in the boot file, requests of MQTT, and what is told."""

import asyncio

import pytest

from agent.boot_choice import BootRequest
from agent.requests import RequestError
from agent.settings import load
from daemon.settings_file import SettingsError
from netboot.boot_tree import BootTree, TreeClient
from netboot.file_desk import FileDesk
from netboot.roots.errors import EngineError, NoSuchRootError
from netboot.secret_keeper import SecretKeeper
from netboot.tftp_process import Question, SendBytes, SendError
from tests.netboot.roots.desk_lab import DeskLab, settings_file
from tests.netboot.roots.test_supply import FakeEngine
from wire.phases import ErrorKind

pytestmark = [pytest.mark.mounts, pytest.mark.usefixtures("private_mounts")]


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
async def make_lab(tmp_path, tree, engine):
    made = []

    def make_engine(_settings, on_trouble):
        engine.trouble = on_trouble
        return engine

    async def make(on=(), **settings):
        lab = DeskLab(tmp_path, tree, make_engine, **settings)
        made.append(lab)
        await lab.desk.start(on)
        return lab

    yield make
    for lab in made:
        await lab.desk.stop()
    for lab in made:
        lab.release()


async def test_a_boot_gets_the_words_of_its_profile_s_root(make_lab, engine, tmp_path):
    lab = await make_lab(roots='authorised_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@home"]')
    words = await lab.desk.words("b1", "standing", ["boardhand.board=b1"])
    assert "boardhand.root=10.77.0.1:/boards/b1" in words
    board, details = await lab.event("given")
    assert (board, details["root"], details["view"]) == ("b1", "debian", "server")
    merged = tmp_path / "store/views/b1/merged"
    assert (merged / "root/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@home\n"
    assert (merged / "etc/boardhand/boot").read_text() == "boardhand.board=b1\n"
    assert (tmp_path / "state/identities/b1").stat().st_mode & 0o077 == 0
    assert await lab.desk.words("b1", "plain", []) == ()
    assert engine.now == {}
    assert await lab.desk.words("b1", "b1-chosen", []) == ()
    assert await lab.desk.words("b3", "plain", []) == ()


@pytest.mark.parametrize(
    ("view", "exports"),
    [
        ("server", ["boards/b1"]),
        ("client-memory", ["identity/b1", "roots/debian"]),
        ("client-nfs", ["disks/b1", "identity/b1", "roots/debian"]),
    ],
)
async def test_exports_come_with_a_boot_and_go_with_the_board_s_power(make_lab, engine, view, exports):
    lab = await make_lab(profile=f'root = "debian"\nroot_view = "{view}"')
    await lab.desk.words("b1", "standing", [])
    assert sorted(engine.now) == exports
    await lab.desk.power_lost("b1")
    assert engine.now == {}


async def test_a_job_s_root_is_fresh_and_its_own(make_lab, tmp_path):
    lab = await make_lab(profile='root = "debian"\nroot_reset = "job"')
    made = tmp_path / "store/views/b1/merged/etc/made"
    seen = []
    for number, lease in enumerate(["ci:1", "ci:1", "ci:2"]):
        lab.leases["b1"] = lease
        await lab.desk.words("b1", "standing", [str(number)])
        seen.append(made.exists())
        made.touch()
    assert seen == [False, True, False]


async def test_requests_list_reset_and_save(make_lab, tmp_path):
    lab = await make_lab()
    await lab.desk.words("b1", "standing", [])
    (tmp_path / "store/views/b1/merged/etc/made").write_text("made\n")
    told = await lab.ask("roots", check=True)
    assert [(root["name"], root["users"]) for root in told["roots"]] == [("debian", ["b1"])]
    assert told["views"] == [
        {"board": "b1", "root": "debian", "upper": "server", "generation": 1, "running": True}
    ]  # fmt: skip
    assert told["free_bytes"] > 0
    assert told["findings"][0]["what"]
    for verb, more in (("root-reset", {}), ("root-save", {"name": "mine"})):
        with pytest.raises(RequestError, match="switch it off") as caught:
            await lab.ask(verb, board="b1", **more)
        assert caught.value.info.kind is ErrorKind.BUSY
    await lab.desk.power_lost("b1")
    assert await lab.ask("root-save", board="b1", name="mine") == {"board": "b1", "name": "mine"}
    await lab.event("given")
    board, details = await lab.event("saved")
    assert (board, details["root"]) == ("b1", "mine")
    assert (lab.store.tree("mine") / "etc/made").read_text() == "made\n"
    (work,) = (await lab.ask("roots"))["work"]
    assert (work["name"], work["ended"], work["error"]) == ("mine", True, None)
    answer = await lab.ask("root-reset", board="b1")
    assert (answer["root"], answer["generation"]) == ("debian", 2)
    assert answer["took_ms"] < 60_000
    assert not (tmp_path / "store/views/b1/merged/etc/made").exists()


@pytest.mark.parametrize(
    ("verb", "data", "kind", "key"),
    [
        ("root-reset", {}, ErrorKind.BAD_REQUEST, "board"),
        ("root-reset", {"board": "b9"}, ErrorKind.UNKNOWN_BOARD, "board"),
        ("root-reset", {"board": "b2"}, ErrorKind.NOT_FOUND, None),
        ("root-reset", {"board": "b1", "force": "yes"}, ErrorKind.BAD_REQUEST, "force"),
        ("root-save", {"board": "b1"}, ErrorKind.BAD_REQUEST, "name"),
        ("root-save", {"board": "b1", "name": "debian", "live": True}, ErrorKind.BAD_REQUEST, "name"),
        ("root-save", {"board": "b1", "name": "../x", "live": True}, ErrorKind.BAD_REQUEST, "name"),
        ("root-save", {"board": "b2", "name": "mine"}, ErrorKind.NOT_FOUND, None),
        ("roots", {"check": 1}, ErrorKind.BAD_REQUEST, "check"),
    ],
)
async def test_a_wrong_request_is_answered_with_what_is_wrong(make_lab, verb, data, kind, key):
    lab = await make_lab()
    await lab.desk.words("b1", "standing", [])
    with pytest.raises(RequestError) as caught:
        await lab.ask(verb, **data)
    assert (caught.value.info.kind, caught.value.info.key) == (kind, key)


async def test_trouble_is_told_while_it_lasts(make_lab, engine, monkeypatch):
    monkeypatch.setattr("agent.roots_desk.RETRY_S", 0.01)
    engine.dead = True
    lab = await make_lab(on=["b1"])
    assert set(lab.alerts) == {"b1", "b2"}
    assert "does not answer" in lab.alerts["b1"]
    with pytest.raises(EngineError):
        await lab.desk.words("b1", "standing", [])
    engine.dead = False
    async with asyncio.timeout(60):
        while lab.alerts["b1"] is not None:  # noqa: ASYNC110 -- it is a plain table
            await asyncio.sleep(0.01)
    await lab.event("failed")
    assert await lab.desk.words("b1", "standing", [])
    engine.trouble("it ended with -9")
    assert "it ended with -9" in lab.alerts["b2"]
    engine.trouble(None)
    assert lab.alerts == {"b1": None, "b2": None}


async def test_a_root_that_is_not_there_is_an_alert_of_the_board_that_wants_it(make_lab):
    lab = await make_lab(profile='root = "fedora"')
    for _ in range(2):
        with pytest.raises(NoSuchRootError):
            await lab.desk.words("b1", "standing", [])
    assert "fedora" in lab.alerts["b1"]
    assert lab.alerts["b2"] is None
    board, details = await lab.event("failed")
    assert (board, details["root"]) == ("b1", "fedora")
    assert lab.events.empty()


@pytest.fixture
def file_desk(make_lab, tmp_path):
    """What the netboot server answers a board, and the lab behind it."""

    async def make(**settings):
        lab = await make_lab(**settings)
        secrets = SecretKeeper(None, lambda _state: None)
        from agent import netboot_bridge

        config = netboot_bridge.config(lab.settings)
        desk = FileDesk(config, secrets, joining=lambda _address: None, on_event=lambda _event: None)
        desk.root_words = lab.desk.words
        desk.tree = BootTree({
            board.address: TreeClient(board.board, board.macs, board.address, board.profile)
            for board in netboot_bridge.boards(lab.settings)
        })  # fmt: skip
        return desk, lab

    return make


async def test_the_boot_file_waits_for_the_root_and_names_it(file_desk, engine):
    desk, lab = await file_desk()
    answer = await desk.decide(Question(1, "10.77.0.11", 2000, "pxelinux.cfg/01-52-54-00-00-00-01"))
    assert isinstance(answer, SendBytes)
    text = answer.data.decode()
    assert "console=ttyS0 rdinit=/lib/boardhand/root-init.sh boardhand.root=10.77.0.1:/boards/b1 " in text
    secret = text.split("boardhand.secret=")[1].split()[0]
    laid = (lab.store.folder / "views/b1/merged/etc/boardhand/boot").read_text().split()
    assert f"boardhand.secret={secret}" in laid
    assert list(engine.now) == ["boards/b1"]
    engine.dead = True
    engine.trouble("it is dead")
    answer = await desk.decide(Question(2, "10.77.0.12", 2000, "pxelinux.cfg/01-52-54-00-00-00-02"))
    assert isinstance(answer, SendError)
    plain = await desk.decide(Question(3, "10.77.0.13", 2000, "pxelinux.cfg/01-52-54-00-00-00-03"))
    assert b"boardhand.root" not in plain.data


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ({"profile": 'root = "debian"\nfamily = "raw"'}, "profiles.standing.root", "no command line"),
        ({"profile": 'root = "debian"\nroot_mount = "kernel"\nroot_view = "client-memory"'}, "root_view", "initramfs"),
        ({"profile": 'root = "Debian"'}, "profiles.standing.root", ""),
        ({"roots": 'engine = "kernel"\nport = 2050'}, "roots.port", "2049"),
        ({"roots": 'engine = "samba"'}, "roots.engine", "ganesha"),
        ({"roots": 'authorised_keys = ["two\\nlines of a key file"]'}, "roots.authorised_keys", ""),
        (
            {"more": '[profiles.k]\nkernel = "/etc/hostname"\nroot = "debian"\nroot_mount = "initramfs"'},
            "profiles.k.root_mount",
            "no initrd",
        ),
        (
            {"more": '[profiles.k]\nkernel = "/etc/hostname"\nroot = "debian"\ncmdline = "ro root=/dev/sda1"'},
            "profiles.k.cmdline",
            "leave them out",
        ),
        (
            {"more": f'[profiles.k]\nkernel = "/etc/hostname"\nroot = "debian"\ncmdline = "{"a" * 1200}"'},
            "profiles.k.cmdline",
            "octets",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_told(tmp_path, settings, key, words):
    with pytest.raises(SettingsError) as caught:
        load(settings_file(tmp_path, **settings))
    assert key in str(caught.value)
    assert words in str(caught.value)


def test_roots_need_netboot_and_a_store(tmp_path):
    file = settings_file(tmp_path)
    text = file.read_text()
    file.write_text(text.replace(f'[roots]\ndir = "{tmp_path}/store"', ""))
    with pytest.raises(SettingsError, match=r"no \[roots\] table"):
        load(file)
    (start, _), (_, end) = text.split("[netboot]"), text.split("[roots]")
    file.write_text(start + "[roots]" + end.replace('profile = "', '#profile = "').replace('root = "debian"', ""))
    with pytest.raises(SettingsError, match=r"no \[netboot\] table"):
        load(file)


async def test_somebody_can_say_no_to_a_reset(make_lab, tmp_path):
    lab = await make_lab()
    written = tmp_path / "store/views/b1/merged/work"
    await lab.desk.words("b1", "standing", ["boot=1"])
    written.write_text("of a night")
    assert lab.asked == [], "the first boot throws nothing away"
    await lab.desk.power_lost("b1")
    await lab.event("given")
    lab.veto = "the hook says no: not copied yet"
    for _ in range(2):
        await lab.desk.words("b1", "standing", ["boot=2"])
    assert written.read_text() == "of a night"
    assert lab.asked == [("b1", "debian")], "he is asked once a boot"
    assert (await lab.event("kept"))[1]["reason"] == lab.veto
    await lab.desk.power_lost("b1")
    with pytest.raises(RequestError, match="not copied yet") as refused:
        await lab.ask("root-reset", board="b1")
    assert refused.value.info.kind is ErrorKind.REFUSED
    lab.veto = None
    await lab.desk.words("b1", "standing", ["boot=3"])
    assert not written.exists()


async def test_a_root_that_was_chosen_with_a_kernel_is_given_as_the_standing_profile_says(make_lab, engine, tmp_path):
    lab = await make_lab(profile='root = "debian"\nroot_view = "client-memory"')
    assert await lab.desk.has("debian")
    assert not await lab.desk.has("other")
    kernel = {"url": "http://ci.example.org/Image", "sha256": "0" * 64}
    chosen = BootRequest.model_validate({"board": "b1", "kernel": kernel, "initrd": kernel, "root": "debian"})
    lab.desk.chosen = {"b1": chosen}.get
    words = await lab.desk.words("b1", "b1-chosen", [])
    assert "boardhand.root=10.77.0.1:/roots/debian" in words
    assert sorted(engine.now) == ["identity/b1", "roots/debian"]
    lab.desk.chosen = {"b1": chosen.model_copy(update={"root": None})}.get
    assert await lab.desk.words("b1", "b1-chosen", []) == ()
    assert engine.now == {}, "a boot without a root has no export"


async def test_a_board_that_runs_from_a_chosen_root_keeps_it_over_a_restart(make_lab, engine):
    lab = await make_lab(profile="")
    assert lab.desk._standing("b1") is None
    kernel = {"url": "http://ci.example.org/Image", "sha256": "0" * 64}
    chosen = BootRequest.model_validate({"board": "b1", "kernel": kernel, "root": "debian"})
    lab.desk.chosen = {"b1": chosen}.get
    plan = lab.desk._standing("b1")
    assert (plan.root, plan.address) == ("debian", lab.settings.boards["b1"].address)
