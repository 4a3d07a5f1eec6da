"""What `boardhand learn` prints and writes."""

import tomllib

from cli.learn_text import board_name, stanzas, table

ROW = {
    "feed": ["rack-pdu:3"], "consoles": ["/dev/ttyUSB0"], "macs": ["02:00:00:00:00:01"], "usb": [], "links": [],
    "boot_s": 12.3, "idle_w": 2.5, "busy_w": 4.0, "confidence": 0.9997, "evidence": "mac … came 3 of 3 times",
}  # fmt: skip
DOUBLE = {**ROW, "feed": ["a:1", "b:1"], "consoles": [], "macs": [], "boot_s": None, "idle_w": None, "busy_w": None}


def test_the_table_names_what_is_known_and_why_the_rest_is_not():
    found = {
        "rows": [ROW, DOUBLE],
        "unknown": [{"outlet": "rack-pdu:4", "because": "nothing was heard in 240 s"}],
        "strangers": [{"kind": "mac", "name": "02:0\x1b[2J", "because": "it talks while every outlet is off"}],
        "stopped": "somebody stopped it",
    }
    text = "\n".join(table(found))
    assert "rack-pdu:3" in text and "99.97 %" in text and "12.3 s" in text and "a:1 + b:1" in text
    assert "rack-pdu:4: unknown, because nothing was heard in 240 s" in text
    assert "stopped before its end: somebody stopped it" in text
    assert "\x1b" not in text


def test_nothing_found_is_said():
    assert table({"rows": []}) == ["no board was found beyond doubt"]


def test_stanzas_are_settings_and_take_no_name_twice():
    before = "[boards.board-rack-pdu-3]\nfeed = ['x:1']\n"
    settings = tomllib.loads(before + stanzas([ROW, DOUBLE], before))
    board = settings["boards"]["board-rack-pdu-3-2"]
    assert board == {
        "feed": ["rack-pdu:3"], "macs": ["02:00:00:00:00:01"], "console": "/dev/ttyUSB0",
        "watts_idle": 2.5, "watts_busy": 4.0,
    }  # fmt: skip
    assert settings["boards"]["board-a-1"] == {"feed": ["a:1", "b:1"], "feed_is": "parallel"}


def test_names_are_ids():
    assert board_name(["Rack_PDU:A/7"], []) == "board-rack-pdu-a-7"
