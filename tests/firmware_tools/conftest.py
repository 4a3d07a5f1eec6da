"""Real packages for a foreign architecture, fetched once into the cache folder."""

from pathlib import Path

import pytest

from firmware_tools.debian_packages import KernelTree, cache_dir, fetch_busybox, fetch_kernel, fetch_python

ARCH = "arm64"


@pytest.fixture(scope="session")
def kernel() -> KernelTree:
    return fetch_kernel(ARCH, cache_dir())


@pytest.fixture(scope="session")
def busybox() -> Path:
    return fetch_busybox(ARCH, cache_dir())


@pytest.fixture(scope="session")
def python_root() -> Path:
    return fetch_python(ARCH, cache_dir())
