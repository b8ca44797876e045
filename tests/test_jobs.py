"""Job scripts as the package hands them out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bprune_hpc.jobs import main
from tests.helpers.launch import ROOT

SCRIPTS = sorted((ROOT / "jobs").glob("*.sh"))


def test_they_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:-1])
    assert set(listed) == {path.name for path in SCRIPTS if not path.name.startswith("common")}
    assert listed["slurm.sh"] == "A sweep on Slurm"
    assert all(listed.values())


@pytest.mark.parametrize("name", ["jobs", "my job scripts"])
def test_copies_find_one_another_wherever_they_are(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "in" / name
    for _ in range(2):  # the second changes nothing
        assert main(["--copy", str(directory)]) == 0
    assert {path.name for path in directory.iterdir()} == {path.name for path in SCRIPTS}
    for path in SCRIPTS:
        copy = directory / path.name
        assert copy.stat().st_mode & 0o111
        text = copy.read_text()
        assert text.replace(str(directory), "$BPRUNE_HOME/jobs") == path.read_text()
        assert "$BPRUNE_HOME/jobs" not in text
    # Far enough to see that what they share is found: the sweep itself stands in.
    (tmp_path / "work").mkdir()
    program = f'sweep() {{ :; }}; . "{directory}/common.sh"; prepare; pwd'
    done = subprocess.run(
        ["bash", "-euc", program],
        env={"BPRUNE_HOME": str(tmp_path / "work"), "THREADS": "1", "PATH": "/usr/bin:/bin",
             "VENV": str(tmp_path / "none"), "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "work"), done.stderr


def test_what_is_there_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "slurm.sh").write_text("mine\n")
    assert main([f"--copy={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{tmp_path}/slurm.sh is there already" in said
    assert [path.name for path in tmp_path.iterdir()] == ["slurm.sh"]
    assert (tmp_path / "slurm.sh").read_text() == "mine\n"


@pytest.mark.parametrize("name", ["", "a$HOME", 'a"b', "a`b`"])
def test_directories_that_no_script_can_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([f"--copy={name}"]) == 2
    assert capsys.readouterr().err.startswith("error: --copy: ")
    assert not list(tmp_path.iterdir())
