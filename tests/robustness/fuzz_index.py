"""Writes the ``.index`` file of a V2 checkpoint without TensorFlow, for damage to it.

An entry can then be wrong although every checksum around it is right. The format is LevelDB's
table (blocks of prefix-compressed keys, each block with a masked CRC-32C) of BundleEntryProtos.
"""

from __future__ import annotations

import struct

_FOOTER_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_MASK_DELTA = 0xA282EAD8


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """CRC-32C as LevelDB and TensorFlow store it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def write_index(entries: dict[bytes, bytes]) -> bytes:
    """A table of the entries: one block, checksums right."""
    last = max(entries)
    out = bytearray()
    handle = _append(out, _packed(dict(sorted(entries.items()))))
    meta = _append(out, _packed({}))
    index = _append(out, _packed({last: handle}))
    footer = (meta + index).ljust(_FOOTER_BYTES - 8, b"\0")
    return bytes(out) + footer + struct.pack("<Q", _FOOTER_MAGIC)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _packed(entries: dict[bytes, bytes]) -> bytes:
    body, restarts = bytearray(), []
    for key, value in entries.items():
        restarts.append(len(body))
        body += b"\0" + _encoded(len(key)) + _encoded(len(value)) + key + value
    restarts = restarts or [0]
    return (
        bytes(body)
        + struct.pack(f"<{len(restarts)}I", *restarts)
        + struct.pack("<I", len(restarts))
    )


def _append(out: bytearray, block: bytes) -> bytes:
    """Append a block with its trailer; its handle."""
    handle = _encoded(len(out)) + _encoded(len(block))
    kind = b"\0"
    out += block + kind + struct.pack("<I", masked_crc32c(block + kind))
    return handle
