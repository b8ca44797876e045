"""Reading a data set costs its own size as float32, as bytes a quarter more, and little else."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.launch import LIMIT_S, ROOT

N = 8000  # 98 MB as float32

# Peak of the resident memory (kB) over what it was before, and the size of what was read (kB).
MEASURE = """
import sys
from pathlib import Path
from bprune_hpc import data

def status(key):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key))
    return int(line.split()[1])

name, path, split = sys.argv[1:]
data.load("digits")
if name == "tfrecord":
    from bprune_hpc.tensorflow_import import import_tensorflow
    import_tensorflow()
if name == "hdf5":
    import h5py
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
found = data.load(name, path, split)
print(status("VmHWM") - before, found.x.nbytes // 1024)
"""


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), np.uint8)


def npz(place: Path, images: np.ndarray) -> Path:
    np.savez(place / "a.npz", x=images, y=np.zeros(N, int))
    return place / "a.npz"


def npz_of_floats(place: Path, images: np.ndarray) -> Path:
    np.savez(place / "a.npz", x=images.astype(np.float64), y=np.zeros(N, int))
    return place / "a.npz"


def hdf5(place: Path, images: np.ndarray) -> Path:
    with h5py.File(place / "a.h5", "w") as file:
        file.create_dataset("x", data=images, chunks=(500, 32, 32, 3), shuffle=True)
        file["y"] = np.zeros(N, int)
    return place / "a.h5"


def hdf5_of_floats(place: Path, images: np.ndarray) -> Path:
    with h5py.File(place / "a.h5", "w") as file:
        file["x"], file["y"] = images.astype(np.float64), np.zeros(N, int)
    return place / "a.h5"


def cifar10(place: Path, images: np.ndarray) -> Path:
    for i, part in enumerate(np.split(images.reshape(N, -1), 5)):
        batch = {"data": part, "labels": [0] * len(part)}
        (place / f"data_batch_{i + 1}").write_bytes(pickle.dumps(batch, 4))
    return place


def tfrecord(place: Path, images: np.ndarray) -> Path:
    from tests.data import test_tfrecord as tfrecords

    shape = dict(zip(("height", "width", "depth"), ([32], [32], [3]), strict=True))
    contents = (tfrecords.record(0, image_raw=[x.tobytes()], **shape) for x in images)
    tfrecords.save(place / "a.tfrecord", contents)
    return place / "a.tfrecord"


@pytest.mark.slow
@pytest.mark.parametrize("write", [npz, npz_of_floats, hdf5, hdf5_of_floats, cifar10, tfrecord])
def test_peak_of_memory(tmp_path: Path, images: np.ndarray, write) -> None:
    path = write(tmp_path, images)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, write.__name__.split("_")[0], str(path), "train"],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak, size = json.loads(f"[{done.stdout.replace(' ', ',')}]")
    assert size == N * 3072 * 4 // 1024
    as_read = 0 if "floats" in write.__name__ else size // 4
    # A block or two, one batch of CIFAR-10 (here 5 MB), and what an allocator keeps.
    assert peak < size + as_read + 32 * 1024, f"{peak / size:.2f} times the examples' size"
