"""The parts of client.sh that are codecs, run by busybox: JSON in, JSON out, HMAC."""

import hashlib
import hmac
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CLIENT = Path(__file__).resolve().parents[2] / "board/client.sh"
BUSYBOX = shutil.which("busybox")


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs client.sh with nothing but busybox on PATH; None when it says that the input is wrong."""
    tools = tmp_path_factory.mktemp("busybox-only")
    subprocess.run([BUSYBOX, "--install", "-s", tools], check=True)

    def run(data: bytes, *arguments: str) -> bytes | None:
        command = [tools / "sh", CLIENT, *arguments]
        env = {"PATH": str(tools)}
        done = subprocess.run(command, input=data, capture_output=True, env=env, timeout=60, check=False)
        assert not done.stderr, done.stderr
        return None if done.returncode else done.stdout

    return run


def flat(value, path=""):
    """What `json-parse` prints."""
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in flat(item, f"{path}/{key}")]
    if isinstance(value, list):
        return [line for number, item in enumerate(value) for line in flat(item, f"{path}/{number}")]
    if isinstance(value, str):
        return [f"{path} s {value.encode('utf-8').hex()}"]
    if isinstance(value, bool) or value is None:
        return [f"{path} {'z' if value is None else 't' if value else 'f'} "]
    return [f"{path} n {json.dumps(value)}"]


keys = st.text(st.characters(min_codepoint=48, max_codepoint=0x3FF, exclude_characters="/\x7f"), max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@settings(max_examples=150, deadline=None)
@given(value=values, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_json_parse_agrees_with_python(shell, value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    out = shell(text, "json-parse", "dump")
    assert out is not None and out.decode().split("\n")[:-1] == flat(value)


def float_only(name):
    """NaN and Infinity are Python's own addition to JSON."""
    raise ValueError(name)


SURELY_WRONG = [
    b"", b" ", b"{", b"}", b"[1,]", b"[,1]", b'{"a"}', b'{"a":}', b'{"a":1,}', b"{a:1}", b'"abc', b'"\\x"', b'"\\u12"',
    b'"a\nb"', b"01", b"1.", b".5", b"+1", b"1e", b"--1", b"tru", b"nulll", b"1 2", b"[1}", b"\x00", b'"\x00"', b"NaN",
    b"\xef\xbb\xbf1", b"[" * 100 + b"]" * 100, b"'a'",
]  # fmt: skip


@pytest.mark.parametrize("text", SURELY_WRONG)
def test_json_parse_refuses(shell, text):
    assert shell(text, "json-parse", "dump") is None


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_json_parse_takes_what_python_takes(shell, data):
    """A valid text with one byte changed: both take it, or both refuse it."""
    text = bytearray(json.dumps(data.draw(values)).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(32, 126))
    try:
        json.loads(text.decode(), parse_constant=float_only)
    except ValueError:
        assert shell(bytes(text), "json-parse", "dump") is None
    else:
        assert shell(bytes(text), "json-parse", "dump") is not None


def test_json_parse_surrogates(shell):
    assert shell(rb'"\ud83d\ude00"', "json-parse", "dump") == b" s f09f9880\n"
    assert shell(rb'"\ud83dx\ude00\ud83d\ud83d\ude00"', "json-parse", "dump") == (b" s efbfbd78efbfbdefbfbdf09f9880\n")


@settings(max_examples=100, deadline=None)
@given(texts.filter(lambda text: "\0" not in text), texts)
def test_fields_survive_the_shell(shell, run, name):
    """What goes through `eval` comes out as it was: nothing in an offer can become a command."""
    offer = {"kind": "offer", "job": "j", "token": 5, "steps": [{"name": name, "run": run, "timeout_s": 2.5}]}
    code = shell(json.dumps(offer).encode(), "json-parse", "fields")
    assert code is not None
    printer = b'\nprintf \'%s\\0\' "$m_run_0" "$m_name_0" "$m_steps" "$m_timeout_0" "$m_limit_0"'
    out = subprocess.run([BUSYBOX, "sh"], input=code + printer, capture_output=True, check=True, timeout=60).stdout
    got = out.split(b"\0")
    assert got[0].decode() == run
    assert json.loads(b'"' + got[1] + b'"') == name  # kept as it stood in the JSON
    assert got[2:5] == [b"1", b"250", b"2.5"]


def test_a_nul_in_a_command_is_not_taken(shell):
    offer = {"kind": "offer", "job": "j", "token": 5, "steps": [{"name": "a", "run": "echo \0"}]}
    assert b"m_steps=0" in shell(json.dumps(offer).encode(), "json-parse", "fields")


names = st.from_regex(r"T_[A-Za-z0-9_]{0,8}", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, texts, max_size=4))
def test_the_environment_survives_the_shell(shell, env):
    code = shell(json.dumps({"env": env}).encode(), "json-parse", "env")
    assert code is not None
    command = code + b"\nexec cat /proc/self/environ"
    out = subprocess.run([BUSYBOX, "sh"], input=command, capture_output=True, check=True, timeout=60)
    got = dict(item.partition(b"=")[::2] for item in out.stdout.split(b"\0") if item.startswith(b"T_"))
    assert {k.decode(): v.decode() for k, v in got.items()} == {k: v for k, v in env.items() if "\0" not in v}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | texts.map(str.encode))
def test_json_escape_agrees_with_pythons_replacement(shell, raw):
    out = shell(raw, "json-escape")
    assert json.loads(b'"' + out + b'"') == raw.decode("utf-8", "replace")


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32).map(bytes.hex), st.binary(max_size=200))
def test_hmac_agrees_with_python(shell, key, message):
    assert shell(message, "hmac", key).decode().strip() == hmac.new(key.encode(), message, hashlib.sha256).hexdigest()
