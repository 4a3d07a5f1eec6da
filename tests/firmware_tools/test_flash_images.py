"""Images are looked at before anything is touched: whole, of the right kind, and of this board."""

import gzip
import hashlib
import struct
import subprocess
import threading
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_tools.flash import block_map, formats, image_check, read_back
from firmware_tools.flash.errors import ImageDiskError, ImageError, NotVerifiedError
from firmware_tools.flash.image_check import Format, Wanted

BOARD = Wanted("imx-1")
SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def suffixed(data, vendor=0x1209, product=0xDB42, length=16):
    """As dfu-suffix makes it."""
    whole = data + struct.pack("<HHHH3sB", 0xFFFF, product, vendor, 0x0100, b"UFD", length)
    return whole + struct.pack("<I", zlib.crc32(whole) ^ 0xFFFFFFFF)


def sparse(chunks, block=4096, blocks=None):
    body = b"".join(struct.pack("<HHII", kind, 0, out, 12 + len(data)) + data for kind, out, data in chunks)
    total = sum(out for _, out, _ in chunks) if blocks is None else blocks
    return struct.pack("<IHHHHIIII", formats.SPARSE_MAGIC, 1, 0, 28, 12, block, total, len(chunks), 0) + body


@pytest.fixture
def file(tmp_path):
    def make(data, name="image.bin", **beside):
        (tmp_path / name).write_bytes(data)
        for ending, text in beside.items():
            (tmp_path / (name + ending.replace("_", "."))).write_text(text)
        return tmp_path / name

    return make


def test_a_whole_image_is_known_by_its_checksum(file):
    told = []
    image = image_check.look(file(b"firmware"), BOARD, told.append)
    assert (image.size_bytes, image.payload_bytes, image.what, told[-1]) == (8, 8, "raw", 100.0)
    assert image.sha256 == hashlib.sha256(b"firmware").hexdigest()
    image_check.look(image.path, Wanted("imx-1", sha256=image.sha256.upper()))


@pytest.mark.parametrize(
    ("wanted", "data", "why"),
    [
        (Wanted("imx-1", sha256="0" * 64), b"firmware", "and the request says 000"),
        (Wanted("imx-1", max_bytes=4), b"firmware", "max_bytes of this flash is 4"),
        (Wanted("imx-1", declared=True), b"firmware", "does not say which boards it is for"),
        (BOARD, b"", "is empty"),
    ],
)
def test_what_is_not_wanted_is_refused(file, wanted, data, why):
    with pytest.raises(ImageError, match=why):
        image_check.look(file(data), wanted)


def test_no_file_is_no_image(tmp_path):
    with pytest.raises(ImageError, match="is not there"):
        image_check.look(tmp_path / "none", BOARD)
    with pytest.raises(ImageError, match="is no file"):
        image_check.look(tmp_path, BOARD)


@pytest.mark.parametrize(
    ("declared", "compatible", "why"),
    [
        ('boards = ["imx-1", "imx-2"]', (), None),
        ('boards = ["imx-2"]', (), "is for imx-2, and not for imx-1"),
        ('compatible = ["fsl,imx8mm-evk"]', ("fsl,imx8mm-evk", "fsl,imx8mm"), None),
        ('compatible = ["fsl,imx8mm-evk"]', ("ti,am625-sk",), "is for fsl,imx8mm-evk, and imx-1 is ti,am625-sk"),
        ('compatible = ["fsl,imx8mm-evk"]', (), "what imx-1 is nobody knows"),
        ('boards = ["imx-1"]\ncompatible = ["fsl,imx8mm-evk"]', (), None),
        ('sha256 = "00"', (), "image.bin.boardhand.toml says 00"),
        ("boards = 3", (), "boards: a list of texts"),
        ("sha256 = 3", (), "sha256: a text"),
        ('board = "imx-1"', (), "board: is not known"),
        ("boards = [", (), "is no TOML"),
    ],
)
def test_a_wrong_image_for_the_board_is_found(file, declared, compatible, why):
    path = file(b"firmware", _boardhand_toml=declared)
    wanted = Wanted("imx-1", compatible=frozenset(compatible), declared="sha256" not in declared)
    if why is None:
        image_check.look(path, wanted)
    else:
        with pytest.raises(ImageError, match=why):
            image_check.look(path, wanted)


