"""Files made to do harm: refused with an error to read, in bounded time and memory, and nothing outside is touched."""

import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import pytest
from numcodecs import Blosc
from PIL import Image

import pipeline.ingest
from pipeline.config import from_overrides
from pipeline.errors import CheckpointError, SpkError
from pipeline.fingerprints import fingerprint_of
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.store import open_store
from pipeline.voxelize import voxelize
from pipeline.yaml_files import dump_yaml, read_yaml

REPOSITORY = Path(__file__).parents[2]
FIRST = "train/train_0000"
MOST_SECONDS = 10.0
MOST_BYTES = 512 << 20


@dataclass(frozen=True)
class Scene:
    """Recordings and their store, which a case may spoil, and a folder beside them that nothing may touch."""

    folder: Path
    raw: Path
    store: Path
    outside: Path

    @property
    def sequence(self) -> Path:
        return self.raw / FIRST

    @property
    def image(self) -> Path:
        return self.sequence / "blurry" / "000001.png"

    @property
    def stream(self) -> Path:
        return self.sequence / "spikes.dat"

    @property
    def manifest(self) -> Path:
        return self.folder / "own.yaml"

    def declare(self, **changes: Any) -> None:
        """Write a manifest: that of simulated recordings with some values changed, by dotted key."""
        values = read_yaml(REPOSITORY / "data_manifests" / "simulated.yaml")
        for key, value in changes.items():
            *parents, last = key.split("__")
            place = values
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        self.manifest.write_text(dump_yaml(values))

    def arrays(self, data: bytes, suffix: str = ".npy") -> None:
        """Let every sequence's spikes be in an array file of these bytes."""
        for sequence in self.raw.glob("*/*"):
            (sequence / f"spikes{suffix}").write_bytes(data)
        self.declare(layout__spikes="{split}/{sequence}/spikes" + suffix)


@dataclass(frozen=True)
class Case:
    """How to spoil a scene, the command to try then, the words of its refusal; code 0 where nothing is wrong."""

    spoil: Callable[[Scene], object]
    command: str
    words: tuple[str, ...]
    code: int = 1


INGEST = "ingest RAW -o OUT -m simulated"
OWN = "ingest RAW -o OUT -m MANIFEST"


# Manifests and YAML


def manifest_of(text: str | bytes) -> Callable[[Scene], object]:
    data = text.encode() if isinstance(text, str) else text
    return lambda scene: scene.manifest.write_bytes(data)


