"""OCI and docker images: layers upon layers, as skopeo and umoci write and read them."""

import hashlib
import json
import os
import subprocess
import tarfile

import pytest

from netboot.roots.errors import SourceError, UnsafeSourceError
from netboot.roots.importing import ImportOptions, RootImport
from netboot.roots.store import RootStore
from tests.netboot.roots.oci_images import PACKED, Layout

BASE = {
    "etc": None, "etc/os-release": "ID=debian\n", "etc/old": "old", "usr": None, "usr/bin": None,
    "usr/bin/tool": "tool", "usr/bin/same": ("h", "usr/bin/tool"), "bin": ("l", "usr/bin"),
    "var": None, "var/cache": None, "var/cache/a": "a", "var/cache/deep": None, "var/cache/deep/b": "b",
    "opt": None, "opt/app": "a file", "srv": "a file", "lib": ("l", "usr/bin"),
}  # fmt: skip
NEXT = {
    "etc": None, "etc/.wh.old": "", "etc/new": "new", "usr": None, "usr/bin": None, "usr/bin/tool": "newer",
    "var": None, "var/cache": None, "var/cache/.wh..wh..opq": "", "var/cache/c": "c",
    "opt": None, "opt/.wh.app": "", "opt/app": None, "opt/app/inside": "now a folder",
    "srv": None, "srv/inside": "a folder in a file's place", "bin": None, "bin/real": "no link any more",
}  # fmt: skip
LAST = {"lib": None, ".wh.lib": "", "lib/real": "later in the same layer", "var": None, "var/cache": "now a file"}
EXPECTED = {
    "etc/os-release": "ID=debian\n", "etc/new": "new", "usr/bin/tool": "newer", "usr/bin/same": "tool",
    "opt/app/inside": "now a folder", "srv/inside": "a folder in a file's place", "bin/real": "no link any more",
    "lib/real": "later in the same layer", "var/cache": "now a file",
}  # fmt: skip
THREE = [BASE, NEXT, LAST]


