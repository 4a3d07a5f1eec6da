"""A flash that is good only when the board boots, told by a board that is up all the time."""

import json

from tests.agent.bench import result_of
from tests.agent.test_flash_mqtt import answered, ask, bench, stage
from tests.agent.test_power_and_actions_mqtt import direct

__all__ = ["bench", "direct"]


def says(bench, boot):
    bench.publish("boardhand/board/pi/self", json.dumps({"state": "online", "boot_id": boot}))


def registers(bench, heard, boot):
    bench.publish("boardhand/register", json.dumps({"mac": "52:54:00:00:00:01", "boot_id": boot}))
    assert heard.wait(lambda m: m["topic"] == "boardhand/register/52-54-00-00-00-01")["payload"]["ok"]
    says(bench, boot)


def phase(name):
    return lambda m: m["topic"] == "boardhand/board/pi/state" and m["payload"]["phase"] == name


def test_a_board_that_says_again_that_it_is_up_has_not_booted_its_new_image(direct):
    bench = direct
    bench.settings.write_text(bench.settings.read_text() + "boots = true\n")
    heard = bench.ready()
    bench.publish("boardhand/board/pi/power/set", '{"power": "on", "id": "on"}')
    heard.wait(result_of("pi", "on"))
    registers(bench, heard, "old")
    heard.wait(phase("ready"))
    ask(bench, "flash", "t1", image="good.img", method="direct")
    heard.wait(stage("write"))
    (bench.folder / "chip.hang").unlink()
    heard.wait(stage("boot"))
    says(bench, "old")
    heard.wait(phase("ready"))  # it is at its work again, and its image was never started
    # The flash goes on: it looks every half second, and tells so.
    heard.wait(stage("boot"))
    heard.wait(stage("boot"))
    assert not [m for m in heard.history if answered("flash", "t1")(m)]
    registers(bench, heard, "new")
    said = heard.wait(answered("flash", "t1"))["payload"]
    assert said["ok"], said
    assert bench.chip.read_bytes() == bench.image.read_bytes()