def declaring(**changes: Any) -> Callable[[Scene], object]:
    return lambda scene: scene.declare(**changes)


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
TOO_LONG = "may take too long"
MANIFESTS = {
    "spikes above the root": Case(
        declaring(layout__spikes="../{sequence}/s.dat"), OWN, ("'..'", "own.yaml"), 2
    ),
    "spikes at an absolute place": Case(
        declaring(layout__spikes="/etc/{sequence}"), OWN, ("inside the root",), 2
    ),
    "a NUL in a pattern": Case(declaring(layout__log="{split}/a\0b.csv"), OWN, ("inside the root", "log"), 2),
    "half a character in a pattern": Case(
        declaring(layout__log="{split}/\ud800"), OWN, ("inside the root",), 2
    ),
    "a split above the root": Case(
        declaring(splits={"train": {"folder": "../outside"}}), OWN, ("splits.train",), 2
    ),
    "a split at an absolute place": Case(
        declaring(splits={"train": {"folder": "/etc"}}), OWN, ("splits.train",), 2
    ),
    "a NUL in a split": Case(declaring(splits={"train": {"folder": "a\0b"}}), OWN, ("splits.train",), 2),
    "sequences above the root": Case(
        declaring(splits={"train": {"sequences": ["../../outside/*", "/etc/*"]}}), OWN, ("no recordings",)
    ),
    "placeholders that look into objects": Case(
        declaring(layout__spikes="{sequence.__class__.__init__.__globals__}.dat"), OWN, ("is not one of",), 2
    ),
    "a pattern of many stars": Case(
        declaring(layout__spikes="{sequence}/*a*a*a*a*b.dat"), OWN, ("2 times",), 2
    ),
    "an exponential pattern": Case(declaring(exposure__numbering={"pattern": "(a+)+$"}), OWN, (TOO_LONG,), 2),
    "an exponential choice": Case(
        declaring(exposure__raw_frames={"pattern": "^((a|a)*)*$", "spike_frames": 8}), OWN, ("(a|a)*",), 2
    ),
    "many optional parts": Case(
        declaring(exposure__numbering={"pattern": "(a)" + "a?" * 30 + "a{30}"}), OWN, (TOO_LONG,), 2
    ),
    "a manifest of a byte too much": Case(
        manifest_of("#" * ((1 << 20) + 1)), OWN, ("1048577 bytes", "too large"), 2
    ),
    "aliases that multiply": Case(manifest_of(LAUGHS), OWN, ("alias",), 2),
    "a hundred thousand lists": Case(manifest_of("a: " + "[" * 100_000), OWN, ("not valid YAML",), 2),
    "three thousand unknown keys": Case(
        manifest_of("".join(f"k{k}: 1\n" for k in range(3000))), OWN, ("unknown key", "more"), 2
    ),
    "a number to the base of 60": Case(
        manifest_of("name: 1" + ":1" * 100_000), OWN, ("a number of 200001",), 2
    ),
    "code in YAML": Case(
        manifest_of("name: !!python/object/apply:os.system ['touch outside/ran']"),
        OWN,
        ("not valid YAML",),
        2,
    ),
    "a manifest that is a pipe": Case(lambda scene: os.mkfifo(scene.manifest), OWN, ("own.yaml",), 2),
    "a manifest that is a folder": Case(lambda scene: scene.manifest.mkdir(), OWN, ("own.yaml",), 2),
    "a manifest without end": Case(
        lambda scene: scene.manifest.symlink_to("/dev/zero"), OWN, ("own.yaml",), 2
    ),
    "a manifest of a process": Case(
        lambda scene: scene.manifest.symlink_to("/proc/self/pagemap"), OWN, ("own.yaml", "too large"), 2
    ),
    "a manifest of memory": Case(
        lambda scene: scene.manifest.symlink_to("/proc/self/mem"), OWN, ("own.yaml",), 2
    ),
}


# What is there instead of a file, and where links lead


def instead(make: Callable[[Path], object], name: str) -> Callable[[Scene], object]:
    """Put something else in the place of a file or folder of the first sequence."""

    def spoil(scene: Scene) -> None:
        path = scene.sequence / name
        (shutil.rmtree if path.is_dir() else os.unlink)(path)
        make(path)

    return spoil


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(path.parent, os.O_DIRECTORY)
        server.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def lead_out(name: str) -> Callable[[Scene], object]:
    """Move a file or folder outside, and leave a link to it."""

    def spoil(scene: Scene) -> None:
        path, target = scene.sequence / name, scene.outside / "moved"
        shutil.move(path, target)
        path.symlink_to(target)

    return spoil


def link_in_a_circle(scene: Scene) -> None:
    (scene.sequence / "a").symlink_to("b")
    (scene.sequence / "b").symlink_to("a")
    scene.stream.unlink()
    scene.stream.symlink_to("a")


def nest_folders(scene: Scene) -> None:
    here = os.open(scene.raw / "train", os.O_DIRECTORY)
    for _ in range(150):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)


def make_sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


