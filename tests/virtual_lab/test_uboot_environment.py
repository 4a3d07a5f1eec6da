"""The environment image, against U-Boot's own mkenvimage."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_lab import uboot_environment


def test_the_image_is_what_mkenvimage_makes(tmp_path):
    program = shutil.which("mkenvimage")
    assert program is not None, "install u-boot-tools"
    environment = uboot_environment.netboot_environment("6f1c9f0e-0000-4000-8000-000000000001")
    text = tmp_path / "env.txt"
    text.write_text("".join(f"{name}={value}\n" for name, value in sorted(environment.items())))
    made = tmp_path / "env.img"
    subprocess.run([program, "-s", hex(uboot_environment.ENVIRONMENT_BYTES), "-o", made, text], check=True)
    assert uboot_environment.image(environment) == made.read_bytes()


@pytest.mark.parametrize("bad", [{"": "x"}, {"a=b": "x"}, {"a": "x\0y"}, {"a": "x" * 300_000}])
def test_what_cannot_stand_in_flash_is_refused(bad):
    with pytest.raises(ValueError, match=r"environment"):
        uboot_environment.image(bad)


@given(st.dictionaries(st.text("abc_", min_size=1), st.text("xyz =;$", max_size=30), max_size=10))
def test_the_image_has_the_size_of_the_flash_sector(environment):
    made = uboot_environment.image(environment)
    assert len(made) == uboot_environment.ENVIRONMENT_BYTES
    for name, value in environment.items():
        assert f"{name}={value}\0".encode() in made
