"""Data sets in TFRecord files, with the fields that BPrune's users write.

What belongs here: records and their fields: int64 ``height``, ``width``, ``depth``, ``label``, and
uint8 bytes ``image_raw``. What does not: what makes values usable (``data.values``).
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterator, Mapping
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tensorflow_import import import_tensorflow, quiet_file_descriptor_2
from .values import Part, Request, Split, as_stored, empty_examples, open_binary

SUFFIXES = (".tfrecord", ".tfrecords")
_FIELDS = ("height", "width", "depth", "label", "image_raw")
# A record: its length (uint64), the CRC of that (uint32), its bytes, their CRC (uint32).
_LENGTH = struct.Struct("<Q")
_HEADER_BYTES, _FOOTER_BYTES = 12, 4


def files_of(path: str, split: Split) -> list[Path]:
    """The files that a path names: one, a pattern such as ``Test_Rank_*.tfrecords``, a directory.

    Of a directory whose file names tell test from train, the split's own are taken, else all.

    Raises
    ------
    DataError
        If there are none.
    """
    if Path(path).is_dir():
        found = sorted(file for file in Path(path).iterdir() if file.suffix in SUFFIXES)
        named = {half: [f for f in found if half in f.name.lower()] for half in ("test", "train")}
        chosen = named[split] if any(named.values()) else found
        if not chosen:
            raise DataError(
                f"{path}: has no {split} files among {len(found)} of TFRecord; pass a pattern in "
                "quotes, as in 'DIR/Test_Rank_*.tfrecords'"
            )
        return chosen
    if has_magic(path) and not os.path.exists(path):
        found = sorted(Path(name) for name in glob(path) if os.path.isfile(name))
        if not found:
            raise DataError(f"{path}: no file has such a name; check the pattern")
        return found
    return [Path(path)]


def read(path: Path, request: Request) -> Part:
    """Images and labels of one or more TFRecord files, in the order of their names.

    Raises
    ------
    DataError
        If a file is missing or damaged (each record's checksum is compared), a field is missing or
        the images differ in shape.
    """
    files = files_of(str(path), request.split)
    scans = [_scan(file) for file in files]
    n_records = sum(n for n, _ in scans)
    if not n_records:
        raise DataError(f"{path}: holds no records; check the path")
    x: NDArray[np.uint8] | None = None
    y = np.empty(n_records, np.int64)
    i = 0
    for file, (n_in_file, _) in zip(files, scans, strict=True):
        for record, content in enumerate(_records(file, n_in_file)):
            name = f"{file}: record {record}"
            image, y[i] = _image(content, name)
            if x is None:
                x = empty_examples((n_records, *image.shape), str(path), np.uint8)
            if image.shape != x.shape[1:]:
                raise DataError(
                    f"{name} has an image of {image.shape}, the first one is {x.shape[1:]}; save "
                    "images of one shape"
                )
            x[i] = image
            i += 1
    assert x is not None
    digests = {str(file): digest for file, (_, digest) in zip(files, scans, strict=True)}
    return Part(x, y, digests, as_stored(np.dtype(np.uint8)))


def _scan(file: Path) -> tuple[int, str]:
    """Number of records and digest; no length is believed that goes beyond the file's end."""
    digest = hashlib.sha256()
    with open_binary(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if stream.read(2) == b"\x1f\x8b":
            raise DataError(f"{file}: compressed with gzip; unpack it first")
        n_records = position = stream.seek(0)
        while position < size:
            header = stream.read(_HEADER_BYTES)
            length = _LENGTH.unpack_from(header)[0] if len(header) == _HEADER_BYTES else size
            position += _HEADER_BYTES + length + _FOOTER_BYTES
            if position > size:
                raise DataError(
                    f"{file}: record {n_records} goes beyond the end of the file, or it is no "
                    "TFRecord file; copy it again"
                )
            digest.update(header)
            digest.update(stream.read(length + _FOOTER_BYTES))
            n_records += 1
    return n_records, digest.hexdigest()


def _records(file: Path, n_records: int) -> Iterator[bytes]:
    """Contents of the records, their checksums compared by TensorFlow's own reader."""
    tf = import_tensorflow()
    with quiet_file_descriptor_2():  # it calls itself deprecated, but the others need a session
        reader = iter(tf.compat.v1.io.tf_record_iterator(str(file)))
    for record in range(n_records):
        try:
            content = next(reader)
        except (StopIteration, tf.errors.OpError) as error:
            reason = " ".join(str(error).split()) or "no more records"
            raise DataError(
                f"{file}: record {record} is damaged ({reason}); copy it again"
            ) from None
        yield content


def _image(content: bytes, name: str) -> tuple[NDArray[np.uint8], int]:
    fields = _fields(content, name)
    numbers = []
    for field in _FIELDS[:-1]:
        values = fields[field].int64_list.value
        if len(values) != 1:
            raise DataError(f"{name}: '{field}' holds {len(values)} integers; save one")
        numbers.append(int(values[0]))
    *shape, label = numbers
    raw = fields["image_raw"].bytes_list.value
    n_bytes = len(raw[0]) if len(raw) == 1 else 0
    if min(shape) < 1 or n_bytes != math.prod(shape):
        raise DataError(
            f"{name}: 'image_raw' holds {n_bytes} bytes, height × width × depth are "
            f"{' × '.join(map(str, shape))}; save one uint8 a value"
        )
    return np.frombuffer(raw[0], np.uint8).reshape(shape), label


def _fields(content: bytes, name: str) -> Mapping[str, Any]:
    from google.protobuf.message import DecodeError

    try:
        example = import_tensorflow().train.Example.FromString(content)
    except DecodeError:
        raise DataError(
            f"{name} is not a tf.train.Example; save one with the fields {', '.join(_FIELDS)}"
        ) from None
    fields: Mapping[str, Any] = example.features.feature
    missing = [field for field in _FIELDS if field not in fields]
    if missing:
        raise DataError(
            f"{name} has the fields {', '.join(sorted(fields)) or '(none)'}; lacks "
            f"{', '.join(missing)}"
        )
    return fields
