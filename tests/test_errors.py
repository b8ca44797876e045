"""What a file is blamed for, and what it is not."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bprune_hpc import data, sources
from bprune_hpc.checkpoints import saver
from bprune_hpc.errors import CheckpointError, DataError, damage, is_bug


def _calls_wrongly() -> None:
    hashlib.sha256(no_such_argument=1)  # type: ignore[call-arg]


def _lacks_a_name() -> None:
    logging.no_such_name()  # type: ignore[attr-defined]


def _imports() -> None:
    import no_such_package  # type: ignore[import-not-found]  # noqa: F401


def _asserts() -> None:
    assert not "holds"


def _of_none() -> None:
    None.shape  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("body", [_calls_wrongly, _lacks_a_name, _imports, _asserts, _of_none])
def test_errors_of_code_are_no_damage(body: Callable[[], None]) -> None:
    with (
        pytest.raises((TypeError, AttributeError, ImportError, AssertionError)) as found,
        damage(lambda _, why: DataError(f"damaged: {why}")),
    ):
        body()
    assert isinstance(found.value, ImportError) or is_bug(found.value)


def _is_cut_short() -> None:
    np.frombuffer(b"123", np.int64)


def _is_of_another_kind() -> None:
    json.loads(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [_is_cut_short, _is_of_another_kind])
def test_what_bytes_lead_to_is_damage(body: Callable[[], None]) -> None:
    with (
        pytest.raises(DataError, match="^damaged: [^\n]+$"),
        damage(lambda _, why: DataError(f"damaged: {why}")),
    ):
        body()


def _lacking(stream: Any) -> str:
    return hashlib.no_such_digest(stream)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("kind", [AttributeError, ImportError, NameError, TypeError])
def test_a_checkpoint_is_not_damaged_by_our_errors(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.ckpt-1.index"
    path.write_bytes(b"some")

    def fail(stream: Any) -> str:
        raise kind("ours")

    for broken in (fail, _lacking):
        monkeypatch.setattr(saver, "sha256_of", broken)
        with pytest.raises((kind, AttributeError)):
            saver.file_sha256([path])

    def refuse(stream: Any) -> str:
        raise ValueError("no table")

    monkeypatch.setattr(saver, "sha256_of", refuse)
    with pytest.raises(CheckpointError, match="damaged: no table; copy"):
        saver.file_sha256([path])


def test_memory_that_is_short_is_no_damage() -> None:
    def fail() -> None:
        raise MemoryError

    with pytest.raises(MemoryError), damage(lambda _, why: DataError(why)):
        fail()


def test_names_of_arrays_that_are_not_utf_8(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file[b"\xff\xfe"] = np.zeros(3)
    with pytest.raises(DataError, match=r"some\.h5: has the arrays "):
        data.load("hdf5", str(tmp_path / "some.h5"))


def test_digest_of_a_file(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * 2**20 + 17)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as stream:
        assert sources.sha256_of(stream) == hashlib.sha256(content).hexdigest()
