"""Templates: what is wrong with one is told with its file and line, and nothing but the fields changes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.boot_templates import FIELDS, MAX_TEMPLATE_BYTES, SECRET_FIELDS, TemplateError, lacking, load, parse

HERE = Path("/srv/boot.ipxe")
VALUES = {name: f"<{name}>" for name in FIELDS}


def test_only_fields_are_replaced():
    text = "#!ipxe\nset a ${net0/mac} $x user@host @@{board} @{board}@{mac}\n"
    made = parse("boot.ipxe", HERE, text)
    assert made.render(VALUES) == "#!ipxe\nset a ${net0/mac} $x user@host @{board} <board><mac>\n"
    assert made.fields == (("board", 2), ("mac", 2))
    assert not made.carries_secret


@pytest.mark.parametrize("name", sorted(SECRET_FIELDS))
def test_a_secret_is_known_by_its_field(name):
    assert parse("x", HERE, f"a\n@{{{name}}}").carries_secret


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\nb @{sekret}", r"boot\.ipxe:2: unknown field @\{sekret\}; known are: agent, "),
        ("\n\n@{}", r"boot\.ipxe:3: '@\{' begins no field"),
        ("@{board", r"boot\.ipxe:1: '@\{' begins no field"),
        ("@{Board}", r"boot\.ipxe:1: '@\{' begins no field"),
        ("a\n@{board }", r"boot\.ipxe:2: '@\{' begins no field"),
        ("a\n\0", r"boot\.ipxe:2: a NUL"),
    ],
)
def test_faults_name_file_and_line(text, words):
    with pytest.raises(TemplateError, match=words):
        parse("boot.ipxe", HERE, text)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 65])
def test_names_are_file_names(name):
    with pytest.raises(TemplateError, match="file's name"):
        parse(name, HERE, "")


def test_files(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"one\r\ntwo \xc3\xa4\n@{board}")
    assert load("x", path).render(VALUES) == "one\r\ntwo ä\n<board>"
    path.write_bytes(b"one\n\xff")
    with pytest.raises(TemplateError, match=r"t:2: not UTF-8"):
        load("x", path)
    path.write_bytes(b"x" * (MAX_TEMPLATE_BYTES + 1))
    with pytest.raises(TemplateError, match="larger"):
        load("x", path)
    with pytest.raises(FileNotFoundError):
        load("x", tmp_path / "none")


def test_what_a_board_lacks():
    made = parse("x", HERE, "@{mac}\n@{serial} @{uuid}")
    assert lacking(made, serial="12345678", uuid="u") is None
    assert lacking(made, serial=None, uuid="u") == "/srv/boot.ipxe:2: @{serial}: the board has no serial"
    assert lacking(made, serial="1", uuid=None) == "/srv/boot.ipxe:2: @{uuid}: the board has no uuid"


pieces = st.one_of(st.text(max_size=8), st.sampled_from(["@", "{", "}", "@@{", "@{board}", "@{secret}", "$", "@@"]))


@given(st.lists(pieces, max_size=12).map("".join))
def test_any_text_is_taken_or_refused(text):
    try:
        made = parse("x", HERE, text)
    except TemplateError:
        assert "@{" in text or "\0" in text
        return
    filled = made.render(VALUES)
    assert ("<secret>" in filled) is (made.carries_secret or "<secret>" in text)
    assert made.render(VALUES) == filled


@given(st.text(st.characters(exclude_characters="@\0"), max_size=100))
def test_text_without_fields_stays(text):
    assert parse("x", HERE, text).render({}) == text
