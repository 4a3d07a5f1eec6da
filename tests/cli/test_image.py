"""`boardhand image`: whole commands, a whole build from an archive of our own, and what a recipe gets wrong."""

import json
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

from cli import image_recipe
from firmware_tools.image.recipe import Recipe
from tests.cli.farm_double import boardhand
from tests.firmware_tools.image_debs import archive, key, served, some

DOCS = Path(__file__).parents[2] / "docs"
RECIPE = """\
name = "toy"
arch = "arm64"
suite = "toy"
mirror = "{mirror}"
keyring = "mine.gpg"
base = ["served", "systemd"]
client = false
outputs = ["tar.gz"]

[[file]]
path = "/etc/motd"
source = "motd.txt"
"""


@pytest.fixture
def recipe(tmp_path):
    """A folder with a recipe whose packages an archive on loopback has."""
    key(tmp_path / "mine")
    (tmp_path / "debs").mkdir()
    (tmp_path / "motd.txt").write_text("hello\n")
    archive(tmp_path / "www", some(tmp_path / "debs"), key_home=tmp_path / "mine")
    with served(tmp_path / "www") as address:
        (tmp_path / "image.toml").write_text(RECIPE.format(mirror=address))
        yield tmp_path / "image.toml"


def test_a_build_as_people_and_as_programs_see_it(tmp_path, recipe):
    cache = {"BOARDHAND_CACHE": str(tmp_path / "cache")}
    done = boardhand("image", "build", str(recipe), str(tmp_path / "one"), **cache)
    assert done.returncode == 0, done.stderr
    assert re.search(r"toy: 3 packages, \d+ paths", done.stdout)
    assert f"next: sudo boardhand root import toy {tmp_path}/one/toy.tar.gz" in done.stdout
    with tarfile.open(tmp_path / "one/toy.tar.gz") as root:
        assert root.extractfile("etc/motd").read() == b"hello\n"
    again = boardhand("image", "build", str(recipe), str(tmp_path / "two"), "--json", **cache)
    said = json.loads(again.stdout.splitlines()[-1])
    assert said["ok"]
    assert said["scripts_left_to_the_board"] == ["base-files"]
    assert all("stage" in json.loads(line) for line in again.stdout.splitlines()[:-1])
    assert (tmp_path / "one/toy.tar.gz").read_bytes() == (tmp_path / "two/toy.tar.gz").read_bytes()
    early = boardhand("image", "build", str(recipe), str(tmp_path / "three"), **cache, SOURCE_DATE_EPOCH="1600000000")
    assert early.returncode == 0, early.stderr
    with tarfile.open(tmp_path / "three/toy.tar.gz") as root:
        assert {member.mtime for member in root} == {1_600_000_000}


def test_what_cannot_be_built(tmp_path, recipe):
    cache = {"BOARDHAND_CACHE": str(tmp_path / "cache")}
    text = recipe.read_text()
    recipe.write_text(text.replace("motd.txt", "none.txt"))
    done = boardhand("image", "build", str(recipe), str(tmp_path / "out"), **cache)
    assert (done.returncode, f"{recipe}:12: " in done.stderr, "none.txt cannot be read" in done.stderr) == (
        2,
        True,
        True,
    )
    recipe.write_text(text.replace('"systemd"]', '"systemd", "nothing-like-it"]'))
    done = boardhand("image", "build", str(recipe), str(tmp_path / "out"), **cache)
    assert (done.returncode, "no package nothing-like-it for arm64" in done.stderr) == (1, True)
    recipe.write_text(text.replace("mine.gpg", "none.gpg"))
    done = boardhand("image", "build", str(recipe), str(tmp_path / "out"), **cache)
    assert (done.returncode, "none.gpg is not there" in done.stderr) == (1, True)
    recipe.write_text(text)
    (tmp_path / "file").touch()
    done = boardhand("image", "build", str(recipe), str(tmp_path / "file"), **cache)
    assert (done.returncode, "write somewhere else" in done.stderr) == (1, True)
    done = boardhand("image", "build", str(recipe), str(tmp_path / "out"), **cache, SOURCE_DATE_EPOCH="soon")
    assert (done.returncode, "SOURCE_DATE_EPOCH is 'soon'" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x"\narch = "vax"\n', r":2: arch: Input should be"),
        ('name = "x"\narch = "arm64"\npakages = []\n', r":3: pakages: there is no such key"),
        ('name = "x"\narch = "arm64"\n[[file]]\npath = "/a"\n', r":3: file\.0: say either source"),
        (
            'name = "x"\narch = "arm64"\n[[file]]\npath = "/../a"\ntext = ""\n',
            r":4: file\.0\.path: .*no path in the image",
        ),
        ('name = "x"\narch = "arm64"\n[[user]]\nname = "Not Me"\n', r":4: user\.0\.name"),
        ('name = "x"\narch = "arm64"\nsize = "2T"\n', r":3: size: .*write a size"),
        ('name = "x"\narch = "arm64"\nmirror = "http://x"\n', r":1: recipe: mirror needs suite"),
        ('name = "x"\narch = "arm64"\nmirror = "ftp://x"\n', r":3: mirror"),
        ('name = "x"\narch = \n', r":2: not TOML"),
        ("", r":1: name: Field required \(and 1 more\)"),
    ],
)
def test_a_wrong_recipe_is_told_with_its_line(tmp_path, text, words):
    (tmp_path / "image.toml").write_text(text)
    done = boardhand("image", "build", str(tmp_path / "image.toml"), str(tmp_path / "out"))
    assert done.returncode == 2
    assert re.search(words, done.stderr), done.stderr
    assert not (tmp_path / "out").exists()