@pytest.fixture
def store(tmp_path):
    return RootStore(tmp_path / "store")


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(tree):
    return {
        path.relative_to(tree).as_posix(): path.read_text()
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def bring(store, source, **options):
    RootImport(store, ImportOptions(lossy=os.geteuid() != 0, **options)).run("image", source)
    assert store.verify("image") == []
    return files(store.tree("image"))


@pytest.mark.parametrize("packed", PACKED)
def test_layers_lie_upon_each_other(store, layout, tmp_path, packed):
    layout.index(layout.image(THREE, packed=packed))
    assert bring(store, layout.archive(tmp_path / "image.tar")) == EXPECTED
    assert not (store.tree("image") / "bin").is_symlink()


def test_a_layout_in_a_folder_is_an_image_and_no_root(store, layout):
    assert bring(store, layout.index(layout.image(THREE))) == EXPECTED


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci"])
def test_what_skopeo_writes_is_read(store, layout, tmp_path, form):
    layout.index(layout.image(THREE))
    copy = tmp_path / "copy"
    run("skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout.folder}:latest", f"{form}:{copy}:a/b:latest")
    assert json.loads(run("skopeo", "inspect", f"{form}:{copy}"))["Architecture"] == "arm64"
    assert bring(store, copy, arch="arm64") == EXPECTED


def test_umoci_unpacks_the_same(store, layout, tmp_path):
    """A foreign reader of the same image, with the one difference that it has folders for its own use beside it."""
    layout.index(layout.image([BASE, NEXT]))
    rootless = ["--rootless"] if os.geteuid() else []
    run("umoci", "raw", "unpack", *rootless, "--image", f"{layout.folder}:latest", str(tmp_path / "rootfs"))
    assert bring(store, layout.folder) == files(tmp_path / "rootfs")


def test_a_packed_archive_is_unpacked_first(store, layout, tmp_path):
    layout.index(layout.image(THREE))
    run("xz", "-0", str(layout.archive(tmp_path / "image.tar")))
    assert bring(store, tmp_path / "image.tar.xz") == EXPECTED


@pytest.mark.parametrize("form", ["index", "nested"])
def test_of_several_architectures_one_is_chosen(store, layout, tmp_path, form):
    images = [layout.image([{"which": arch}], arch=arch) for arch in ("amd64", "arm64")]
    images.append(layout.image([{"which": "arm/v7"}], arch="arm", variant="v7"))
    attestation = {**layout.image([{"which": "none"}], arch="unknown"), "platform": {"architecture": "unknown"}}
    getattr(layout, form)(*images, attestation)
    source = layout.archive(tmp_path / "image.tar")
    for arch, which in {"arm64": "arm64", "amd64": "amd64", "armhf": "arm/v7", "arm/v7": "arm/v7"}.items():
        assert bring(store, source, arch=arch) == {"which": which}
        store.remove("image")
    with pytest.raises(SourceError, match="for amd64, arm/v7, arm64: say with --arch which"):
        bring(store, source)
    with pytest.raises(SourceError, match="for amd64, arm/v7, arm64: there is none for riscv64"):
        bring(store, source, arch="riscv64")


def test_an_image_for_another_board_is_found_out_here_and_not_there(store, layout):
    entry = layout.image([BASE], arch="amd64")
    del entry["platform"]
    layout.index(entry)
    with pytest.raises(SourceError, match="the image is for amd64, not for arm64"):
        bring(store, layout.folder, arch="arm64")


def test_the_same_image_under_two_names_is_one(store, layout):
    entry = layout.image([BASE])
    layout.index(entry, dict(entry))
    assert "etc/os-release" in bring(store, layout.folder)


def test_an_image_may_have_a_layer_without_files(store, layout):
    layout.index(layout.image([BASE, bytes(1024)], packed=""))
    assert "etc/os-release" in bring(store, layout.folder)


EVIL = {
    "a whiteout of the folder itself": {"etc": None, "etc/.wh.": ""},
    "a whiteout of the folder": {"etc": None, "etc/.wh..": ""},
    "a whiteout of the folder above": {"etc": None, "etc/.wh...": ""},
    "a whiteout outside": {"../.wh.outside": ""},
    "a whiteout through a link": {"out": ("l", ".."), "out/.wh.outside": ""},
    "a file outside": {"../outside": "x"},
}


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("before", [True, False])
def test_a_layer_removes_and_writes_nothing_outside(store, layout, evil, before):
    """With `before`, its link is in the layer below."""
    links = {name: what for name, what in EVIL[evil].items() if isinstance(what, tuple)}
    rest = {name: what for name, what in EVIL[evil].items() if not isinstance(what, tuple)}
    layout.index(layout.image([{**BASE, **links}, rest] if before else [BASE, EVIL[evil]]))
    if links and not before:
        assert "etc/os-release" in bring(store, layout.folder)  # there was no link when the layer removed
    else:
        with pytest.raises(UnsafeSourceError):
            bring(store, layout.folder)
        assert store.names() == []
    assert (store.folder / "roots").is_dir()


def test_a_layer_that_was_changed_is_found_out(store, layout, tmp_path):
    entry = layout.image(THREE)
    layout.index(entry)
    manifest = json.loads((layout.folder / "blobs/sha256" / entry["digest"][7:]).read_bytes())
    blob = layout.folder / "blobs/sha256" / manifest["layers"][1]["digest"][7:]
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(SourceError, match="is not what the manifest says"):
        bring(store, layout.archive(tmp_path / "image.tar"))
    blob.unlink()
    with pytest.raises(SourceError, match="is not in it"):
        bring(store, layout.folder)
    assert list((store.folder / "incoming").iterdir()) == []


@pytest.mark.parametrize("document", ["[]", "{}", '{"manifests": 7}', '{"manifests": [{}]}', "no json", '"text"'])
def test_an_index_that_makes_no_sense_is_an_error_in_words(store, layout, document):
    layout.index(layout.image([BASE]))
    (layout.folder / "index.json").write_text(document)
    with pytest.raises(SourceError, match="layout"):
        bring(store, layout.folder)


def test_an_index_that_names_itself_ends(store, layout):
    """No digest can be its own; but documents that name each other by wrong digests could."""
    name = hashlib.sha256(b"ring").hexdigest()
    ring = {"schemaVersion": 2, "manifests": [{"digest": f"sha256:{name}", "size": 1}]}
    (layout.folder / "blobs/sha256" / name).write_text(json.dumps(ring))
    (layout.folder / "index.json").write_text(json.dumps(ring))
    with pytest.raises(SourceError):
        bring(store, layout.folder)


def test_several_docker_images_in_one_archive_are_refused(store, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps([{"RepoTags": [t], "Config": "c", "Layers": []} for t in "ab"]))
    with tarfile.open(tmp_path / "save.tar", "w") as tar:
        tar.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(SourceError, match=r"holds 2 images \(a, b\)"):
        bring(store, tmp_path / "save.tar")
