"""Five hundred damaged inputs, made from small sound ones by a seed: what bad disks, networks, tools and people do."""

from __future__ import annotations

import csv
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydicom
from corpora import blobs, encoded
from dicom_files import encapsulated, radiograph, written
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

CSV = "pairs.csv"
SOUND_REPORT = "No acute finding number {}. The heart is of normal size."


def write_hostile_dataset(root: Path, seed: int) -> int:
    """Write a folder dataset of damaged pairs below `root`. Returns how many rows its CSV has."""
    rng = random.Random(seed)
    rows: list[tuple[str, str]] = []
    for number, (name, data) in enumerate(_damaged_files(rng)):
        path = f"files/{number:03d}-{name}"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        rows.append((path, SOUND_REPORT.format(number)))
    rows += [(path, SOUND_REPORT.format(f"path {n}")) for n, path in enumerate(_path_tricks(root))]
    rows += list(_report_tricks(root))
    with (root / CSV).open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "report"])
        writer.writerows(rows)
    return len(rows)


def sound_files() -> dict[str, bytes]:
    """One file of every kind, of 70 x 90 pixels."""
    pixels = blobs(0, 70, 90)
    words = (pixels.astype(np.uint16) * 16) | 5
    chest = {"Modality": "DX", "BodyPartExamined": "CHEST"}
    window = {**chest, "WindowCenter": "2000", "WindowWidth": "3000"}
    narrow = {**chest, "WindowCenter": "125", "WindowWidth": "190"}
    native = radiograph(words, **window)
    rle = radiograph(words, **window)
    rle.compress(RLELossless, encoding_plugin="pydicom")
    jpeg = encapsulated(radiograph(pixels, **narrow), JPEGBaseline8Bit, encoded(pixels, "JPEG", quality=90))
    jpeg2000 = encapsulated(radiograph(pixels, **narrow), JPEG2000Lossless, encoded(pixels, "JPEG2000", no_jp2=True))
    return {
        "a.png": encoded(pixels),
        "a.jpg": encoded(pixels, "JPEG", quality=90),
        "a.tif": encoded(pixels, "TIFF", compression="tiff_lzw"),
        "a.bmp": encoded(pixels, "BMP"),
        "native.dcm": written(native),
        "rle.dcm": written(rle),
        "jpeg.dcm": written(jpeg),
        "jpeg2000.dcm": written(jpeg2000),
    }


def _damaged_files(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    sound = sound_files()
    for name, data in sound.items():
        for _ in range(32):
            yield f"flipped-{name}", _flip(data, rng, rng.choice([1, 1, 3, 20]))
        for _ in range(16):
            yield f"cut-{name}", data[: rng.randrange(len(data))]
        for _ in range(4):
            start = rng.randrange(len(data))
            yield f"zeroed-{name}", data[:start] + bytes(min(64, len(data) - start)) + data[start + 64 :]
        yield f"doubled-{name}", data + data
    for name, change in _WRONG_TAGS.items():
        dataset = radiograph((blobs(0, 70, 90).astype(np.uint16) * 16) | 5, WindowCenter="2000", WindowWidth="3000")
        change(dataset)
        yield f"{name}-native.dcm", _written_anyhow(dataset)
    yield from _bombs()


def _flip(data: bytes, rng: random.Random, bits: int) -> bytes:
    changed = bytearray(data)
    for _ in range(bits):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(**elements: Any) -> Callable[[pydicom.Dataset], None]:
    def change(dataset: pydicom.Dataset) -> None:
        for name, value in elements.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)

    return change


_WRONG_TAGS: dict[str, Callable[[pydicom.Dataset], None]] = {
    "rows-huge": _set(Rows=65535, Columns=65535),
    "rows-more": _set(Rows=71),
    "rows-zero": _set(Rows=0),
    "rows-none": _set(Rows=None),
    "columns-none": _set(Columns=None),
    "bits-12-allocated": _set(BitsAllocated=12),
    "bits-stored-17": _set(BitsStored=17),
    "bits-stored-0": _set(BitsStored=0),
    "high-bit-99": _set(HighBit=99),
    "signed-2": _set(PixelRepresentation=2),
    "samples-3": _set(SamplesPerPixel=3),
    "colour": _set(PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0),
    "photometric-none": _set(PhotometricInterpretation=None),
    "photometric-odd": _set(PhotometricInterpretation="MONOCHROME7"),
    "frames-5": _set(NumberOfFrames="5"),
    "frames-odd": _set(NumberOfFrames="-3"),
    "window-zero": _set(WindowWidth="0"),
    "window-negative": _set(WindowWidth="-5"),
    "window-none": _set(WindowWidth=None),
    "slope-zero": _set(RescaleSlope="0", RescaleIntercept="0"),
    "slope-huge": _set(RescaleSlope="1e300", RescaleIntercept="1e300"),
    "padding-odd": _set(PixelPaddingValue=65535),
    "modality-ct": _set(Modality="CT"),
    "body-hand": _set(Modality="DX", BodyPartExamined="HAND"),
    "pixels-none": _set(PixelData=None),
    "pixels-empty": _set(PixelData=b""),
    "rle-said-native": lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", RLELossless),
    "jpeg-said-native": lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", JPEGBaseline8Bit),
    "syntax-unknown": lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", "1.2.3.4.5"),
}


