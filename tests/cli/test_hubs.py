"""`boardhand hubs` and `boardhand hubs prove` on virtual hubs."""

import errno
import io
import json
import os
import re
import signal
from pathlib import Path

import pytest

from cli.command_line import run
from cli.exits import CliError, Exit
from cli.hub_proof import Patience, Trial, _note_returned, prove
from cli.hubs import Bench, show
from cli.main import main
from tests.cli.farm_double import boardhand
from udev.usb_hub_truth import Switching, Truth
from udev.usb_hubs import plugged_in
from virtual_lab.usb_hub_tree import Behaviour, UsbHubTree, VirtualDevice

PLACE = "pci-0000:00:14.0-usb-0:1"
QUICK = Patience(off_s=0.1, back_s=5)


@pytest.fixture
def tree(tmp_path: Path) -> UsbHubTree:
    return UsbHubTree(tmp_path / "sys")


@pytest.fixture
def bench(tree: UsbHubTree) -> Bench:
    return Bench(tree.root, tree, tree, tree.root.parent / "state" / "proofs.json")


def hub(tree: UsbHubTree, behaviour: Behaviour = Behaviour.PER_PORT, says: Switching | None = None):
    made = tree.hub(tree.root_hub(), 1, serial="HUBSER1", behaviour=behaviour, says=says)
    tree.plug(made, 1, VirtualDevice(serial="BRD0001", ttys=1))
    tree.plug(made, 2, VirtualDevice(serial="BRD0002", ttys=1))
    return made


def listed(bench: Bench, capsys: pytest.CaptureFixture[str]):
    assert show(bench, as_json=True) == Exit.OK
    return {found["id"]: found for found in json.loads(capsys.readouterr().out)["hubs"]}


def proof(bench: Bench, capsys: pytest.CaptureFixture[str], words: str = f"{PLACE}:1", **options):
    code = prove(words, bench, **({"yes": True, "force": False, "as_json": True, "patience": QUICK} | options))
    return code, json.loads(capsys.readouterr().out)


# --- the list ---------------------------------------------------------------------------------------------------


def test_the_tree_for_people(tree, bench, capsys):
    usb2, usb3 = tree.root_hub(), tree.root_hub(usb3=True)
    tree.peers(usb2, usb3)
    one, other = tree.hub(usb2, 1, serial="S\x1b[31m"), tree.hub(usb3, 1)
    tree.peers(one, other)
    tree.plug(one, 2, VirtualDevice(serial="BRD0001", ttys=1))
    tree.plug(other, 3, VirtualDevice("0bda", "8153", label="LAN"))
    tree.hub(one, 4)
    tree.hub(usb2, 2, behaviour=Behaviour.NONE)
    assert show(bench, as_json=False) == Exit.OK
    text = capsys.readouterr().out
    assert text.count("USB 3 half 2-1 by peer") == 1
    assert "usbv3-0:1 " not in text, "the halves are shown together"
    assert re.search(r"^ {5}2  on +claimed +0403:6001 FT232R USB UART BRD0001 ttyUSB0$", text, re.MULTILINE)
    assert re.search(r"^ {5}3  on +claimed +0bda:8153 LAN$", text, re.MULTILINE)
    assert re.search(r"^ {5}4  on +chained +hub 1-1\.4", text, re.MULTILINE)
    assert re.search(r"^ {4}pci-0000:00:14.0-usb-0:1\.4  ", text, re.MULTILINE), "indented below its hub"
    assert "\x1b" not in text
    for word in ("claimed", "none", "chained", "root-hub"):
        assert f"{word:<8}  {Truth(word).meaning}" in text
    assert Truth.LIES.meaning not in text


def test_the_list_as_json(tree, bench, capsys):
    made = hub(tree)
    tree.write(made.ports[3].disable, "1")
    found = listed(bench, capsys)[PLACE]
    assert (found["name"], found["serial"], found["root"], found["other_half"]) == ("1-1", "HUBSER1", False, None)
    first, third = found["ports"][0], found["ports"][2]
    assert (first["id"], first["power"], first["truth"], first["source"]) == (
        f"{PLACE}:1",
        "on",
        "claimed",
        "descriptor",
    )
    assert first["children"][0]["ttys"] == ["ttyUSB0"]
    assert (third["power"], third["children"]) == ("off", [])


