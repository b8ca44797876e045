"""CIFAR-10: BPrune's scaling, pickles of Python 2 and 3, and nothing that a pickle asks to run."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from bprune_hpc import data
from bprune_hpc.errors import DataError

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]
RNG = np.random.default_rng(4)
BATCHES = {
    name: (RNG.integers(0, 256, (n, 3072), np.uint8), RNG.integers(0, 10, n).tolist())
    for name, n in zip([*TRAIN, "test_batch"], (3, 2, 4, 2, 3, 5), strict=True)
}
Dumps = Callable[[Any], bytes]


class Python2(pickle._Pickler):  # type: ignore[misc]
    """Writes what Python 2's cPickle wrote at protocol 2: all texts as byte strings."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_string(self, text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_string


def python2(value: Any) -> bytes:
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def python3(protocol: int) -> Dumps:
    return lambda value: pickle.dumps(value, protocol)


def batch(name: str, **changes: Any) -> dict[str, Any]:
    images, labels = BATCHES[name]
    found = {
        "batch_label": f"{name} of 6", "labels": labels, "data": images,
        "filenames": [f"image_{i}.png" for i in range(len(labels))],
    }  # fmt: skip
    return {key: value for key, value in {**found, **changes}.items() if value is not None}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """All six batches as Python 2 wrote them."""
    found = tmp_path / "cifar-10-batches-py"
    found.mkdir()
    for name in BATCHES:
        (found / name).write_bytes(python2(batch(name)))
    return found


def images_of(*names: str) -> np.ndarray:
    """One value after the other: channel, row and column of each image, over 255."""
    raw = np.concatenate([BATCHES[name][0] for name in names])
    x = np.empty((len(raw), 32, 32, 3), np.float64)
    for channel in range(3):
        for row in range(32):
            start = channel * 1024 + row * 32
            x[:, row, :, channel] = raw[:, start : start + 32] / 255
    return x


def test_both_halves(directory: Path) -> None:
    for split, names in (("test", ["test_batch"]), ("train", TRAIN)):
        for dataset, place in (("cifar10", directory), ("auto", directory.parent)):
            found = data.load(dataset, str(place), split)
            assert (found.name, found.x.dtype, found.y.dtype) == ("cifar10", np.float32, np.int64)
            np.testing.assert_array_equal(found.x, images_of(*names).astype(np.float32))
            assert found.y.tolist() == [label for name in names for label in BATCHES[name][1]]
            assert found.sha256 == {
                str(directory / name): hashlib.sha256((directory / name).read_bytes()).hexdigest()
                for name in names
            }


def test_the_training_sets_mean_image_is_subtracted_from_both_halves(directory: Path) -> None:
    train = images_of(*TRAIN)
    for split, images in (("test", images_of("test_batch")), ("train", train)):
        found = data.load("cifar10", str(directory), split, subtract_pixel_mean=True)
        np.testing.assert_allclose(found.x, images - train.mean(axis=0), atol=1e-7)
        assert set(TRAIN) <= {Path(name).name for name in found.sha256}
    without = data.load("cifar10", str(directory))
    assert without.x.min() >= 0


def test_the_mean_of_other_data_is_not_subtracted(caplog: pytest.LogCaptureFixture) -> None:
    np.testing.assert_array_equal(data.load(subtract_pixel_mean=True).x, data.load().x)
    assert "--subtract_pixel_mean applies to cifar10, not to digits" in caplog.text


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("key", [str, str.encode], ids=["text", "bytes"])
def test_pickles_of_python_3(directory: Path, protocol: int, key: Callable[[str], Any]) -> None:
    changed = {key(name): value for name, value in batch("test_batch").items()}
    changed[key("labels")] = np.array(BATCHES["test_batch"][1], ">i4")
    changed[key("data")] = np.asfortranarray(BATCHES["test_batch"][0])
    (directory / "test_batch").write_bytes(pickle.dumps(changed, protocol))
    found = data.load("cifar10", str(directory))
    np.testing.assert_array_equal(found.x, images_of("test_batch").astype(np.float32))
    assert found.y.tolist() == BATCHES["test_batch"][1]