def _written_anyhow(dataset: pydicom.Dataset) -> bytes:
    """The file as a careless tool writes it: pydicom's own checks would refuse some."""
    with pydicom.config.disable_value_validation():
        writer = pydicom.filebase.DicomBytesIO()
        writer.is_little_endian, writer.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(writer, dataset)
        return _start(dataset) + bytes(writer.getvalue())


def _start(dataset: pydicom.Dataset) -> bytes:
    """What comes before the dataset in its file (PS3.10 7.1)."""
    meta = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(meta, dataset.file_meta, enforce_standard=False)
    return bytes(128) + b"DICM" + meta.getvalue()


def _bombs() -> Iterator[tuple[str, bytes]]:
    yield "sides.png", _png(30_000, 30_000, zlib.compress(bytes(30_000)))
    yield "rows.png", _png(60_000, 1_000, zlib.compress(bytes(2**24), 9))
    yield "text.png", _png(70, 90, zlib.compress(bytes(91 * 70)), (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28), 9)))
    deflated = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join([*(deflated.compress(bytes(2**24)) for _ in range(128)), deflated.flush()])
    dataset = radiograph(blobs(0, 70, 90))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    yield "deflated.dcm", _start(dataset) + bomb
    yield "zip.png", b"PK\x03\x04" + zlib.compress(bytes(2**26), 9)
    buffer = io.BytesIO()
    PIL.Image.new("L", (20_000, 20_000)).save(buffer, "TIFF", compression="tiff_adobe_deflate")
    yield "wide.tif", buffer.getvalue()
    yield "empty.png", b""
    yield "text.dcm", bytes(128) + b"DICM"


def _png(width: int, height: int, data: bytes, extra: tuple[bytes, bytes] | None = None) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))]
    parts += [chunk(*extra)] if extra else []
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def _path_tricks(root: Path) -> Iterator[str]:
    """Paths that lead elsewhere, or nowhere. The secret lies beside the root."""
    (root.parent / "secret.png").write_bytes(encoded(blobs(77, 70, 90)))
    links = root / "links"
    links.mkdir()
    (links / "loop").symlink_to(links / "loop")
    (links / "a").symlink_to(links / "b")
    (links / "b").symlink_to(links / "a")
    (links / "up").symlink_to(root)
    (links / "out.png").symlink_to(root.parent / "secret.png")
    (links / "beside").symlink_to(root.parent)
    (links / "passwd.png").symlink_to("/etc/passwd")
    (links / "folder.png").mkdir()
    yield from ("links/loop", "links/a", "links/up", "links/out.png", "links/beside/secret.png", "links/passwd.png")
    yield from ("links/folder.png", "links/up/links/up/links/out.png", ".", "", " ", "files", "nowhere.png")
    yield from ("../secret.png", "files/../../secret.png", "/etc/passwd", "//etc/passwd", "~/secret.png", "..")
    yield from ("C:\\secret.png", "..\\secret.png", "file:///etc/passwd", "s3://bucket/secret.png", "http://x/y.png")
    yield from (
        "files/\x00.png",
        "files/" + "x" * 300 + ".png",
        "a/" * 3000,
        "files/%2e%2e/secret.png",
        "nul",
        "\u202egnp.x",
    )


def _report_tricks(root: Path) -> Iterator[tuple[str, str]]:
    """Sound images, each its own, with reports that are not."""
    texts = [
        "word " * 20_000,
        "x" * 100_000,
        "FINDINGS: " * 10_000,
        "(" * 100_000,
        "___ " * 25_000,
        "",
        " ",
        "\ufeff",
        "\u200b\u200b",
        "12 34",
        "XXXX XXXX",
        "opacit\udce9 basale",
        "Opacit\u00e0 basale destra.",
        "\u80ba\u708e",
        "\u202eright to left opacity",
        "opacity \U0001fac1",
        "a\x00b opacity",
        "line\r\nbreaks\rand\ttabs opacity",
        "=cmd|' /C calc'!A0 opacity",
        "<script>alert(1)</script> opacity",
    ]
    for number, text in enumerate(texts):
        path = f"reports/{number}.png"
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(encoded(blobs(1000 + number, 70, 90)))
        yield path, text
