from __future__ import annotations

from pathlib import Path

import pytest

from bprune_hpc.config.argument_file import ArgumentParser, find
from bprune_hpc.errors import ConfigError


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(prog="prog")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data_dir")
    parser.add_argument("--prune", action="store_true")
    return parser


def test_both_forms_comments_blank_lines_and_variables(
    parser: ArgumentParser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE", "/somewhere")
    file = tmp_path / "args.txt"
    file.write_text(
        "# a comment\n\n--seed 3   # three\n--data_dir=$WHERE/a#b dir\n  --prune\n",
        encoding="utf-8",
    )
    arguments = parser.parse([f"@{file}"])
    assert (arguments.seed, arguments.data_dir, arguments.prune) == (3, "/somewhere/a#b dir", True)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("--data_dir = a b", "a b"),
        ('--data_dir="a #b"  # c', "a #b"),
        ("--data_dir='a'", "a"),
        ("--data_dir=it's", "it's"),
        ("--data_dir=a=b", "a=b"),
        ("--data_dir\ta", "a"),
        ("--data_dir=", ""),
    ],
)
def test_values_are_what_is_written(
    parser: ArgumentParser, tmp_path: Path, line: str, value: str
) -> None:
    file = tmp_path / "args.txt"
    file.write_text(line + "\n", encoding="utf-8-sig")
    assert parser.parse([f"@{file}"]).data_dir == value


def test_the_last_occurrence_wins_wherever_it_stands(
    parser: ArgumentParser, tmp_path: Path
) -> None:
    file = tmp_path / "args.txt"
    file.write_text("--seed=1\n--seed=2\n")
    assert parser.parse([f"@{file}"]).seed == 2
    assert parser.parse([f"@{file}", "--seed", "9"]).seed == 9
    assert parser.parse(["--seed=9", f"@{file}"]).seed == 2


def test_values_that_start_with_letters_of_a_file_name_are_values(
    parser: ArgumentParser,
) -> None:
    assert parser.parse(["--data_dir", "ArgFile.txt"]).data_dir == "ArgFile.txt"


def test_files_may_name_files_beside_them(parser: ArgumentParser, tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("--seed=4\n")
    (tmp_path / "top.txt").write_text("@base.txt\n--prune\n")
    arguments = parser.parse([f"@{tmp_path / 'top.txt'}"])
    assert arguments.seed == 4 and arguments.prune


def test_a_bare_name_is_looked_for_in_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("ArgFilePrune.txt").parent.name == "configs"
    (tmp_path / "ArgFilePrune.txt").write_text("")
    assert find("ArgFilePrune.txt") == Path("ArgFilePrune.txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--sed=1", r"args.txt:2: unknown flag '--sed'; did you mean --seed\?"),
        ("--se=1", r"args.txt:2: unknown flag '--se'"),
        ("--xyzzy", r"args.txt:2: unknown flag '--xyzzy'; see prog --help"),
        ("--seed=one", r"args.txt:2: argument --seed: invalid int value: 'one'"),
        ("seed=1", r"args.txt:2: 'seed=1' is not a flag"),
        ("--data_dir=$NOT_SET_ANYWHERE/x", r"args.txt:2: variable \$NOT_SET_ANYWHERE is not set"),
        ("--data_dir=a\0b", r"args.txt:2: holds a zero byte"),
        ("@missing.txt", r"missing.txt: no such argument file"),
        ("@args.txt", r"args.txt:2: argument files nested deeper than 8"),
        ("--prune=yes", r"args.txt:2: argument --prune: ignored explicit argument 'yes'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    parser: ArgumentParser, tmp_path: Path, line: str, message: str
) -> None:
    file = tmp_path / "args.txt"
    file.write_text(f"--seed=1\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        parser.parse([f"@{file}"])


def test_errors_of_the_command_line_say_so(parser: ArgumentParser) -> None:
    with pytest.raises(ConfigError, match="^command line: unknown flag '--sed'"):
        parser.parse(["--sed=1"])
    with pytest.raises(ConfigError, match="^command line: argument --seed: expected one argument"):
        parser.parse(["--seed"])


def test_a_file_that_is_not_text(parser: ArgumentParser, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="binary: cannot be read .*; give a text file"):
        parser.parse([f"@{tmp_path / 'binary'}"])