def test_recipes_that_are_no_text(tmp_path):
    (tmp_path / "image.toml").write_bytes(b"name = 'x'\n# \xff\n")
    for name, words in (("image.toml", ":2: is not UTF-8"), ("none.toml", "cannot be read: No such file")):
        done = boardhand("image", "build", str(tmp_path / name), str(tmp_path / "out"))
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_the_recipes_of_the_manual_are_recipes(tmp_path):
    blocks = re.findall(r"```toml image\n(.*?)```", (DOCS / "images.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 1
    shown = set()
    for block in blocks:
        (tmp_path / "image.toml").write_text(block)
        image_recipe.load(tmp_path / "image.toml")
        shown |= tomllib.loads(block).keys()
    text = (DOCS / "images.md").read_text(encoding="utf-8")
    assert [key for key in Recipe.model_fields if f"`{key}`" not in text and key not in shown] == []


def test_a_script_and_an_identity(tmp_path):
    (tmp_path / "boot.txt").write_text("echo hello\n")
    for more, kind in (((), "Script"), (("--fit",), "FIT description")):
        done = boardhand(
            "image", "script", str(tmp_path / "boot.txt"), str(tmp_path / "boot.scr"), "--arch", "armhf", *more
        )
        assert done.returncode == 0, done.stderr
        listed = subprocess.run(
            ["dumpimage", "-l", tmp_path / "boot.scr"], capture_output=True, text=True, check=True, timeout=60
        )
        assert kind in listed.stdout
    (tmp_path / "in.dts").write_text('/dts-v1/; / { aliases { ethernet0 = "/e"; }; e { }; };')
    subprocess.run(["dtc", "-q", "-o", tmp_path / "a.dtb", tmp_path / "in.dts"], check=True, timeout=60)
    tree = str(tmp_path / "a.dtb")
    done = boardhand("image", "identity", tree, tree, "--serial", "7", "--mac", "ethernet0=52:54:00:00:00:07", "--json")
    assert (done.returncode, json.loads(done.stdout)["path"]) == (0, tree), done.stderr
    got = subprocess.run(
        ["fdtget", "-t", "bx", tree, "/e", "local-mac-address"], capture_output=True, text=True, check=True, timeout=60
    )
    assert got.stdout.strip() == "52 54 0 0 0 7"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("image",), 2, "say build, script or identity"),
        (("image", "script", "{d}/none", "{d}/out"), 2, "cannot be read"),
        (("image", "script", "{d}/empty", "{d}/out"), 2, "the script is empty"),
        (("image", "script", "{d}/text", "{d}/none/out"), 1, "write somewhere else"),
        (("image", "identity", "{d}/text", "{d}/out"), 2, "nothing to set"),
        (("image", "identity", "{d}/text", "{d}/out", "--serial", "1"), 2, "shorter than the header"),
        (("image", "identity", "{d}/text", "{d}/out", "--mac", "eth"), 2, "write --mac ethernet0="),
    ],
)
def test_what_is_not_to_be_had(tmp_path, arguments, code, words):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("echo\n")
    done = boardhand(*(word.format(d=tmp_path) for word in arguments))
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "out").exists()
