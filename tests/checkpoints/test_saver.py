"""Finding and reading checkpoints: names, both formats, and every kind of damage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc.checkpoints import saver as checkpoint
from bprune_hpc.checkpoints import saver_index
from bprune_hpc.errors import CheckpointError
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.robustness.fuzz_index import write_index


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Two checkpoints of two variables, steps 3 and 20; gives the directory."""
    _save(tmp_path, steps=(3, 20))
    return tmp_path


def _save(directory: Path, steps: tuple[int, ...], version: int = 2, sharded: bool = False) -> None:
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable("kernel", initializer=np.arange(6, dtype=np.float32).reshape(2, 3))
        tf1.get_variable("count", initializer=np.int64(9), use_resource=False)
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(write_version=version, sharded=sharded)
        for step in steps:
            saver.save(session, str(directory / "model.ckpt"), global_step=step)


@pytest.mark.parametrize("name", ["model.ckpt-3", "model.ckpt-3.meta", "model.ckpt-3.index"])
def test_name_with_any_suffix(saved: Path, name: str) -> None:
    assert checkpoint.find_checkpoint(saved, name) == saved / "model.ckpt-3"


def test_newest_comes_from_the_listing_by_base_name(saved: Path) -> None:
    listing = saved / "checkpoint"
    listing.write_text('model_checkpoint_path: "/lustre/gone/model.ckpt-3"\n')
    assert checkpoint.find_checkpoint(saved).name == "model.ckpt-3"


def test_highest_step_without_a_listing(saved: Path) -> None:
    (saved / "checkpoint").unlink()
    assert checkpoint.find_checkpoint(saved).name == "model.ckpt-20"  # not by alphabet


@pytest.mark.parametrize("version", [1, 2])
def test_reads_both_formats(tmp_path: Path, version: int) -> None:
    _save(tmp_path, steps=(5,), version=version)
    prefix = checkpoint.find_checkpoint(tmp_path, "model.ckpt-5")
    assert checkpoint.CheckpointReader(prefix).types == {
        "count": ((), "int64"),
        "kernel": ((2, 3), "float32"),
    }
    values = checkpoint.read_variables(prefix, ["kernel", "count"])
    np.testing.assert_array_equal(values["kernel"], np.arange(6).reshape(2, 3))
    assert values["count"] == 9


def test_sha256_is_that_of_the_files(saved: Path) -> None:
    prefix = saved / "model.ckpt-3"
    digests = checkpoint.file_sha256(checkpoint.checkpoint_files(prefix))
    assert set(digests) == {
        "model.ckpt-3.meta",
        "model.ckpt-3.index",
        "model.ckpt-3.data-00000-of-00001",
    }
    for name, digest in digests.items():
        assert digest == hashlib.sha256((saved / name).read_bytes()).hexdigest()


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such directory; check the path"):
        checkpoint.find_checkpoint(tmp_path / "nowhere")


def test_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.find_checkpoint(tmp_path)


def test_no_such_checkpoint_lists_what_there_is(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no 'model.ckpt-4'.*found: model.ckpt-20, model.ck"):
        checkpoint.find_checkpoint(saved, "model.ckpt-4")


def test_listing_that_names_what_is_gone(saved: Path) -> None:
    (saved / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-99"\n')
    with pytest.raises(CheckpointError, match=r"no 'model.ckpt-99' .named by 'checkpoint'."):
        checkpoint.find_checkpoint(saved)


def test_listing_without_a_name(saved: Path) -> None:
    (saved / "checkpoint").write_text("\x00\x01")
    with pytest.raises(CheckpointError, match="checkpoint: names no checkpoint"):
        checkpoint.find_checkpoint(saved)


def test_missing_index(saved: Path) -> None:
    (saved / "model.ckpt-20.index").unlink()
    with pytest.raises(CheckpointError, match=r"model.ckpt-20.index is missing"):
        checkpoint.find_checkpoint(saved, "model.ckpt-20")


def test_missing_shard(saved: Path) -> None:
    (saved / "model.ckpt-20.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"model.ckpt-20.data-00000-of-00001: missing shard"):
        checkpoint.find_checkpoint(saved)


def test_missing_shard_of_several(saved: Path) -> None:
    shard = saved / "model.ckpt-20.data-00000-of-00001"
    shard.rename(saved / "model.ckpt-20.data-00000-of-00002")
    with pytest.raises(CheckpointError, match="data-00001-of-00002: missing shard"):
        checkpoint.find_checkpoint(saved)


def test_truncated_shard(saved: Path) -> None:
    shard = saved / "model.ckpt-20.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:12])
    with pytest.raises(CheckpointError, match=r"model.ckpt-20: damaged at 'kernel': .*copy"):
        checkpoint.read_variables(saved / "model.ckpt-20", ["kernel"])


def test_flipped_bit_in_a_shard(saved: Path) -> None:
    shard = saved / "model.ckpt-20.data-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged at .*[Cc]hecksum"):
        checkpoint.read_variables(saved / "model.ckpt-20", ["count", "kernel"])


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_unreadable_index(saved: Path, damage: str) -> None:
    index = saved / "model.ckpt-20.index"
    content = index.read_bytes()
    index.write_bytes({"cut": content[:60], "garbage": b"x" * 300, "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"model.ckpt-20.index: damaged: ") as caught:
        checkpoint.CheckpointReader(saved / "model.ckpt-20")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [(-1, 3), (2**40, 2**40), (2**62,), (1,) * 300])
def test_shape_that_no_tensor_has(saved: Path, sizes: tuple[int, ...]) -> None:
    """The checksums are right; TensorFlow's reader would end the process."""
    _declare(saved / "model.ckpt-20.index", sizes)
    with pytest.raises(CheckpointError, match=r"damaged at 'kernel': it declares .*shape") as no:
        checkpoint.CheckpointReader(saved / "model.ckpt-20")
    assert "\n" not in str(no.value)


def test_shape_beyond_the_shard(saved: Path) -> None:
    _declare(saved / "model.ckpt-20.index", (2**20, 2**20))
    reader = checkpoint.CheckpointReader(saved / "model.ckpt-20")
    assert reader.read(["count"])["count"] == 9
    with pytest.raises(CheckpointError, match=r"damaged at 'kernel': \d+ bytes are declared"):
        reader.read(["kernel"])


def _declare(index: Path, sizes: tuple[int, ...]) -> None:
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

    entries = saver_index.table(index.read_bytes())
    entry = BundleEntryProto.FromString(entries[b"kernel"])
    del entry.shape.dim[:]
    for size in sizes:
        entry.shape.dim.add(size=size)
    index.write_bytes(write_index({**entries, b"kernel": entry.SerializeToString()}))


def test_absent_variable(saved: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"model.ckpt-20: lacks 'bias', which the graph reads"
    ):
        checkpoint.read_variables(saved / "model.ckpt-20", ["kernel", "bias"])


def test_missing_meta(saved: Path) -> None:
    (saved / "model.ckpt-20.meta").unlink()
    with pytest.raises(CheckpointError, match=r"model.ckpt-20.meta: no such file; copy the meta"):
        checkpoint.read_meta_graph(saved / "model.ckpt-20")


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_cut_meta(saved: Path, n_bytes: int) -> None:
    meta = saved / "model.ckpt-20.meta"
    meta.write_bytes(meta.read_bytes()[:n_bytes])
    with pytest.raises(
        CheckpointError, match=r"model.ckpt-20.meta: not a meta graph, or cut short"
    ):
        checkpoint.read_meta_graph(saved / "model.ckpt-20")
