from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from daemon.mqtt_settings import MqttSettings
from daemon.settings_file import FileSettings, SettingsError, load_settings, locate_keys


class Cable(BaseModel):
    model_config = ConfigDict(extra="forbid")
    driver: Literal["cable"]
    device: str


class Pdu(BaseModel):
    model_config = ConfigDict(extra="forbid")
    driver: Literal["pdu"]
    host: str
    port: int = 161


class Settings(FileSettings):
    mqtt: MqttSettings = MqttSettings()
    controllers: dict[str, Annotated[Cable | Pdu, Field(discriminator="driver")]] = Field(default={})


GOOD = """\
# a comment
[mqtt]
url = "mqtt://127.0.0.1:1883"   # here

[controllers.rack]
driver = "pdu"
host = "10.0.0.2"

[controllers."odd.name"]
driver = "cable"
device = "/dev/x"

[broker]
idle_s = 5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "farm.toml"
    path.write_text(text)
    return path


def fault(folder: Path, text: str, **options: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(Settings, write(folder, text), ignore_tables=("broker",), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


def test_a_good_file(tmp_path: Path) -> None:
    settings = load_settings(Settings, write(tmp_path, GOOD), ignore_tables=("broker",))
    assert settings.mqtt.port == 1883
    assert isinstance(settings.controllers["rack"], Pdu)
    assert isinstance(settings.controllers["odd.name"], Cable)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('host = "10.0.0.2"', "host = 7", "farm.toml:7: controllers.rack.host: Input should be a valid string"),
        ('host = "10.0.0.2"', 'hots = "10.0.0.2"', "farm.toml:7: controllers.rack.hots: there is no such key"),
        ('host = "10.0.0.2"', "", "farm.toml:5: controllers.rack.host: Field required"),
        ('driver = "pdu"', 'driver = "pud"', "farm.toml:5: controllers.rack: Input tag 'pud'"),
        ('"mqtt://127.0.0.1:1883"', '"http://x"', "farm.toml:3: mqtt.url: 'http://x' is not mqtt://HOST"),
        ("[mqtt]", "[mqqt]", "farm.toml:2: mqqt: there is no such key"),
        ("[mqtt]", "[mqtt", "farm.toml:2: not TOML"),
        ('host = "10.0.0.2"', 'host = "a"\nport = "many"', "farm.toml:8: controllers.rack.port: Input should be"),
        ("[mqtt]", '[mqtt]\npassword_file = "/nowhere"', "farm.toml:2: mqtt: password_file without username"),
    ],
)
def test_the_line_and_key_at_fault_are_named(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert fault(tmp_path, GOOD.replace(old, new, 1)).startswith(expected)


def test_a_missing_file_and_a_binary_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file"):
        load_settings(Settings, tmp_path / "none.toml")
    path = tmp_path / "farm.toml"
    path.write_bytes(b"[mqtt]\n\xff\xfe")
    with pytest.raises(SettingsError, match=r"farm\.toml:2: is not UTF-8"):
        load_settings(Settings, path)


def test_contradictions_name_their_line(tmp_path: Path) -> None:
    def contradictions(_settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
        yield ("controllers", "odd.name", "device"), "is wrong together with something else"

    message = fault(tmp_path, GOOD, contradictions=contradictions)
    assert message == "farm.toml:11: controllers.odd.name.device: is wrong together with something else"


def test_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOARDHAND__MQTT__URL", "mqtt://10.9.9.9:2000")
    monkeypatch.setenv("BOARDHAND_MQTT", "mqtt://is-for-the-command-line")
    settings = load_settings(Settings, write(tmp_path, GOOD), ignore_tables=("broker",))
    assert (settings.mqtt.host, settings.mqtt.port) == ("10.9.9.9", 2000)
    monkeypatch.setenv("BOARDHAND__MQTT__URL", "junk")
    assert fault(tmp_path, GOOD).startswith("environment: mqtt.url:")


def test_a_typo_in_the_environment_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOARDHAND__MQQT__URL", "mqtt://x")
    assert fault(tmp_path, GOOD).startswith("environment: BOARDHAND__MQQT__URL: there is no table [mqqt]; known are")


@given(st.text(max_size=300))
def test_locating_keys_never_fails(text: str) -> None:
    lines = locate_keys(text)
    assert all(1 <= number <= len(text.splitlines()) for number in lines.values())


def test_arrays_of_tables_and_dotted_keys() -> None:
    lines = locate_keys("a.b = 1\n[[x]]\nk = 1\n[[x]]\nk = 2\n['q'.r]\n s = 3\n")
    assert lines["a", "b"] == 1
    assert lines["x", "0", "k"] == 3
    assert lines["x", "1", "k"] == 5
    assert lines["q", "r", "s"] == 7
