"""Which formats there are, and that the documentation has each of them."""

from __future__ import annotations

import re

import pytest

from bprune_hpc.errors import ConfigError
from bprune_hpc.formats.selection import DEFAULT, FORMATS, read_formats
from tests.helpers.launch import ROOT


def test_every_format_is_documented() -> None:
    text = (ROOT / "docs" / "export.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(FORMATS)


def test_formats_by_name() -> None:
    assert {one.name for one in read_formats(DEFAULT)} == set(DEFAULT)
    # Each once, in the order in which they are written.
    assert [one.name for one in read_formats(["savedmodel", "checkpoint", "savedmodel"])] == [
        "checkpoint", "savedmodel",
    ]  # fmt: skip
    for names in ([], ["onion"], [""]):
        with pytest.raises(ConfigError, match="--formats: .*checkpoint, bundle"):
            read_formats(names)
