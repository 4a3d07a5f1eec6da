"""OCI images made by hand: layouts in a folder, whose layers are given as what is in them."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def layer(files):
    """A layer's tar: a text is a file, None a folder, ("l", target) and ("h", target) links; a name may say `.wh.`"""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, what in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if what is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(what, tuple):
                info.type, info.linkname = (tarfile.SYMTYPE if what[0] == "l" else tarfile.LNKTYPE), what[1]
            else:
                info.size = len(what.encode())
            tar.addfile(info, io.BytesIO(what.encode()) if isinstance(what, str) else None)
    return out.getvalue()


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True, timeout=60).stdout


PACKED = {"": lambda data: data, "+gzip": gzip.compress, "+zstd": zstd}


class Layout:
    """An image layout in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data, media):
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    def image(self, layers, *, packed="+gzip", arch="arm64", variant=None):
        """An image's descriptor."""
        tars = [layer(files) if isinstance(files, dict) else files for files in layers]
        diffs = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in tars]
        platform = {"architecture": arch, "os": "linux", **({"variant": variant} if variant else {})}
        config = {**platform, "rootfs": {"type": "layers", "diff_ids": diffs}, "config": {}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(config).encode(), CONFIG),
            "layers": [self.blob(PACKED[packed](data), LAYER + packed) for data in tars],
        }
        return {**self.blob(json.dumps(manifest).encode(), MANIFEST), "platform": platform}

    def index(self, *manifests, name="latest"):
        """Write the index: the images that the layout has."""
        entries = [{**entry, "annotations": {"org.opencontainers.image.ref.name": name}} for entry in manifests]
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        return self.folder

    def nested(self, *manifests):
        """As `skopeo copy --all` leaves it: an index in the index."""
        inner = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        return self.index(self.blob(json.dumps(inner).encode(), INDEX))

    def archive(self, target):
        """The layout as an oci-archive."""
        subprocess.run(["tar", "-cf", target, "-C", self.folder, "."], check=True, timeout=60)
        return target
