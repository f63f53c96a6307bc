"""How fast ingestion is, against pydicom and Pillow in one thread; how it grows with workers; how much memory it takes.

    .venv/bin/python benchmarks/ingest.py speed     images/s of one core, by format, against the plain way
    .venv/bin/python benchmarks/ingest.py workers   images/s of one and of two Ray workers
    .venv/bin/python benchmarks/ingest.py memory    peak memory of 2,000 and of 20,000 images

Everything is made by the script, from drawn radiographs. Compare numbers of one run only: shared machines are noisy.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import PIL.Image
import psutil
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from chexray.platform.config import IngestConfig
from chexray.platform.corpus.pair_reader import PairReader
from chexray.platform.corpus.schema import SourcePair
from chexray.platform.corpus.synthetic.cohort import SyntheticConfig
from chexray.platform.corpus.synthetic.dataset import write_dataset

HEIGHT, WIDTH, SHORT_SIDE = 2500, 2048, 512
FORMATS = ("dicom 12 bit", "dicom jpeg", "jpeg", "png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "workers", "memory"])
    parser.add_argument("--images", type=int, default=24, help="of each format (speed)")
    parser.add_argument("--rounds", type=int, default=5, help="of each way, in turn (speed, workers)")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="chexray-benchmark-") as name:
        run = {"speed": speed, "workers": workers, "memory": memory}[arguments.what]
        run(Path(name), arguments)


def speed(folder: Path, arguments: argparse.Namespace) -> None:
    sources = {form: _write_images(folder, form, arguments.images) for form in FORMATS}
    reader = PairReader(str(folder), IngestConfig(short_side=SHORT_SIDE), "a salt of benchmarks")
    print(f"{arguments.images} images of {HEIGHT} x {WIDTH}, {arguments.rounds} rounds, one thread")
    for form, pairs in sources.items():
        plain, ours = [], []
        for _ in range(arguments.rounds):
            plain.append(_rate(lambda pair: _plain(folder / pair.image), pairs))
            ours.append(_rate(lambda pair: reader.read(pair, "train"), pairs))
        ratios = [b / a for a, b in zip(plain, ours, strict=True)]
        print(
            f"{form:14s} plain {statistics.median(plain):6.1f}/s  chexray {statistics.median(ours):6.1f}/s  "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def workers(folder: Path, arguments: argparse.Namespace) -> None:
    """Rates between the first and the last finished shard, so that starting Ray and importing do not count."""
    pairs = _write_images(folder, "dicom 12 bit", 8)
    count = 480
    for number in range(len(pairs), count):
        os.link(folder / pairs[number % len(pairs)].image, folder / f"copy-{number}.dcm")
    names = [pair.image for pair in pairs] + [f"copy-{n}.dcm" for n in range(len(pairs), count)]
    (folder / "pairs.csv").write_text("path,report\n" + "".join(f"{name},Normal chest {name}.\n" for name in names))
    efficiencies = []
    for number in range(arguments.rounds):
        rates = [_ingest_rate(folder, number, cpus) for cpus in (1, 2)]
        efficiencies.append(rates[1] / rates[0] / 2)
        print(f"round {number}: 1 worker {rates[0]:.1f}/s, 2 workers {rates[1]:.1f}/s, {efficiencies[-1]:.0%}")
    print(f"parallel efficiency: median {statistics.median(efficiencies):.0%}")


def memory(folder: Path, arguments: argparse.Namespace) -> None:
    """Proportional set size of the driver and all of Ray, sampled four times a second; with the search for copies."""
    peaks = []
    for count in (2_000, 20_000):
        root = folder / str(count)
        root.mkdir()
        for number in range(count):
            (root / f"{number}.jpg").write_bytes(_jpeg(_one_of_its_kind(number)))
        lines = "".join(f"{n}.jpg,Normal chest number {n}. No effusion.\n" for n in range(count))
        (root / "pairs.csv").write_text("path,report\n" + lines)
        peaks.append(_peak(_ingest_command(root, folder / f"corpus-{count}", 2, "drop")))
        print(f"{count} images: peak {peaks[-1] / 2**20:.0f} MiB")
    print(f"growth: {peaks[1] / peaks[0] - 1:+.1%}")


def _plain(path: Path) -> tuple[bytes, str, str]:
    """The same work as pydicom, Pillow and ImageHash document it: display pixels, small, encoded, and two hashes."""
    data = path.read_bytes()
    if path.suffix == ".dcm":
        dataset = pydicom.dcmread(io.BytesIO(data))
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
        values = (values - values.min()) / (values.max() - values.min()) * 255
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            values = 255 - values
        pixels = np.rint(values).astype(np.uint8)
    else:
        pixels = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("L"))
    scale = SHORT_SIDE / min(pixels.shape)
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    image = PIL.Image.fromarray(pixels)
    small = image.resize(size, PIL.Image.Resampling.BICUBIC)
    return _encoded(small), hashlib.sha256(pixels).hexdigest(), str(imagehash.phash(small, hash_size=16))


def _encoded(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _rate(work: Callable[[SourcePair], object], pairs: list[SourcePair]) -> float:
    started = time.perf_counter()
    for pair in pairs:
        work(pair)
    return len(pairs) / (time.perf_counter() - started)


def _ingest_command(root: Path, out: Path, cpus: int, duplicates: str) -> list[str]:
    code = (
        "import ray.data; "
        # A Ray of one logical CPU has a spare one for training; the limit is on what reads and writes pairs.
        "options = ray.data.DataContext.get_current().execution_options; "
        f"options.resource_limits = options.resource_limits.copy(cpu={cpus}); "
        "from chexray.jobs.ingest import ingest; from chexray.platform.config import Runtime, load_recipe; "
        f"ingest(load_recipe('tiny', ['ingest.shard_pairs=40', 'ingest.duplicates={duplicates}']), 'folder', "
        f"{str(root)!r}, "
        f"{str(out)!r}, {{'csv': 'pairs.csv'}}, Runtime(cpus={cpus}))"
    )
    return [sys.executable, "-c", code]


def _ingest_rate(root: Path, number: int, cpus: int) -> float:
    with tempfile.TemporaryDirectory(prefix="chexray-benchmark-") as out:
        subprocess.run(_ingest_command(root, Path(out) / "corpus", cpus, "keep"), check=True, capture_output=True)
        files = sorted((Path(out) / "corpus" / "shards").glob("*.parquet"), key=lambda file: file.stat().st_mtime)
        times = [file.stat().st_mtime for file in files]
        # The first shards of all workers hold their imports.
        return 40 * (len(files) - cpus) / (times[-1] - times[cpus - 1])


def _peak(command: list[str]) -> int:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak, stop = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not stop.wait(0.25):
            peak = max(peak, _tree_bytes(process.pid))

    thread = threading.Thread(target=sample)
    thread.start()
    if process.wait():
        raise SystemExit(f"ingestion failed: {json.dumps(command)}")
    stop.set()
    thread.join()
    return peak


def _tree_bytes(pid: int) -> int:
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _write_images(folder: Path, form: str, count: int) -> list[SourcePair]:
    pairs = []
    for number in range(count):
        pixels = _drawn(number, HEIGHT, WIDTH)
        name = f"{form.replace(' ', '-')}-{number}"
        if form == "png":
            PIL.Image.fromarray(pixels).save(folder / f"{name}.png")
            name += ".png"
        elif form == "jpeg":
            (folder / f"{name}.jpg").write_bytes(_jpeg(pixels))
            name += ".jpg"
        else:
            _write_dicom(folder / f"{name}.dcm", pixels, compressed=form == "dicom jpeg")
            name += ".dcm"
        pairs.append(SourcePair("made", name, name, f"p{number}", f"s{number}", report="Normal chest."))
    return pairs


_drawings: list[np.ndarray] = []


def _drawn(number: int, height: int, width: int) -> np.ndarray:
    """A drawn radiograph, enlarged, with a little noise of its own."""
    if not _drawings:
        with tempfile.TemporaryDirectory() as name:
            write_dataset(Path(name), SyntheticConfig(pairs=20, size=256, seed=3, image_format="png"), workers=1)
            for file in sorted(Path(name).glob("images/*.png")):
                try:
                    _drawings.append(np.asarray(PIL.Image.open(file).convert("L")))
                except OSError:  # the synthetic dataset has damaged files too
                    continue
    base = PIL.Image.fromarray(_drawings[number % len(_drawings)]).resize((width, height), PIL.Image.Resampling.BICUBIC)
    noise = np.random.default_rng(number).normal(0, 3, (height, width))
    return np.clip(np.asarray(base) + noise, 0, 255).astype(np.uint8)


def _one_of_its_kind(number: int) -> np.ndarray:
    """320 x 320 pixels that resemble no other number's."""
    coarse = np.random.default_rng(number).integers(0, 256, (12, 12)).astype(np.uint8)
    return np.asarray(PIL.Image.fromarray(coarse).resize((320, 320), PIL.Image.Resampling.BICUBIC))


def _jpeg(pixels: np.ndarray) -> bytes:
    return _encoded(PIL.Image.fromarray(pixels))


def _write_dicom(path: Path, pixels: np.ndarray, compressed: bool) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if compressed else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelRepresentation = 0
    if compressed:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = pydicom.encaps.encapsulate([_jpeg(pixels)])
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.WindowCenter, dataset.WindowWidth = 2048, 3600
        dataset.PixelData = (pixels.astype(np.uint16) * 16).tobytes()
    dataset.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    main()