def test_hubs_that_may_not_be_asked_are_unknown_and_advice_is_given(tree, bench, capsys):
    hub(tree)
    tree.readable = False
    assert {port["truth"] for port in listed(bench, capsys)[PLACE]["ports"]} == {"unknown"}
    show(bench, as_json=False)
    assert "'boardhand udev hubs'" in capsys.readouterr().out


def test_an_old_kernel_whose_hubs_may_not_be_asked(tmp_path, capsys):
    tree = UsbHubTree(tmp_path / "sys", kernel_switches=False)
    hub(tree)
    tree.readable = False
    bench = Bench(tree.root, tree, tree, tmp_path / "proofs.json")
    assert {port["power"] for port in listed(bench, capsys)[PLACE]["ports"]} == {"unknown"}
    show(bench, as_json=False)
    assert "power is unknown where it could not be read: /dev/bus/usb/001/" in capsys.readouterr().out


def test_the_command_on_a_folder(tree):
    hub(tree)
    done = boardhand("hubs", "--sysfs", str(tree.root), "--json")
    assert done.returncode == 0, done.stderr
    assert PLACE in {found["id"] for found in json.loads(done.stdout)["hubs"]}
    assert PLACE in boardhand("hubs", "--sysfs", str(tree.root)).stdout


def test_no_hubs_and_no_sysfs(tmp_path, capsys):
    tree = UsbHubTree(tmp_path / "sys")
    assert main(["hubs", "--sysfs", str(tree.root)]) == 0
    assert "no USB hubs in" in capsys.readouterr().out
    assert main(["hubs", "--sysfs", str(tmp_path / "none")]) == Exit.USAGE


# --- the trial --------------------------------------------------------------------------------------------------


def test_a_port_that_switches(tree, bench, capsys):
    made = hub(tree)
    code, said = proof(bench, capsys)
    assert (code, said["verdict"], said["ok"], said["known_before"]) == (0, "switches", True, "claimed")
    assert [item["name"] for item in said["vanished"]] == ["1-1.1", "ttyUSB0"]
    assert [item["name"] for item in said["returned"]] == ["1-1.1", "ttyUSB0"]
    assert (said["said_off"], said["said_on"], said["stayed"], said["missing"]) == ("off", "on", [], [])
    assert made.ports[1].edges == [False, True]
    ports = listed(bench, capsys)[PLACE]["ports"]
    assert [(port["truth"], port["source"]) for port in ports[:2]] == [("per-port", "proof"), ("claimed", "descriptor")]


def test_the_report_for_people_says_what_no_host_can_see(tree, bench, capsys):
    hub(tree)
    assert proof_text(bench, capsys, "HUBSER1:1").endswith("look once whether the board's light went out\n")
    assert "1-1.1 came back after" in proof_text(bench, capsys, "1-1:1")


def proof_text(bench, capsys, words):
    prove(words, bench, yes=True, force=False, as_json=False, patience=QUICK)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [(Behaviour.NONE, "the command was accepted, and the hub says that the port is on"),
     (Behaviour.STAYS, "the hub says off, and 1-1.1 stays connected")],
)  # fmt: skip
def test_a_port_that_lies(tree, bench, capsys, behaviour, why):
    hub(tree, behaviour, Switching.PER_PORT)
    code, said = proof(bench, capsys)
    assert (code, said["verdict"], said["why"], said["ok"]) == (Exit.FAILED, "lies", why, False)
    assert listed(bench, capsys)[PLACE]["ports"][0]["truth"] == "lies"


