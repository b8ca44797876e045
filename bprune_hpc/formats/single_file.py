"""One Python file of a module and what it takes from others of this package.

What belongs here: which definitions those are, and their order. What does not: what the file does
(``formats.portable``). So the exported file has the package's own lines, and no copy of them is
kept.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..sources import HOME


@dataclass(frozen=True)
class _Module:
    """A module's text, and what of it is taken.

    Attributes
    ----------
    definitions : mapping of str to int
        Position of the statement that defines each name of the module's own.
    imported : mapping of str to (path, str)
        Names from other modules of the package: the file, and the name there.
    others : mapping of str to (str, str)
        Names from elsewhere: the module, empty for one that is imported itself, and the name there.
    """

    path: Path
    lines: list[str]
    statements: list[ast.stmt]
    definitions: dict[str, int]
    imported: dict[str, tuple[Path, str]]
    others: dict[str, tuple[str, str]]

    @classmethod
    def read(cls, path: Path) -> _Module:
        text = path.read_text()
        statements = ast.parse(text).body
        definitions: dict[str, int] = {}
        imported: dict[str, tuple[Path, str]] = {}
        others: dict[str, tuple[str, str]] = {}
        for at, statement in enumerate(statements):
            if isinstance(statement, ast.ImportFrom) and statement.level:
                folder = path.parents[statement.level - 1]
                source = folder.joinpath(*(statement.module or "").split("."))
                source = (
                    source.with_suffix(".py") if not source.is_dir() else source / "__init__.py"
                )
                for alias in statement.names:
                    imported[alias.asname or alias.name] = source, alias.name
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                module = getattr(statement, "module", None) or ""
                for alias in statement.names:
                    others[alias.asname or alias.name] = module, ast.unparse(alias)
            else:
                for name in _defined(statement):
                    definitions.setdefault(name, at)
        return cls(path, text.splitlines(), statements, definitions, imported, others)

    def text_of(self, at: int) -> str:
        """A statement with its decorators, comments above it and docstring below it."""
        statement = self.statements[at]
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(one.lineno for one in decorators)])
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        assert statement.end_lineno is not None
        last = statement.end_lineno
        if at + 1 < len(self.statements) and _is_text(self.statements[at + 1]):
            last = self.statements[at + 1].end_lineno or last
        return "\n".join(self.lines[first - 1 : last])


def single_file(module: Path, header: str) -> str:
    """A module's text with all that it needs of this package in front, from its own files.

    Parameters
    ----------
    module : path
    header : str
        The docstring of the file.

    Raises
    ------
    ValueError
        If two things that are needed have one name, or one has two.
    """
    modules: dict[Path, _Module] = {}
    needed: dict[Path, set[int]] = {}
    homes: dict[str, Path] = {}
    order: list[Path] = []
    imports: set[tuple[str, str]] = set()

    def opened(path: Path) -> _Module:
        if path not in modules:
            modules[path] = _Module.read(path)
        return modules[path]

    def follow(of: _Module, name: str) -> None:
        source, name_there = of.imported[name]
        if name_there != name:
            raise ValueError(f"{of.path}: '{name_there}' of {source} has another name here")
        take(source, name)

    def take(path: Path, name: str) -> None:
        of = opened(path)
        if name not in of.definitions:
            if name in of.imported:
                follow(of, name)
                return
            raise ValueError(f"{path}: defines no '{name}'")
        if homes.setdefault(name, path) != path:
            raise ValueError(f"'{name}' is of {homes[name]} and of {path}")
        at = of.definitions[name]
        if at in needed.setdefault(path, set()):
            return
        needed[path].add(at)
        for other in _names(of.statements[at]):
            if other in of.imported:
                follow(of, other)
            elif other in of.definitions:
                take(path, other)
            elif other in of.others:
                imports.add(of.others[other])
        if path not in order:
            order.append(path)

    for name in opened(module).definitions:
        take(module, name)
    order.remove(module)
    parts = [f'"""{header.strip()}\n"""\n\nfrom __future__ import annotations\n', *_lines(imports)]
    for path in _in_order(order, modules, needed, module):
        of = modules[path]
        origin = path.relative_to(HOME).with_suffix("").as_posix().replace("/", ".")
        parts.append(f"\n\n# From {origin}.\n")
        parts += ["\n\n".join(of.text_of(at) + "\n" for at in sorted(needed[path]))]
    return "\n".join(parts)


def _lines(imports: set[tuple[str, str]]) -> Iterator[str]:
    """Statements that import names, whole modules first."""
    yield from (f"import {name}" for module, name in sorted(imports) if not module)
    modules = sorted({module for module, _ in imports if module})
    for module in modules:
        names = sorted(name for of, name in imports if of == module)
        yield f"from {module} import {', '.join(names)}"


def _in_order(
    found: list[Path], modules: dict[Path, _Module], needed: dict[Path, set[int]], last: Path
) -> list[Path]:
    """Modules after those that they take from."""
    ordered: list[Path] = []

    def add(path: Path) -> None:
        if path in ordered or path not in needed:
            return
        of = modules[path]
        names = {name for at in needed[path] for name in _names(of.statements[at])}
        for source, _ in (of.imported[name] for name in sorted(names & of.imported.keys())):
            add(source)
        ordered.append(path)

    for path in [*found, last]:
        add(path)
    return ordered


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign):
        yield from (
            node.id for target in statement.targets for node in ast.walk(target)
            if isinstance(node, ast.Name)
        )  # fmt: skip
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def _names(statement: ast.stmt) -> list[str]:
    """All names that a statement uses, in annotations too."""
    return sorted({node.id for node in ast.walk(statement) if isinstance(node, ast.Name)})


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
