"""The site's sources: links lead somewhere, commands exist, code that is not run is known.

``make docs`` runs the tutorials and turns Sphinx's warnings into errors; what needs no Sphinx is
looked at here, in every run of the tests.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bprune_hpc
from tests.helpers.launch import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.relative_to(DOCS).parts)
MARKDOWN = [*PAGES, ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]


def headings(path: Path) -> set[str]:
    """Anchors of a page, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_no_link_is_dead(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        is_page = target.is_file() and target.suffix == ".md"
        has_anchor = not (anchor and is_page) or anchor in headings(target)
        if not (target.exists() and has_anchor):
            dead.append(link)
    assert not dead


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (DOCS / "index.md").read_text()
    listed = re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.MULTILINE | re.DOTALL)
    names = {line for block in listed for line in block.splitlines() if line and line[0] != ":"}
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in PAGES} - {"index"}
    assert names == pages


def public() -> Iterator[tuple[str, object]]:
    """Every name that the page of the library shows, and the public methods of its classes."""
    text = (DOCS / "api.md").read_text()
    module = "bprune_hpc"
    for directive, name in re.findall(r"^\.\. auto(\w+):: (\S+)", text, re.MULTILINE):
        if directive == "module":
            continue
        whole = name if name.startswith("bprune_hpc.") else f"{module}.{name}"
        home, _, own = whole.rpartition(".")
        found = getattr(importlib.import_module(home), own)
        yield whole, found
        if inspect.isclass(found) and not issubclass(found, Exception):
            for method, value in vars(found).items():
                if not method.startswith("_") and (callable(value) or isinstance(value, property)):
                    yield f"{whole}.{method}", value


def test_every_public_name_is_documented() -> None:
    """How, by numpydoc's rules: ``docs/conf.py`` names these, ``make docs`` holds to them."""
    names = dict(public())
    assert len(names) > 35
    exported = {f"bprune_hpc.{name}" for name in bprune_hpc.__all__ if not name.startswith("__")}
    homes = {name.rpartition(".")[0] for name in names}
    assert exported <= names.keys() | homes  # a module counts with a name in it
    assert [name for name, found in names.items() if not inspect.getdoc(found)] == []