class Runs:
    """What a malicious file holds: a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_runs(directory: Path, tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "was here"
    for function, arguments, name in (
        (os.mkdir, (str(mark),), r"(posix|nt)\.mkdir"),
        (exec, (f"open({str(mark)!r}, 'w')",), r"(builtins|__builtin__)\.exec"),
        (np.load, (str(mark),), r"numpy\.load"),
        (np.fromfile, (str(mark),), r"numpy(\._core\.multiarray)?\.fromfile"),
        (getattr, (1, "real"), r"(builtins|__builtin__)\.getattr"),
    ):
        for place in ("data", "extra"):
            content = pickle.dumps(batch("test_batch", **{place: Runs(function, *arguments)}),
                                   protocol)  # fmt: skip
            (directory / "test_batch").write_bytes(content)
            with pytest.raises(DataError, match=f"asks for '{name}', which no batch") as caught:
                data.load("cifar10", str(directory))
            assert "\n" not in str(caught.value)
    assert not mark.exists()


def hostile() -> dict[str, bytes]:
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n"
    return {
        # {'__code__': ...} set on a function; a mean of changing what a name stands for
        "state for a function": b"\x80\x02" + reconstruct + b"N}U\x08__code__K\x01s\x86b.",
        "remembers value 4294967280": b"\x80\x02K\x01r\xf0\xff\xff\xff.",
        "more than 1000 tuples": b"\x80\x02}K\x01" + b"\x85" * 2000 + b"K\x01s.",
        "an array of type": b"\x80\x02cnumpy\ndtype\nU\x02O8\x85R.",
        "bytes encoded as": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aU\x04utf8\x86R.",
        "asks for 'evil.*.run'": b"\x80\x04\x8c\x04evil\x8c\x03run\x93)R.",
        "persistent": b"\x80\x02K\x01Q.",
        "extension": b"\x80\x02\x82\x01.",
        "holds no dictionary": b"\x80\x02]q\x01.",
        "no pickle": b"label,pixel\n1,2\n",
        "pickle exhausted": b"",
    }


@pytest.mark.parametrize("finding", hostile())
def test_hostile_bytes(directory: Path, finding: str) -> None:
    (directory / "test_batch").write_bytes(hostile()[finding])
    with pytest.raises(DataError, match=finding) as caught:
        data.load("cifar10", str(directory))
    assert "\n" not in str(caught.value)


IMAGES, LABELS = BATCHES["test_batch"]


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"data": None}, "has the keys batch_label, labels, filenames; needs 'data' and 'labels'"),
        ({"labels": None, "fine_labels": [1]}, "filenames, fine_labels; needs"),
        ({"data": IMAGES.astype(np.int16)}, "'data' is not a uint8 array"),
        ({"data": [1, 2]}, "'data' is not a uint8 array"),
        ({"data": IMAGES[:, 1:]}, r"'data' has shape \(5, 3071\); needs \(n, 3072\)"),
        ({"data": IMAGES[:0], "labels": []}, r"'data' has shape \(0, 3072\)"),
        ({"labels": LABELS[:4]}, r"5 images have labels of shape \(4,\)"),
        ({"labels": [1, 2, 10, 3, 4]}, "label 10 of image 2 is not in 0 to 9"),
        ({"labels": [1, 2, 3, -1, 4]}, "label -1 of image 3 is not in 0 to 9"),
        ({"labels": [1, 2, 3, 1.5, 4]}, "'labels' are not all integers"),
        ({"labels": "12345"}, "labels of shape"),
    ],
)
def test_what_is_wrong_with_a_batch(directory: Path, changes: Any, finding: str) -> None:
    file = directory / "test_batch"
    file.write_bytes(python2(batch("test_batch", **changes)))
    with pytest.raises(DataError, match=f"^{re.escape(str(file))}.*{finding}") as caught:
        data.load("cifar10", str(directory))
    assert "\n" not in str(caught.value)


def test_absent_and_truncated_files(directory: Path) -> None:
    whole = (directory / "data_batch_2").read_bytes()
    for n_bytes in (1, 100, len(whole) - 1):
        (directory / "data_batch_2").write_bytes(whole[:n_bytes])
        with pytest.raises(DataError, match=r"data_batch_2: no pickle, or a damaged one \("):
            data.load("cifar10", str(directory), "train")
    (directory / "data_batch_2").unlink()
    with pytest.raises(DataError, match="data_batch_2: no such file"):
        data.load("cifar10", str(directory), "train")
    data.load("cifar10", str(directory))  # the other half is whole
    with pytest.raises(DataError, match="data_batch_2: no such file"):
        data.load("cifar10", str(directory), subtract_pixel_mean=True)
    archive = directory / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(DataError, match=r"is a file; unpack it and give the directory"):
        data.load("cifar10", str(archive))


def test_flipped_bits_give_one_line_or_a_valid_batch(directory: Path) -> None:
    file = directory / "test_batch"
    whole = file.read_bytes()
    start = whole.index(IMAGES.tobytes())
    rng = np.random.default_rng(1)
    structure = [i for i in range(len(whole)) if not start <= i < start + IMAGES.nbytes]
    n_refused = 0
    for i in rng.choice(structure, 300, replace=False):
        changed = bytearray(whole)
        changed[i] ^= 1 << rng.integers(8)
        file.write_bytes(changed)
        try:
            assert data.load("cifar10", str(directory)).x.shape == (5, 32, 32, 3)
        except DataError as error:
            n_refused += 1
            assert "\n" not in str(error)
    assert n_refused > 100