def test_a_dfu_suffix_has_to_fit_the_device(file):
    wanted = Wanted("imx-1", Format.DFU, device="1209:db42")
    image = image_check.look(file(suffixed(b"firmware")), wanted)
    assert (image.size_bytes, image.payload_bytes, image.what) == (24, 8, "for USB device 1209:db42")
    assert image_check.look(file(suffixed(b"firmware", 0xFFFF, 0xFFFF)), wanted).what == "for USB device *:*"
    assert image_check.look(file(b"raw firmware of more than sixteen octets"), wanted).what == "raw"
    with pytest.raises(ImageError, match="for the USB device 1209:0001, and this board is 1209:db42"):
        image_check.look(file(suffixed(b"firmware", product=1)), wanted)
    damaged = bytearray(suffixed(b"firmware"))
    damaged[0] ^= 1
    with pytest.raises(ImageError, match="is damaged"):
        image_check.look(file(bytes(damaged)), wanted)
    with pytest.raises(ImageError, match="says that it has 200 octets"):
        image_check.look(file(suffixed(b"firmware", length=200)), wanted)


def test_a_suffix_is_as_dfu_suffix_makes_it(file):
    path = file(b"firmware of a board")
    command = ["dfu-suffix", "-v", "1209", "-p", "db42", "-d", "ffff", "-a", str(path)]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    assert path.read_bytes() == suffixed(b"firmware of a board")


def test_sparse_images_have_to_be_whole(file):
    wanted = Wanted("imx-1", Format.FASTBOOT)
    chunks = [(formats.RAW, 2, b"x" * 8192), (formats.FILL, 5, b"fill"), (formats.SKIP, 3, b"")]
    assert image_check.look(file(sparse(chunks)), wanted).what == "sparse, 40960 octets when unpacked"
    assert image_check.look(file(b"ANDROID!" + b"\0" * 100), wanted).what == "an Android boot image"
    assert image_check.look(file(b"\x3a\xff"), wanted).what == "raw"
    for bad, why in (
        (sparse(chunks)[:-13], "cut off"),
        (sparse(chunks[:1])[:-1], "cut off"),
        (sparse(chunks, blocks=11), "cut off"),
        (sparse([(formats.RAW, 2, b"x" * 8)]), "chunk 0 of 1 is damaged"),
        (sparse([(0xCAFF, 2, b"")]), "chunk 0 of 1 is damaged"),
        (sparse(chunks, block=3), "makes no sense"),
    ):
        with pytest.raises(ImageError, match=why):
            image_check.look(file(bad), wanted)


@pytest.mark.parametrize("form", [Format.DFU, Format.FASTBOOT])
@SAME_FOLDER
@given(data=st.binary(min_size=1, max_size=80), cut=st.integers(0, 60), make=st.sampled_from(["raw", "sparse", "dfu"]))
def test_nothing_but_an_image_error_comes_of_damage(file, form, data, cut, make):
    whole = {"raw": data, "sparse": sparse([(formats.FILL, 1, data[:4])]) + data, "dfu": suffixed(data)}[make]
    damaged = whole[:cut] + data + whole[cut + 1 :]
    said = "image.bin"
    try:
        image_check.look(file(damaged), Wanted("imx-1", form, device="1209:db42"))
    except ImageError as error:
        said = str(error)
    assert "image.bin" in said


