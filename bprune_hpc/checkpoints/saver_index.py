"""What the index of a V2 checkpoint declares, read before TensorFlow does.

TensorFlow's reader takes declared shapes at their word: one that is negative, beyond 63 bits or of
too many axes ends the process instead of raising an error, and memory is asked for before a size is
looked at. What
belongs here: the file's format and these checks. What does not: values (``checkpoints.saver``).

The format is LevelDB's table (blocks of keys without their common prefixes) of BundleEntryProtos.
Checksums are left to TensorFlow, which verifies every block.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..tensorflow_import import MOST_AXES, import_graphs

_FOOTER_BYTES = 48
_MOST_BYTES = 2**46  # 64 TiB
_STRING = 7


@dataclass(frozen=True)
class Entry:
    """Where an index says that a tensor lies; ``n_bytes`` is None for strings and slices."""

    shape: tuple[int, ...]
    n_bytes: int | None
    stored_bytes: int
    offset: int
    shard: int


def declared(index: Path) -> dict[str, Entry]:
    """Entries of an index by name; empty where the file is not a table that can be followed.

    Raises
    ------
    CheckpointError
        If a tensor has a shape that no tensor can have.
    """
    from google.protobuf.message import DecodeError

    tensorflow = import_graphs()
    try:
        raw = table(index.read_bytes())
        protos = {
            key: tensorflow.BundleEntryProto.FromString(value) for key, value in raw.items() if key
        }
    except (IndexError, ValueError, struct.error, DecodeError):
        # TensorFlow says what is wrong with such a file.
        return {}
    return {
        key.decode(errors="replace"): _entry(index, key.decode(errors="replace"), proto)
        for key, proto in protos.items()
    }


def _entry(index: Path, name: str, proto: Any) -> Entry:
    shape = tuple(dim.size for dim in proto.shape.dim)
    dtype = proto.dtype
    try:
        width = import_graphs().as_dtype(dtype).size or 1
    except TypeError:
        width = 1
    has_too_many_axes = len(shape) > MOST_AXES
    if (
        has_too_many_axes
        or any(size < 0 for size in shape)
        or math.prod(shape) * width > _MOST_BYTES
    ):
        declared_shape = (
            f"a shape of {len(shape)} axes" if has_too_many_axes else f"the shape {shape}"
        )
        raise CheckpointError(
            f"{index}: damaged at '{name}': it declares {declared_shape}, which no tensor has; "
            "copy the checkpoint's files again"
        )
    is_plain = dtype != _STRING and not proto.slices
    return Entry(
        shape=shape,
        n_bytes=math.prod(shape) * width if is_plain else None,
        stored_bytes=proto.size,
        offset=proto.offset,
        shard=proto.shard_id,
    )


def check_stored(prefix: Path, name: str, entry: Entry, shards: list[Path]) -> None:
    """Refuse a tensor that its shard is too short for, before memory is taken for it.

    Raises
    ------
    CheckpointError
    """
    size = shards[entry.shard].stat().st_size if 0 <= entry.shard < len(shards) else 0
    wanted = entry.stored_bytes if entry.n_bytes is None else entry.n_bytes
    is_inside = entry.offset >= 0 and entry.stored_bytes >= 0
    if not is_inside or max(entry.offset, 0) + max(wanted, entry.stored_bytes) > size:
        raise CheckpointError(
            f"{prefix}: damaged at '{name}': {wanted} bytes are declared at {entry.offset} of a "
            f"shard of {size}; copy the checkpoint's files again"
        )
    if entry.n_bytes is None and math.prod(entry.shape) > max(entry.stored_bytes, size):
        raise CheckpointError(
            f"{prefix}: damaged at '{name}': it declares the shape {entry.shape} in "
            f"{entry.stored_bytes} bytes; copy the checkpoint's files again"
        )


def table(data: bytes) -> dict[bytes, bytes]:
    """Entries of an uncompressed table."""
    footer = data[-_FOOTER_BYTES:]
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)
    offset, position = _varint(footer, position)
    size, _ = _varint(footer, position)
    entries: dict[bytes, bytes] = {}
    for handle in _block(data, offset, size).values():
        start, position = _varint(handle, 0)
        length, _ = _varint(handle, position)
        entries.update(_block(data, start, length))
    return entries


def _block(data: bytes, start: int, size: int) -> dict[bytes, bytes]:
    if data[start + size] != 0:
        raise ValueError("compressed")
    block = data[start : start + size]
    (n_restarts,) = struct.unpack("<I", block[-4:])
    end, position, key = len(block) - 4 - 4 * n_restarts, 0, b""
    found = {}
    while position < end:
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + own]
        position += own
        found[key] = block[position : position + length]
        position += length
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position
