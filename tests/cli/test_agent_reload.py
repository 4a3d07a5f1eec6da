"""`boardhand agent reload` against a real agent: what it prints, and how it ends."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.agent_command import AGENT
from cli.agent_reload import run
from cli.exits import CliError, Exit
from cli.target import Target
from tests.agent.bench import Bench


@pytest.fixture
def bench(tmp_path: Path, mqtt: Any) -> Iterator[Bench]:
    bench = Bench(tmp_path, mqtt)
    yield bench
    bench.close()


def reload(
    bench: Bench, name: str | None = None, *, partial: bool = False, check: bool = False, js: bool = False
) -> int:
    target = Target(bench.mqtt.url, "boardhand", "the test")
    return run(target, name, partial=partial, check=check, as_json=js)


def test_what_is_told_of_a_reload_and_how_it_ends(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CliError, match="no agent is online") as raised:
        reload(bench)
    assert raised.value.code is Exit.NO_ANSWER
    bench.ready()
    assert reload(bench) is Exit.OK
    assert "agent lab: nothing is different" in capsys.readouterr().out
    good = bench.settings.read_text()
    bench.settings.write_text(good.replace("boot_timeout_s = 120", "boot_timeout_s = 90", 1))
    assert reload(bench, "lab", check=True) is Exit.OK
    said = capsys.readouterr().out
    assert "boards.pi.boot_timeout_s changed\nagent lab: 1 change would be taken up" in said
    assert reload(bench, "lab", js=True) is Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert told["agent"] == "lab"
    assert told["boards"] == {"added": [], "removed": [], "changed": ["pi"]}
    assert told["changes"] == [{"key": "boards.pi.boot_timeout_s", "what": "changed"}]
    bench.settings.write_text(good.replace("[mqtt]\n", "[mqtt]\nkeepalive_s = 33\n"))
    with pytest.raises(CliError, match=r"mqtt\.keepalive_s.*--partial") as raised:
        reload(bench)
    assert raised.value.code is Exit.FAILED
    assert reload(bench, partial=True) is Exit.OK
    assert "mqtt.keepalive_s needs a restart" in capsys.readouterr().out
    bench.settings.write_text(good.replace("boot_timeout_s = 120", "boot_timeout_s = 'soon'", 1))
    with pytest.raises(
        CliError, match=r"agent\.toml:\d+: boards\.pi\.boot_timeout_s.*the old settings go on"
    ) as raised:
        reload(bench)
    assert raised.value.code is Exit.USAGE
    with pytest.raises(CliError, match="agent attic is not known"):
        reload(bench, "attic")


@pytest.mark.parametrize("words", [["reload", "--settings", "x"], [], ["--settings", "x", "--check"]])
def test_words_that_do_not_go_together(words: list[str]) -> None:
    page = ArgumentParser()
    AGENT.options(page)
    with pytest.raises(CliError) as raised:
        AGENT.run(page.parse_args(words))
    assert raised.value.code is Exit.USAGE