OUT = ("leads out", "moved")
FILES = {
    "a stream that is a pipe": Case(instead(os.mkfifo, "spikes.dat"), INGEST, ("spikes.dat", "pipe")),
    "a stream that is a socket": Case(instead(bind_socket, "spikes.dat"), INGEST, ("spikes.dat", "socket")),
    "a stream that is a folder": Case(instead(Path.mkdir, "spikes.dat"), INGEST, ("spikes.dat",)),
    "a stream without end": Case(
        instead(lambda path: path.symlink_to("/dev/zero"), "spikes.dat"),
        INGEST,
        ("leads out", "/dev/zero"),
        2,
    ),
    "a stream from memory": Case(
        instead(lambda path: path.symlink_to("/proc/self/mem"), "spikes.dat"), INGEST, ("leads out",), 2
    ),
    "an image that is a pipe": Case(instead(os.mkfifo, "blurry/000001.png"), INGEST, ("000001.png", "pipe")),
    "an image that is a folder": Case(instead(Path.mkdir, "sharp/000001.png"), INGEST, ("000001.png",)),
    "a log that is a pipe": Case(instead(os.mkfifo, "exposures.csv"), INGEST, ("exposures.csv", "pipe")),
    "a log that is a folder": Case(
        instead(Path.mkdir, "exposures.csv"), INGEST, ("exposures.csv", "directory")
    ),
    "a log beyond the limit": Case(
        instead(lambda path: make_sparse(path, (64 << 20) + 1), "exposures.csv"),
        INGEST,
        ("exposures.csv", "67108865"),
    ),
    "a format that is a pipe": Case(instead(os.mkfifo, "format.yaml"), INGEST, ("format.yaml",), 2),
    "a format that is a folder": Case(instead(Path.mkdir, "format.yaml"), INGEST, ("format.yaml",), 2),
    "a stream elsewhere": Case(lead_out("spikes.dat"), INGEST, OUT, 2),
    "an image elsewhere": Case(lead_out("blurry/000001.png"), INGEST, OUT, 2),
    "images elsewhere": Case(lead_out("blurry"), INGEST, OUT, 2),
    "a log elsewhere": Case(lead_out("exposures.csv"), INGEST, OUT, 2),
    "a format elsewhere": Case(lead_out("format.yaml"), INGEST, OUT, 2),
    "a sequence elsewhere": Case(lead_out(""), INGEST, OUT, 2),
    "links in a circle": Case(link_in_a_circle, INGEST, ("symbolic links",)),
    "a folder in itself": Case(
        lambda scene: (scene.sequence / "again").symlink_to(scene.raw / "train"),
        INGEST,
        ("links to", "which it is in"),
    ),
    "folders without end": Case(nest_folders, INGEST, ("folders deep",)),
    "a path without end": Case(lambda scene: None, "inspect " + "x/" * 3000 + "a.dat", ("name too long",)),
    "a manifest of a long name": Case(
        lambda scene: None, f"ingest RAW -o OUT -m {'x' * 5000}", ("not one of",), 2
    ),
    "a frame with a name of no letters": Case(
        lambda scene: os.link(scene.image, os.fsencode(scene.image.parent) + b"/\xff\x1b[31m.png"),
        INGEST,
        ("cannot be the name of a frame",),
    ),
}


# Formats, arrays and streams


def npy_of(shape: str, descr: str = "'|u1'", body: bytes = b"\0" * 4096) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "it ran")


