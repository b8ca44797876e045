"""Pages whose blocks can be typed in as they stand, in order, in an empty directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.launch import LIMIT_S, ROOT

PAGES = ("retraining", "training")
_BLOCKS = re.compile(r"^```(console|python)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def script_of(text: str, place: Path) -> str:
    """Commands of a page; its Python blocks are put into the files that they name first."""
    lines = ["set -euxo pipefail"]
    for language, block in _BLOCKS.findall(text):
        if language == "python":
            (place / block.splitlines()[0].removeprefix("# ")).write_text(block)
        lines += [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.parametrize("page", PAGES)
def test_its_blocks_run_as_they_stand(page: str, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    known = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script_of((ROOT / "docs" / f"{page}.md").read_text(), tmp_path)],
        cwd=tmp_path, env=known, capture_output=True, text=True, timeout=2 * LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_a_page_becomes_a_script(tmp_path: Path) -> None:
    text = "a\n```python\n# f.py\nx = 1\n```\n\n```console\n$ python f.py\n1\n```\n"
    assert script_of(text, tmp_path) == "set -euxo pipefail\npython f.py"
    assert (tmp_path / "f.py").read_text() == "# f.py\nx = 1\n"
