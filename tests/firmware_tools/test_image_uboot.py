"""Scripts for U-Boot, judged by U-Boot's own tools."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_tools.image import device_tree
from firmware_tools.image.uboot_image import ARCHES, MAX_SCRIPT_BYTES, ScriptError, fit_script, legacy_script

TEXT = "# a comment\nsetenv bootargs 'console=ttyS0'\nif test -n \"${x}\"; then echo y; fi\n"


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("arch", "theirs"), [("arm64", "arm64"), ("armhf", "arm"), ("amd64", "x86_64"), ("riscv64", "riscv")]
)
def test_a_legacy_script_is_what_mkimage_makes(tmp_path, monkeypatch, arch, theirs):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    (tmp_path / "text").write_text(TEXT)
    run("mkimage", "-A", theirs, "-O", "linux", "-T", "script", "-C", "none", "-n", "boot it",
        "-d", tmp_path / "text", tmp_path / "theirs")  # fmt: skip
    ours = legacy_script(TEXT, arch=arch, name="boot it")
    assert ours == (tmp_path / "theirs").read_bytes()
    (tmp_path / "ours").write_bytes(ours)
    listed = run("dumpimage", "-l", tmp_path / "ours")
    assert "Script" in listed
    run("dumpimage", "-T", "script", "-p", "0", "-o", tmp_path / "out", tmp_path / "ours")
    assert (tmp_path / "out").read_bytes()[8:].decode() == TEXT  # behind the list of sizes


@pytest.mark.parametrize("arch", ARCHES)
def test_a_fit_script_is_taken_by_dumpimage(tmp_path, arch):
    (tmp_path / "fit").write_bytes(fit_script(TEXT, arch=arch, name="boot it"))
    listed = run("dumpimage", "-l", tmp_path / "fit")
    for words in ("Script", "Hash algo:    sha256", "FIT description: boot it", "Default Configuration: 'conf-1'"):
        assert words in listed, listed
    run("dumpimage", "-T", "flat_dt", "-p", "0", "-o", tmp_path / "out", tmp_path / "fit")
    assert (tmp_path / "out").read_text() == TEXT
    assert run("fdtget", "-t", "s", tmp_path / "fit", "/images", "default").strip() == "script-1"
    assert run("fdtget", "-t", "s", tmp_path / "fit", "/configurations/conf-1", "script").strip() == "script-1"


def test_lines_end_as_uboot_wants_them():
    assert legacy_script("a\r\nb", arch="arm64") == legacy_script("a\nb\n", arch="arm64")


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), (" \n", "empty"), ("a\nb\0c", "line 2: NUL"), ("a\rb", "line 1: a lone CR"),
     ("x" * MAX_SCRIPT_BYTES, "at most")],
)  # fmt: skip
def test_what_cannot_be_a_script(text, words):
    for make in (legacy_script, fit_script):
        with pytest.raises(ScriptError, match=words):
            make(text, arch="arm64")


def test_an_architecture_that_nobody_knows():
    with pytest.raises(ScriptError, match="known: arm64"):
        fit_script(TEXT, arch="vax")


@given(
    st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    st.text(max_size=50),
)
def test_any_text_and_any_name(text, name):
    image = legacy_script(text, arch="arm64", name=name)
    assert text.encode() in image
    try:
        fit = fit_script(text, arch="arm64", name="n")
    except ScriptError:
        return
    script = device_tree.read(fit).root.children[0].children[0]
    assert script.properties["data"].rstrip(b"\n") == text.encode().rstrip(b"\n")