@pytest.mark.parametrize(
    ("behaviour", "verdict"),
    [(Behaviour.PER_PORT, "switches"), (Behaviour.NONE, "lies"), (Behaviour.TOGETHER, "ganged")],
)
@pytest.mark.parametrize("claimable", [True, False])
def test_a_trial_past_an_old_kernel(tmp_path, capsys, behaviour, verdict, claimable):
    tree = UsbHubTree(tmp_path / "sys", kernel_switches=False)
    tree.claimable = claimable
    hub(tree, behaviour, Switching.PER_PORT)
    bench = Bench(tree.root, tree, tree, tmp_path / "proofs.json")
    code, said = proof(bench, capsys, patience=Patience(0.1, 0.3))
    assert (said["verdict"], code) == (verdict, Exit.OK if verdict == "switches" else Exit.FAILED), said
    assert said["missing"] == []
    own = ["1-1.1", "ttyUSB0"] if claimable else ["ttyUSB0"]
    vanished = {"switches": own, "lies": [], "ganged": [*own, "1-1.2"]}
    assert [item["name"] for item in said["vanished"]] == vanished[verdict]


def test_what_is_known_of_how_a_port_is_built_stands_above_what_a_host_sees(tree, bench, capsys):
    root = tree.root_hub("platform/dummy_hcd.0", ports=1, driver="dummy_hcd")
    tree.plug(root, 1, VirtualDevice(ttys=1))
    code, said = proof(bench, capsys, "usb1:1")
    assert (code, said["verdict"], said["said_off"], said["stayed"]) == (Exit.FAILED, "lies", "off", [])
    assert "dummy_hcd" in said["why"]
    assert bench.proved() == {}


def test_a_raspberry_pi_4_is_ganged_whatever_is_seen(tmp_path, capsys):
    tree = UsbHubTree(tmp_path / "sys", machine="Raspberry Pi 4 Model B Rev 1.4")
    via = tree.hub(tree.root_hub(ports=1), 1, vendor="2109", product="3431")
    tree.root_hub(usb3=True)
    tree.plug(via, 1, VirtualDevice())
    code, said = proof(Bench(tree.root, tree, tree, tmp_path / "proofs.json"), capsys)
    assert (code, said["verdict"], said["known_before"]) == (Exit.FAILED, "ganged", "pi4-together")


def test_a_port_that_takes_its_neighbours_along(tree, bench, capsys):
    hub(tree, Behaviour.TOGETHER, Switching.PER_PORT)
    code, said = proof(bench, capsys)
    assert (code, said["verdict"]) == (Exit.FAILED, "ganged")
    assert "1-1.2" in said["why"] and said["missing"] == []
    assert listed(bench, capsys)[PLACE]["ports"][0]["truth"] == "ganged"


def test_an_empty_port_proves_nothing(tree, bench, capsys):
    hub(tree)
    code, said = proof(bench, capsys, f"{PLACE}:3")
    assert (code, said["verdict"]) == (Exit.FAILED, "unproved")
    assert listed(bench, capsys)[PLACE]["ports"][2]["truth"] == "claimed"


def test_what_does_not_come_back_is_said(tree, bench, capsys):
    made = hub(tree)

    def pull(_path):
        if not made.ports[1].powered:
            made.ports[1].device = None

    tree.before_write = pull
    code, said = proof(bench, capsys, patience=Patience(0.1, 0.2))
    assert (code, said["missing"]) == (0, ["1-1.1", "ttyUSB0"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("1-1", Exit.USAGE, "is not HUB:PORT"),
        (f"{PLACE}:9", Exit.USAGE, "has no port 9; it has 1, 2, 3, 4"),
        ("NOSUCH:1", Exit.USAGE, "no USB hub with the serial number 'NOSUCH'"),
        ("usb1:1", Exit.NOT_ALLOWED, "add --force if you are sure"),
        ("1-1:4", Exit.NOT_ALLOWED, "never switch it: it feeds the second hub chip"),
    ],
)
def test_ports_that_are_not_tried(tree, bench, words, code, said):
    tree.hub(hub(tree), 4)
    with pytest.raises(CliError, match=said) as caught:
        prove(words, bench, yes=True, force=False, as_json=False, patience=QUICK)
    assert caught.value.code == code