@pytest.fixture
def disk(tmp_path):
    """A disk's image with two islands of data, and the map that the real bmaptool makes of it."""
    image = tmp_path / "card.wic"
    with image.open("wb") as out:
        out.write(b"boot" * 4096)
        out.seek(1 << 20)
        out.write(b"root" * 8192)
        out.truncate(2 << 20)
    bmap = tmp_path / "card.wic.bmap"
    subprocess.run(["bmaptool", "create", "-o", str(bmap), str(image)], check=True, timeout=60, capture_output=True)
    return image, bmap


def test_the_map_beside_an_image_has_to_be_its_own(disk):
    image, bmap = disk
    found = image_check.look(image, Wanted("imx-1", Format.DISK))
    assert (found.bmap, found.what) == (bmap, "with a map, 12 of 512 blocks")
    assert image_check.look(image, Wanted("imx-1", Format.DISK, bmap=False)).bmap is None
    packed = image.with_name("card.wic.gz")
    packed.write_bytes(gzip.compress(image.read_bytes()))
    assert block_map.beside(packed) == bmap
    with image.open("ab") as more:
        more.write(b"x")
    with pytest.raises(ImageError, match="is for an image of 2097152 octets, and card"):
        image_check.look(image, Wanted("imx-1", Format.DISK))


@pytest.mark.parametrize(
    "text",
    ["", "<bmap/>", '<bmap version="9.0"/>', "<bmap", '<!DOCTYPE b [<!ENTITY a "x">]><bmap version="2.0">&a;</bmap>',
     '<bmap version="2.0"><ImageSize>many</ImageSize></bmap>'],
)  # fmt: skip
def test_what_is_no_map_is_refused(file, text):
    path = file(b"image", "card.wic", _bmap=text)
    with pytest.raises(ImageError, match=r"card\.wic\.bmap"):
        image_check.look(path, Wanted("imx-1", Format.DISK))


def test_a_disk_is_compared_where_the_map_says(disk, tmp_path):
    image, bmap = disk
    looked = image_check.look(image, Wanted("imx-1", Format.DISK))
    card = tmp_path / "card"
    data = bytearray(image.read_bytes())
    data[600_000] = 1  # a hole: nobody has written there
    card.write_bytes(data)
    assert "49152 octets agree" in read_back.compare_disk(looked, card, threading.Event())
    data[(1 << 20) + 5] ^= 1
    card.write_bytes(data)
    with pytest.raises(NotVerifiedError, match="octets 1048576 to 1081344 are not the image's"):
        read_back.compare_disk(looked, card, threading.Event())
    bmap.write_text(bmap.read_text().replace("> sha256 <", "> shake256 <"))
    with pytest.raises(ImageError, match="unknown kind"):
        read_back.compare_disk(looked, card, threading.Event())


@pytest.mark.parametrize(
    ("back", "at"), [(b"same", None), (b"sane", 2), (b"sam", 3), (b"", 0), (b"same and more", None)]
)
def test_the_first_difference_is_told(tmp_path, back, at):
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(back)
    assert read_back.first_difference(tmp_path / "a", tmp_path / "b", 4, threading.Event()) == at


def test_a_comparison_that_nobody_waits_for_ends(disk, tmp_path):
    image, _ = disk
    looked = image_check.look(image, Wanted("imx-1", Format.DISK))
    given_up = threading.Event()
    given_up.set()
    (tmp_path / "card").write_bytes(image.read_bytes())
    with pytest.raises(NotVerifiedError, match="was not read back to its end"):
        read_back.compare_disk(looked, tmp_path / "card", given_up)
    with pytest.raises(NotVerifiedError, match="was not read back to its end"):
        read_back.first_difference(image, tmp_path / "card", looked.size_bytes, given_up)


def test_a_disk_that_cannot_be_read_is_said(tmp_path):
    (tmp_path / "a").write_bytes(b"same")
    with pytest.raises(ImageDiskError, match="cannot be read"):
        read_back.first_difference(tmp_path / "a", tmp_path / "none", 4, threading.Event())