def npz_of(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def big_npz(scene: Scene) -> None:
    """Four GiB of zeros as the four MiB of an `.npz`: 1000 to 1."""
    scene.arrays(b"")
    head = npy_of(f"({(1 << 32) // 2304}, 48, 48)", body=b"")
    first = scene.sequence / "spikes.npz"
    with (
        zipfile.ZipFile(first, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        member.write(head)
        member.write(bytes(1 << 26))
    scene.declare(layout__spikes="{split}/{sequence}/spikes.npz")


def giant_frames(scene: Scene) -> None:
    """64 frames of 16384x16384, of which the disk holds nothing."""
    for sequence in scene.raw.glob("*/*"):
        make_sparse(sequence / "spikes.dat", 64 << 25)
        (sequence / "format.yaml").write_text("{height: 16384, width: 16384, rate_hz: 1000}")


def formatted(text: str) -> Callable[[Scene], object]:
    return lambda scene: (scene.sequence / "format.yaml").write_text(text)


ARRAYS = {
    "a height of 10**15": Case(
        formatted("{height: 1000000000000000, width: 48, rate_hz: 1000}"),
        INGEST,
        ("format.yaml", "1000000000000000"),
        2,
    ),
    "a height without end": Case(
        formatted("{height: 0x" + "f" * 90 + ", width: 48, rate_hz: 1000}"),
        INGEST,
        ("format.yaml", "height"),
        2,
    ),
    "frames that fill the memory": Case(giant_frames, INGEST, ("format.yaml", "pixels"), 2),
    "an array of 10**15 frames": Case(
        lambda scene: scene.arrays(npy_of("(1000000000000000, 48, 48)")),
        OWN,
        ("spikes.npy", "not a readable"),
    ),
    "an array of a negative shape": Case(
        lambda scene: scene.arrays(npy_of("(-1, -48, 48)")), OWN, ("spikes.npy",)
    ),
    "a shape beyond 64 bits": Case(
        lambda scene: scene.arrays(npy_of("(9223372036854775807, 9223372036854775807, 2)")),
        OWN,
        ("spikes.npy",),
    ),
    "a header of parentheses": Case(lambda scene: scene.arrays(npy_of("(" * 5000)), OWN, ("spikes.npy",)),
    "objects that run code": Case(
        lambda scene: scene.arrays(npy_of("(1, 48, 48)", "'|O'", pickle.dumps(Runs(scene.outside / "ran")))),
        OWN,
        ("spikes.npy", "not a readable"),
    ),
    "zipped objects that run code": Case(
        lambda scene: scene.arrays(
            npz_of(("a.npy", npy_of("(1, 48, 48)", "'|O'", pickle.dumps(Runs(scene.outside / "ran"))))),
            ".npz",
        ),
        OWN,
        ("spikes.npz", "not a readable"),
    ),
    "a zip that unpacks to gigabytes": Case(big_npz, OWN, ("spikes.npz",)),
    "a zip with names outside": Case(
        lambda scene: scene.arrays(npz_of(("/etc/passwd.npy", npy_of("(1,)")), ("../x.npy", b"")), ".npz"),
        OWN,
        ("spikes.npz", "several arrays"),
    ),
    "a zip that says more than it holds": Case(
        lambda scene: scene.arrays(npz_of(("a.npy", npy_of("(700000, 48, 48)"))), ".npz"),
        OWN,
        ("has not the size",),
    ),
}


# Images


def png_of(
    *chunks: tuple[bytes, bytes], size: tuple[int, int] = (48, 48), data: bytes | None = None
) -> bytes:
    width, height = size
    pixels = (
        zlib.compress(b"".join(b"\0" + bytes(3 * width) for _ in range(height))) if data is None else data
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def zeros_deflated(size: int = 1 << 32) -> bytes:
    """As many zeros as a zlib stream: one block of them, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (size % 65521) << 16 | 1
    return b"\x78\xda" + block * (size >> 24) + packer.flush() + struct.pack(">I", checksum)


def tiff_of(entries: list[tuple[int, int, int, int]], after: bytes = b"") -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + after


def saved(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 48)).save(file, kind, **options)
    return file.getvalue()


def many_pages() -> bytes:
    """A TIFF of 20,000 pages."""
    first = saved("TIFF")
    start = struct.unpack_from("<I", first, 4)[0]
    end = start + 2 + 12 * struct.unpack_from("<H", first, start)[0]
    page, size = first[start:end], end - start + 4
    pages = [page + struct.pack("<I", len(first) + size * (k + 1)) for k in range(20_000)]
    return first[:4] + struct.pack("<I", len(first)) + first[8:] + b"".join(pages)


def picture(data: Callable[[], bytes], name: str = "blurry/000001.png") -> Callable[[Scene], object]:
    return lambda scene: (scene.sequence / name).write_bytes(data())


def tiffs(data: Callable[[], bytes]) -> Callable[[Scene], object]:
    """Let the blurry frames be TIFF files, one of them of these bytes."""

    def spoil(scene: Scene) -> None:
        for path in scene.raw.glob("*/*/blurry/*.png"):
            Image.open(path).save(path.with_suffix(".tif"))
            path.unlink()
        scene.image.with_suffix(".tif").write_bytes(data())
        scene.declare(layout__blurry="{split}/{sequence}/blurry/{frame}.tif")

    return spoil


def jpeg_of_65500() -> bytes:
    data = bytearray(saved("JPEG"))
    place = data.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", data, place, 65500, 65500)
    return bytes(data)


BAD = ("blurry/000001.png",)
ABSURD = [
    (256, 4, 1, 48),
    (257, 4, 1, 48),
    (258, 3, 1, 8),
    (262, 3, 1, 1),
    (273, 4, 1 << 30, 8),
    (279, 4, 1 << 30, 8),
]
IMAGES = {
    "a PNG of 60000x60000": Case(
        picture(lambda: png_of(size=(60000, 60000), data=b"x")), INGEST, (*BAD, "pixels")
    ),
    "a JPEG of 65500x65500": Case(picture(jpeg_of_65500), INGEST, (*BAD, "pixels")),
    "a GIF called PNG": Case(picture(lambda: saved("GIF")), INGEST, (*BAD, "not a readable")),
    "an animated PNG": Case(
        picture(lambda: saved("PNG", save_all=True, append_images=[Image.new("RGB", (48, 48), "red")])),
        INGEST,
        (*BAD, "pages"),
    ),
    "a profile of gigabytes": Case(
        picture(lambda: png_of((b"iCCP", b"x\0\0" + zeros_deflated()), data=b"x")), INGEST, BAD
    ),
    "a text of gigabytes": Case(
        picture(lambda: png_of((b"zTXt", b"x\0\0" + zeros_deflated()), data=b"x")), INGEST, BAD
    ),
    "a chunk that says it has gigabytes": Case(
        picture(lambda: png_of()[:-12] + struct.pack(">I", (1 << 31) - 1) + b"IDAT"), INGEST, BAD
    ),
    "pixels of gigabytes in a small image": Case(
        picture(lambda: png_of(data=zeros_deflated())), INGEST, (), code=0
    ),
    "a TIFF of absurd tags": Case(tiffs(lambda: tiff_of(ABSURD)), OWN, ("000001.tif",)),
    "a TIFF of 10**9 strips in a circle": Case(
        tiffs(lambda: tiff_of([*ABSURD[:4], (330, 4, 1, 8), (34665, 4, 1, 8)])), OWN, ("000001.tif",)
    ),
    "a TIFF of 20,000 pages": Case(tiffs(many_pages), OWN, ("000001.tif", "pages")),
}


# Stores


def edit(node: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = node / "zarr.json"
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


def reseal(store: Path) -> None:
    """Make the digests and the checksum at the root agree with what the store holds now, as an attacker would."""

    def change(metadata: dict[str, Any]) -> None:
        attributes = metadata["attributes"]
        for record in attributes["stages"].values():
            for nodes in record["sequences"].values():
                for name in nodes:
                    with_file = store / name / "zarr.json"
                    if with_file.is_file():
                        nodes[name] = hashlib.sha256(with_file.read_bytes()).hexdigest()
        attributes.pop("checksum")
        attributes["checksum"] = fingerprint_of(attributes)

    edit(store, change)


def forged(
    change: Callable[[dict[str, Any]], object], node: str = f"{FIRST}/spikes"
) -> Callable[[Scene], object]:
    def spoil(scene: Scene) -> None:
        edit(scene.store / node, change)
        reseal(scene.store)

    return spoil


def set_shape(metadata: dict[str, Any]) -> None:
    metadata["shape"][0] = 10**15


def set_grid(metadata: dict[str, Any]) -> None:
    metadata["shape"] = [10**15, 1, 1]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1, 1]
    metadata["codecs"][0]["configuration"]["chunk_shape"] = [1, 1, 1]


def set_chunk(metadata: dict[str, Any]) -> None:
    metadata["shape"] = [10**5, 10**5, 10**5]
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [10**5, 10**5, 10**5]
    metadata["codecs"][0]["configuration"]["chunk_shape"] = [10**5, 10**5, 10**5]


def point_out(metadata: dict[str, Any]) -> None:
    ledger = metadata["attributes"]["ledger"]
    ledger["../../../../outside/sentinel"] = ledger.pop("c/0/0/0")


def split_outside(metadata: dict[str, Any]) -> None:
    metadata["attributes"]["splits"]["../outside"] = ["x"]


def rewrite_index(scene: Scene) -> None:
    """Let the index of a shard point past its end, with all checksums right."""
    shard = scene.store / FIRST / "spikes" / "c/0/0/0"
    data = bytearray(shard.read_bytes())
    count = (len(data) - 8) // 16
    index = next(
        n
        for n in range(1, count)
        if google_crc32c.value(bytes(data[-16 * n - 4 : -4])).to_bytes(4, "little") == data[-4:]
    )
    struct.pack_into("<QQ", data, len(data) - 4 - 16 * index, 1 << 60, 1 << 40)
    data[-4:] = google_crc32c.value(bytes(data[-16 * index - 4 : -4])).to_bytes(4, "little")
    shard.write_bytes(data)


def unpack_to_gigabytes(scene: Scene) -> None:
    """Let a compressed chunk of the voxel grids hold a gigabyte of zeros, with all checksums right."""
    array = scene.store / FIRST / "voxels" / "k4"
    packed = Blosc(cname="zstd", clevel=1).encode(np.zeros(1 << 30, np.uint8))
    shard = array / "c/0/0/0/0"
    old = json.loads((array / "zarr.json").read_text())
    shards, chunks = (
        old["chunk_grid"]["configuration"]["chunk_shape"],
        old["codecs"][0]["configuration"]["chunk_shape"],
    )
    count = int(np.prod([s // c for s, c in zip(shards, chunks, strict=True)]))
    chunk = packed + google_crc32c.value(packed).to_bytes(4, "little")
    index = struct.pack("<QQ", 0, len(chunk)) * count
    seal = google_crc32c.value(b"forged")
    shard.write_bytes(
        chunk + seal.to_bytes(4, "little") + index + google_crc32c.value(index).to_bytes(4, "little")
    )

    def change(metadata: dict[str, Any]) -> None:
        metadata["attributes"]["ledger"]["c/0/0/0/0"] = [shard.stat().st_size, seal]

    edit(array, change)
    reseal(scene.store)


def replace_node(make: Callable[[Path], object], name: str) -> Callable[[Scene], object]:
    def spoil(scene: Scene) -> None:
        path = scene.store / name
        (shutil.rmtree if path.is_dir() else os.unlink)(path)
        make(path)

    return spoil


def link_node(name: str) -> Callable[[Scene], object]:
    """Let a folder of the store be a link to outside, where the same is; voxel grids are to be built again."""

    def spoil(scene: Scene) -> None:
        path = scene.store / name
        shutil.move(path, scene.outside / "moved")
        path.symlink_to(scene.outside / "moved")

    return spoil


def link_lock(scene: Scene) -> None:
    (scene.store / ".spk").mkdir(exist_ok=True)
    (scene.store / ".spk" / "lock").symlink_to(scene.outside / "sentinel")


INSPECT = "inspect STORE"
DRAW = "inspect STORE -o OUT/a.png"
REBUILD = "voxelize STORE --bins 4 --overwrite"
STORES = {
    "an array of 10**15 frames in a store": Case(forged(set_shape), INSPECT, ("spikes", "ledger")),
    "10**15 shards": Case(forged(set_grid), INSPECT, ("spikes", "ledger")),
    "a chunk of 10**15 bytes": Case(forged(set_chunk), INSPECT, ("spikes", "chunks of")),
    "a table of 10**15 rows": Case(forged(set_shape, f"{FIRST}/exposure"), INSPECT, ("exposure",)),
    "sides that are no numbers": Case(
        forged(lambda metadata: metadata.update(shape=[True, -1, "x"])), INSPECT, ("spikes", "sides")
    ),
    "a ledger that points out": Case(forged(point_out), INSPECT, ("spikes", "ledger")),
    "a split outside": Case(forged(split_outside, ""), INSPECT, ("splits",)),
    "a split outside, to be dropped": Case(
        forged(split_outside, ""), "ingest RAW -o STORE -m simulated --overwrite", ("splits",)
    ),
    "an index past the end": Case(rewrite_index, DRAW, ("spikes", "c/0/0/0")),
    "a chunk that unpacks to gigabytes": Case(unpack_to_gigabytes, DRAW, ("voxels/k4", "1073741824")),
    "metadata that is a pipe": Case(
        replace_node(os.mkfifo, f"{FIRST}/zarr.json"), INSPECT, ("zarr.json", "ordinary")
    ),
    "metadata that is a folder": Case(
        replace_node(Path.mkdir, f"{FIRST}/zarr.json"), INSPECT, ("zarr.json",)
    ),
    "a root that is a pipe": Case(
        replace_node(os.mkfifo, "zarr.json"), INSPECT, ("STORE", "zarr.json is missing")
    ),
    "a root that is a folder": Case(
        replace_node(Path.mkdir, "zarr.json"), "voxelize STORE", ("STORE", "zarr.json is missing")
    ),
    "metadata of lists": Case(
        replace_node(lambda path: path.write_text("[" * 100_000), f"{FIRST}/zarr.json"),
        INSPECT,
        ("zarr.json",),
    ),
    "metadata of gigabytes": Case(
        replace_node(lambda path: make_sparse(path, 1 << 32), f"{FIRST}/zarr.json"),
        INSPECT,
        ("zarr.json", "more than"),
    ),
    "a shard that is a pipe": Case(
        replace_node(os.mkfifo, f"{FIRST}/spikes/c/0/0/0"), INSPECT, ("ordinary",)
    ),
    "a sequence of a store elsewhere": Case(link_node(FIRST), INSPECT, ("symbolic link",)),
    "shards elsewhere, to be replaced": Case(
        link_node(f"{FIRST}/voxels/k4/c"), REBUILD, ("link", "voxels/k4/c")
    ),
    "a lock elsewhere": Case(link_lock, REBUILD, ("link", "lock")),
}
CASES = MANIFESTS | FILES | ARRAYS | IMAGES | STORES


# The campaign


class Ended(NamedTuple):
    """How a confined command ended: its exit code (below 0: the signal), what it printed, did and used."""

    code: int
    out: str
    err: str
    touched: str
    seconds: float
    peak: int


@pytest.fixture(scope="module")
def confined() -> Iterator[Callable[[list[str], Scene], Ended]]:
    """Runs `spk` with little memory and time, and tells what it touched."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(Path(__file__).with_name("confined.py"))]
    with subprocess.Popen(
        script, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin and server.stdout

        def run(words: list[str], scene: Scene) -> Ended:
            request = {"words": words, "outside": str(scene.outside), "folder": str(scene.folder)}
            print(json.dumps(request), file=server.stdin, flush=True)
            return Ended(**json.loads(server.stdout.readline()))

        yield run
        server.stdin.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_scenes: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("made")
    simulate_scenes(
        folder / "raw", from_overrides(SceneConfig, [*small_scenes, "train=1", "val=0", "test=0"])
    )
    ingest(folder / "raw", folder / "store", read_manifest("simulated"), workers=1)
    voxelize(folder / "store", num_bins=4, codec="zstd", workers=1)
    return folder


@pytest.fixture
def scene(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    """A copy, of what the case's command is about, that a test may spoil, beside a folder with a file."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    for place in ("raw", "store"):
        if name not in CASES or place.upper() in CASES[name].command:
            shutil.copytree(made / place, tmp_path / place)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "sentinel").write_text("untouched")
    return Scene(tmp_path, tmp_path / "raw", tmp_path / "store", tmp_path / "outside")


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and bytes of everything below a folder."""
    paths = [
        path for path in folder.rglob("*") if not path.is_symlink() and (path.is_file() or path.is_dir())
    ]
    small = [path for path in paths if path.stat().st_size < 1 << 22]
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in small}


FIGURES: list[Ended] = []


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_bounds(
    name: str, scene: Scene, confined: Callable[[list[str], Scene], Ended]
) -> None:
    case = CASES[name]
    case.spoil(scene)
    places = {"RAW": scene.raw, "STORE": scene.store, "OUT": scene.folder / "new", "MANIFEST": scene.manifest}
    words = case.command
    for place, path in places.items():
        words = words.replace(place, str(path))
    before = state_of(scene.raw), state_of(scene.outside)
    ended = confined(words.split(), scene)
    told = f"code {ended.code} after {ended.seconds:.1f} s with {ended.peak >> 20} MiB\n{ended.err[:3000]}"
    assert ended.code == case.code, told
    assert "Traceback" not in ended.err and "this is a bug" not in ended.err and len(ended.err) < 20_000, told
    assert case.code == 0 or ended.err.count("error: ") == 1, told
    for word in case.words:
        assert str(places.get(word, word)) in ended.err, told
    assert ended.touched == "", ended.touched
    assert (state_of(scene.raw), state_of(scene.outside)) == before
    assert ended.seconds < MOST_SECONDS and ended.peak < MOST_BYTES, told
    FIGURES.append(ended)


def test_what_is_touched_outside_would_be_seen(
    scene: Scene, confined: Callable[[list[str], Scene], Ended]
) -> None:
    shutil.copy(scene.stream, scene.outside / "a.dat")
    ended = confined(["inspect", str(scene.outside / "a.dat")], scene)
    assert "open" in ended.touched and str(scene.outside / "a.dat") in ended.touched


def test_figures(campaign: Callable[..., str]) -> None:
    """What the cases above took, of those that were run in this process."""
    if not FIGURES:
        pytest.skip("none of the cases was run before this")
    slowest, largest = max(one.seconds for one in FIGURES), max(one.peak for one in FIGURES)
    refused = sum(one.code != 0 for one in FIGURES)
    campaign("hostile", n=len(FIGURES), refused=refused, slowest_s=round(slowest, 2), most_mib=largest >> 20)


# Names, changes while it runs, media that cannot be written


def test_names_that_are_no_text_are_read_and_told(
    scene: Scene, confined: Callable[[list[str], Scene], Ended]
) -> None:
    """A file name is bytes; these hold an escape sequence for terminals, too, which is not passed on."""
    odd = os.fsencode(scene.sequence) + b"\xff\x1b[31m"
    os.rename(scene.sequence, odd)
    ended = confined(["ingest", str(scene.raw), "-o", str(scene.folder / "new"), "-m", "simulated"], scene)
    assert ended.code == 1 and "cannot be the name of a group" in ended.err and "\x1b" not in ended.err, ended
    ended = confined(["inspect", os.fsdecode(odd + b"/spikes.dat")], scene)
    assert "this is a bug" not in ended.err and "\x1b" not in ended.err + ended.out, ended


@pytest.mark.parametrize("change", ["grows", "shrinks"])
def test_a_stream_that_changes_after_it_was_examined_is_refused(
    change: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipeline.ingest.sequence_jobs

    def late(*arguments: Any) -> Any:
        jobs = real(*arguments)
        size = scene.stream.stat().st_size
        os.truncate(scene.stream, size + (288 if change == "grows" else -288))
        return jobs

    monkeypatch.setattr(pipeline.ingest, "sequence_jobs", late)
    with pytest.raises(SpkError, match=r"spikes\.dat.*(a moment ago|64 were declared)"):
        ingest(scene.raw, scene.folder / "new", read_manifest("simulated"), workers=1)
    with pytest.raises(SpkError, match="did not finish"):
        open_store(scene.folder / "new")


@pytest.fixture
def read_only(scene: Scene) -> Iterator[Path]:
    """The recordings, mounted a second time without the right to write, which binds root as well."""
    place = scene.folder / "mounted"
    place.mkdir()
    mount = ["mount", "--bind", str(scene.raw), str(place)]
    done = subprocess.run(mount, capture_output=True, text=True) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip(f"a read-only mount needs root: {done.stderr if done else 'not root'}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_recordings_are_only_ever_read(
    read_only: Path, scene: Scene, confined: Callable[[list[str], Scene], Ended]
) -> None:
    before = state_of(scene.raw)
    with pytest.raises(OSError):
        (read_only / "a").touch()
    for words in (
        ["ingest", str(read_only), "-o", str(scene.folder / "new"), "-m", "simulated"],
        ["ingest", str(read_only), "-o", str(scene.folder / "new"), "-m", "simulated", "--overwrite"],
        ["inspect", str(read_only / FIRST / "spikes.dat")],
    ):
        ended = confined(words, scene)
        assert ended.code in (0, 1) and "Read-only" not in ended.err, ended
    assert open_store(scene.folder / "new").name == "simulated"
    assert state_of(scene.raw) == before


# Checkpoints


def pickled(path: Path, ran: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Runs(ran)}))


def zipped_pickle(path: Path, ran: Path) -> None:
    """What torch.save writes, with a pickle that runs."""
    path.write_bytes(
        npz_of(("archive/data.pkl", pickle.dumps({"a": Runs(ran)})), ("archive/version", b"3\n"))
    )


def safetensors_of(length: int, header: bytes) -> Callable[[Path, Path], object]:
    return lambda path, _: path.write_bytes(struct.pack("<Q", length) + header)


TENSOR = b'{"a":{"dtype":"F32","shape":[1000000000000000],"data_offsets":[0,4000000000000000]}}'
DEEP = b'{"__metadata__":{"spk":"' + b"[" * 50_000 + b'"}}'
WEIGHTS = {
    "a pickle.pth": pickled,
    "a zip with a pickle.pth": zipped_pickle,
    "a pickle.safetensors": pickled,
    "a header without end.safetensors": safetensors_of((1 << 64) - 1, b"{}"),
    "a header of gigabytes.safetensors": safetensors_of(1 << 33, b"{}"),
    "tensors of petabytes.safetensors": safetensors_of(len(TENSOR), TENSOR),
    "a pipe.safetensors": lambda path, _: os.mkfifo(path),
    "a pipe.pth": lambda path, _: os.mkfifo(path),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_refused_and_run_nothing(name: str, tmp_path: Path) -> None:
    from model.checkpoint import load_network
    from model.weights import read_weights

    path, ran = tmp_path / name, tmp_path / "ran"
    WEIGHTS[name](path, ran)
    for read in (read_weights, load_network):
        with pytest.raises(CheckpointError, match=name):
            read(path)
    assert not ran.exists()


def test_a_checkpoint_whose_header_is_lists_in_lists_is_refused(tmp_path: Path) -> None:
    from model.checkpoint import load_network

    safetensors_of(len(DEEP), DEEP)(tmp_path / "a.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_network(tmp_path / "a.safetensors")