def test_force_tries_a_root_hub(tree, bench, capsys):
    hub(tree)
    code, said = proof(bench, capsys, "usb1:1", force=True)
    assert (code, said["verdict"]) == (0, "switches")
    assert "ttyUSB1" in {item["name"] for item in said["returned"]}


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EACCES, Exit.NOT_ALLOWED), (errno.ENODEV, Exit.NO_ANSWER), (errno.EROFS, Exit.USAGE)]
)
def test_faults_end_in_one_line(tree, bench, number, code):
    hub(tree)
    tree.faults = [number] * 3
    with pytest.raises(CliError) as caught:
        prove(f"{PLACE}:1", bench, yes=True, force=False, as_json=False, patience=QUICK)
    assert caught.value.code == code and caught.value.advice


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_power_is_back_after_an_interruption(tree, bench, number):
    made = hub(tree)
    seen = []

    def interrupt(path):
        seen.append(made.ports[1].powered)
        if len(seen) == 1:
            signal.setitimer(signal.ITIMER_REAL, 0.2)

    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))
    tree.before_write = interrupt
    try:
        with pytest.raises(KeyboardInterrupt):
            prove(f"{PLACE}:1", bench, yes=True, force=False, as_json=False, patience=Patience(20, 20))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [True, False] and made.ports[1].powered
    assert "1-1.1" in plugged_in(tree.root)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "switched"), [("y\n", True), ("\n", False), ("n\n", False), ("", False)])
def test_a_person_is_asked(tree, bench, capsys, monkeypatch, answer, switched):
    made = hub(tree)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if switched:
        assert proof(bench, capsys, yes=False)[0] == 0
    else:
        with pytest.raises(CliError, match="nothing was switched") as caught:
            prove(f"{PLACE}:1", bench, yes=False, force=False, as_json=True, patience=QUICK)
        assert caught.value.code == Exit.NOT_ALLOWED
        assert "without power for a moment: 0403:6001 FT232R USB UART BRD0001 ttyUSB0" in capsys.readouterr().err
    assert made.ports[1].edges == ([False, True] if switched else [])


def test_nobody_to_ask_needs_yes(tree, bench, monkeypatch):
    hub(tree)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(CliError, match="add --yes") as caught:
        prove(f"{PLACE}:1", bench, yes=False, force=False, as_json=True, patience=QUICK)
    assert caught.value.code == Exit.USAGE


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": "magic"}'])
def test_damaged_proofs_prove_nothing(tree, bench, capsys, text):
    hub(tree)
    bench.proofs.parent.mkdir()
    bench.proofs.write_text(text)
    assert {port["truth"] for port in listed(bench, capsys)[PLACE]["ports"]} == {"claimed"}
    assert proof(bench, capsys)[0] == 0
    assert listed(bench, capsys)[PLACE]["ports"][0]["truth"] == "per-port"


def test_proofs_that_cannot_be_kept_are_no_failure(tree, bench, capsys):
    hub(tree)
    bench.proofs.parent.write_text("a file where a folder belongs")
    assert prove(f"{PLACE}:1", bench, yes=True, force=False, as_json=True, patience=QUICK) == 0
    assert "the proof is not kept" in capsys.readouterr().err


def test_proofs_are_kept_in_the_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    Bench().keep_proof("x:1 a:b", Truth.LIES)
    assert Bench().proved() == {"x:1 a:b": Truth.LIES}
    assert (tmp_path / "boardhand/hub-proofs.json").exists()


@pytest.mark.parametrize("line", [["hubs", "prove"], ["hubs", "fly"], ["udev", "rules"], ["udev", "hubs", "x=y"]])
def test_wrong_lines(line):
    with pytest.raises(CliError) as caught:
        run(line)
    assert caught.value.code == Exit.USAGE


def test_rules_for_hubs(capsys):
    assert main(["udev", "hubs"]) == 0
    text = capsys.readouterr().out
    assert "chgrp dialout $sys$devpath/*-port*/disable" in text
    assert main(["udev", "hubs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rules": text}


def test_a_tty_that_somebody_holds_open_comes_back_under_another_number() -> None:
    below = {"5-1": (5, ("ttyACM0",))}
    trial = Trial(view=None, port=None, known=None, below=below, others={})  # type: ignore[arg-type]
    trial.vanished = {"5-1": 0.1, "ttyACM0": 0.1}
    assert not _note_returned(trial, {"5-1": (6, ())}, 0.4)
    assert _note_returned(trial, {"5-1": (6, ("ttyACM1",))}, 0.5)
    assert trial.returned == {"5-1": 0.4, "ttyACM0": 0.5}
