"""`boardhand token`: what it writes is what the broker reads, and nothing secret stays in the file."""

import json
import stat
import subprocess
import sys

import pytest

from broker.web.access import Role, digest, read_tokens


def token(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cli", "token", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new" / "tokens.toml"


def test_a_token_is_printed_once_and_only_its_digest_is_kept(file):
    made = token("add", "alice", "--role", "operator", "--file", str(file))
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (person,) = read_tokens(file.read_text()).values()
    assert (person.name, person.role) == ("alice", Role.OPERATOR)
    assert digest(secret) in read_tokens(file.read_text())
    again = token("add", "alice", "--file", str(file))
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "remove it first" in again.stderr
    other = json.loads(token("add", "bob", "--file", str(file), "--json").stdout)
    assert (other["name"], other["role"]) == ("bob", "user")
    listed = json.loads(token("list", "--file", str(file), "--json").stdout)
    assert listed == {"tokens": [{"name": "alice", "role": "operator"}, {"name": "bob", "role": "user"}]}
    assert token("remove", "alice", "--file", str(file)).returncode == 0
    assert [person.name for person in read_tokens(file.read_text()).values()] == ["bob"]
    assert token("remove", "alice", "--file", str(file)).returncode == 4


def test_mode_and_owner_of_the_file_stay(file):
    token("add", "alice", "--file", str(file))
    file.chmod(0o640)
    token("add", "bob", "--file", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[alice", "no TOML"),
        ('[alice]\nrole = "king"\nsha256 = "0"\n', "'king' is none; known are reader"),
        ('[alice]\nrole = "user"\nsha256 = "abc"\n', "64 hexadecimal digits"),
        ('alice = "user"\n', "a table with role and sha256"),
        ('[Alice]\nrole = "user"\n', "a name is made of a-z"),
        (f'[a]\nrole = "user"\nsha256 = "{"0" * 64}"\n[b]\nrole = "user"\nsha256 = "{"0" * 64}"\n', "the same token"),
    ],
)
def test_a_broken_file_is_told_and_left_alone(file, text, words):
    file.parent.mkdir()
    file.write_text(text)
    for arguments in (("add", "carol"), ("remove", "alice"), ("list",)):
        done = token(*arguments, "--file", str(file))
        assert done.returncode == 2
        assert words in done.stderr
    assert file.read_text() == text


@pytest.mark.parametrize("arguments", [("add",), ("add", "Not A Name"), ("list", "--file", "/nowhere/tokens")])
def test_wrong_use_is_told(arguments):
    done = token(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
