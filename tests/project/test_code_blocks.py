"""Every fenced block of every page is run, or says why it is not.

Commands of the package are run as they stand, each page in a directory of its own, and in this
process but for trainings. ``mpirun -n N`` is left out: bits do not depend on ranks. What the
commands of a page name is made before: small networks and few examples. A ``python`` block that
begins with ``# NAME.py`` is that file; the others share one set of names a page, and what one
prints is the ``text`` block behind it, or the comment behind its ``print``. ``{code-cell}`` blocks
are run by ``make docs``, those in ``bash`` of the README by ``test_readme.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bprune_hpc import data
from tests.helpers.launch import ROOT, run_group
from tests.helpers.markdown import Block, fenced_blocks, package_call

PAGES = sorted(
    path
    for path in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md")]
    if "_build" not in path.parts and path.name != "CHANGELOG.md"
)
LANGUAGES = {"bash", "console", "python", "text"}
DIRECTIVES = {"{eval-rst}", "{glossary}", "{toctree}"}
REASONS = {
    "installs an environment",
    "needs Apptainer or Docker",
    "needs Cobalt",
    "needs PBS",
    "needs Slurm",
    "needs a GPU",
    "needs modules of a site",
    "takes minutes",
}
EMBEDDED = ROOT / "bprune_hpc/embedded/digits_fc"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def to_run(path: Path) -> list[Block]:
    blocks = fenced_blocks(path.read_text(encoding="utf-8"))
    languages = {"python", "console"} | ({"bash"} if path.name != "README.md" else set())
    return [block for block in blocks if block.language in languages and not block.not_run]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_what_is_not_run_says_why(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    cells = 0
    for block in fenced_blocks(text):
        where = f"line {block.line}: {block.language}"
        if block.language == "{code-cell}":
            cells += 1
        else:
            assert block.language in LANGUAGES | DIRECTIVES, where
        if block.not_run:
            assert block.not_run in REASONS, f"{where}: {block.not_run}"
            assert block.commands(), f"{where}: no commands in it"
    # That is what has the site's builder run them; it fails where one fails.
    assert not cells or text.startswith("---\nfile_format: mystnb\n")


def digits(n: int) -> data.DataSet:
    """The first examples of the test set."""
    whole = data.load("digits", split="test")
    return whole.__class__(**{**vars(whole), "x": whole.x[:n], "y": whole.y[:n]})


def case(name: str, checkpoint: str = "model.ckpt-4400") -> None:
    """A copy of the embedded network."""
    Path(name).mkdir()
    for path in EMBEDDED.glob("model.ckpt-4400.*"):
        shutil.copy(path, Path(name, path.name.replace("model.ckpt-4400", checkpoint)))


def examples(name: str) -> None:
    found = digits(40)
    np.savez(name, x_test=found.x, y_test=found.y)


def sweep(output: str, *flags: str) -> None:
    few = ["--thresholds=0,0.5,1", "--num_monte_carlo=40"]
    call("sweep", "--model_dir=embedded:digits_fc", *few, f"--output={output}", *flags)


def keras_model(module: str) -> Any:
    """A model in a file of its own, with the weights that it begins with beside it."""
    Path(f"{module}.py").write_text(
        "import tensorflow_probability as tfp\n"
        "import tf_keras\n\n\n"
        "def build():\n"
        "    layers = [tf_keras.Input((64,)), tfp.layers.DenseFlipout(10, name='only')]\n"
        "    return tf_keras.Sequential(layers)\n"
    )
    names: dict[str, Any] = {}
    exec(Path(f"{module}.py").read_text(), names)
    model = names["build"]()
    model.save_weights(f"{module}.weights.h5")
    return model


def for_arguments() -> None:
    """The argument file stands in the page itself."""
    case("my_case", "model.ckpt-14000")
    examples("test_set.npz")
    page = (ROOT / "docs/arguments.md").read_text()
    written = next(block for block in fenced_blocks(page) if block.language == "text")
    Path("MyArguments.txt").write_text(written.text)


def for_data() -> None:
    case("net")
    found = digits(40)
    examples("test.npz")
    header = ",".join([*(f"pixel{k}" for k in range(64)), "kind"])
    rows = np.column_stack([found.x.reshape(40, 64), found.y])
    np.savetxt("table.csv", rows, "%g", ",", header=header, comments="")
    np.savez("medmnist.npz", test_images=found.x, test_labels=found.y[:, None])


def for_export() -> None:
    examples("test_set.npz")
    keras_model("my_net")
    call("train", "--dataset=digits", "--hidden=8", "--epochs=2", "--model_dir=case")
    sweep("results/sweep.h5", "--model_dir=case", "--dataset=digits", "--max_accuracy_drop=0.5")


def names_of_export() -> dict[str, Any]:
    from bprune_hpc.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    (meta,) = Path("case").glob("*.meta")
    graph = tf.Graph()
    with graph.as_default():
        tf.compat.v1.train.import_meta_graph(str(meta))
        saver = tf.compat.v1.train.Saver()
    session = tf.compat.v1.Session(graph=graph)

    def restore(session: Any, path: str) -> None:
        with graph.as_default():  # as in a script for TF1, which is no notebook for Keras too
            saver.restore(session, path)

    x = digits(5).x.reshape(5, 64).astype(np.float32)
    return {
        "tf": tf,
        "model": keras_model("my_net"),
        "saver": SimpleNamespace(restore=restore),
        "session": session,
        "x": x,
    }


def for_inspect() -> None:
    case("my_case", "model.ckpt-14000")
    keras_model("my_models")
    Path("my_models.weights.h5").rename("net.weights.h5")
    sweep("results/sweep.h5")


def for_reports() -> None:
    sweep("sweep.h5")
    sweep("snr.h5", "--dataset=digits")
    sweep("magnitude.h5", "--criterion=magnitude", "--dataset=digits")


PREPARE: dict[str, Callable[[], None]] = {
    "docs/arguments.md": for_arguments,
    "docs/clusters.md": for_arguments,
    "docs/data.md": for_data,
    "docs/export.md": for_export,
    "docs/inspect.md": for_inspect,
    "docs/reports.md": for_reports,
}
"""What makes the files that a page's commands name."""
NAMES: dict[str, Callable[[], dict[str, Any]]] = {
    "docs/export.md": names_of_export,
}
"""What a page's Python takes for given; made once the commands before it have run."""


