"""The root for virtual boards is built when it has to be. That boards run from it is for `make test-roots`."""

import pytest

from virtual_lab import debian_root
from virtual_lab.debian_root import DebianRootError


@pytest.fixture
def built(monkeypatch):
    """How often it was built."""
    times = []

    def build(_cache, target):
        times.append(target)
        target.write_bytes(b"root")

    monkeypatch.setattr(debian_root, "_build", build)
    return times


def test_it_is_made_once_and_anew_when_the_recipe_changes(tmp_path, built, monkeypatch):
    first = debian_root.get(tmp_path, lambda *_: None)
    assert debian_root.get(tmp_path, lambda *_: None) == first
    assert len(built) == 1
    monkeypatch.setattr(debian_root, "RECIPE", debian_root.RECIPE + "#")
    second = debian_root.get(tmp_path, lambda *_: None)
    assert second != first
    assert not first.exists()


def test_a_build_that_fails_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(debian_root, "RECIPE", 'name = "debian"\narch = "vax"\n')
    with pytest.raises(DebianRootError, match=r"cannot be made: .*image\.toml:2: arch"):
        debian_root.get(tmp_path, lambda *_: None)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
