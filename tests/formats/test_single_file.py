"""One file of a module: what it takes, in which order, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from bprune_hpc.formats import single_file as module
from bprune_hpc.formats.single_file import single_file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "HOME", tmp_path)
    (tmp_path / "low").mkdir()
    (tmp_path / "high").mkdir()
    (tmp_path / "low" / "numbers.py").write_text(
        "import math\nimport os\n\nONE = 1\n'''What is one.'''\n\n\n"
        "def unused():\n    return os\n\n\n"
        "# Why.\ndef double(x):\n    return math.floor(x) * _two()\n\n\n"
        "def _two():\n    return 2 * ONE\n"
    )
    (tmp_path / "low" / "names.py").write_text("from .numbers import ONE\n\nNAME = str(ONE)\n")
    return tmp_path


def _written(package: Path, text: str) -> str:
    top = package / "high" / "top.py"
    top.write_text(text)
    return single_file(top, "A file.")


def test_what_is_needed_comes_first_and_nothing_else(package: Path) -> None:
    source = _written(
        package,
        "from ..low.names import NAME\nfrom ..low.numbers import double\n\n\n"
        "def shown(x):\n    return NAME, double(x)\n",
    )
    assert source.startswith(
        '"""A file.\n"""\n\nfrom __future__ import annotations\n\nimport math\n'
    )
    assert "unused" not in source and "import os" not in source and "from ." not in source
    assert "# Why.\ndef double" in source and "'''What is one.'''" in source
    names: dict[str, object] = {}
    exec(source, names)
    assert names["shown"](2.5) == ("1", 4)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("from ..low.numbers import double\n\n\ndef f():\n    return double(_two())\n\n\n"
         "def _two():\n    return 2\n", "_two"),
        ("from ..low.numbers import ONE as UNIT\n\n\ndef f():\n    return UNIT\n", "another name"),
        ("from ..low.numbers import THREE\n\n\ndef f():\n    return THREE\n", "no 'THREE'"),
    ],
)  # fmt: skip
def test_names_that_would_be_lost_are_refused(package: Path, text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        _written(package, text)