def call(name: str, *arguments: str) -> None:
    """A command of the package, in this process; one that trains changes it, and has its own."""
    if name == "train":
        command = [sys.executable, "-m", "bprune_hpc.train", *arguments]
        done = run_group(command, cwd=Path.cwd())
        assert done.returncode == 0, done.stderr
        return
    module = importlib.import_module("bprune_hpc" if name == "bprune_hpc" else f"bprune_hpc.{name}")
    main = getattr(module, "main", None) or importlib.import_module("bprune_hpc.__main__").main
    assert main(list(arguments)) == 0, f"{name} {' '.join(arguments)}"


def run_commands(block: Block) -> None:
    for command in block.commands():
        found = package_call(command)
        if found:
            call(found[0].removeprefix("bprune_hpc."), *found[1])
            continue
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = run_group(["bash", "-euo", "pipefail", "-c", command], cwd=Path.cwd(), PATH=path)
        assert done.returncode == 0, f"line {block.line}: {command}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PAGES if to_run(path)], ids=name_of)
def test_the_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    PREPARE.get(name_of(path), lambda: None)()
    names: dict[str, Any] | None = None
    blocks = fenced_blocks(path.read_text(encoding="utf-8"))
    wanted = to_run(path)
    for place, block in enumerate(blocks):
        if block not in wanted:
            continue
        if block.language != "python":
            run_commands(block)
            continue
        file = re.match(r"# (\w+\.py)\n", block.text)
        if file:
            Path(file[1]).write_text(block.text)
            continue
        names = NAMES.get(name_of(path), dict)() if names is None else names
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block.text, f"{path}:{block.line}", "exec"), names)
        printed = out.getvalue()
        after = blocks[place + 1] if place + 1 < len(blocks) else block
        shown = after.text if after.language == "text" else ""
        assert printed == shown or (printed and f"# {printed.strip()}\n" in block.text)
