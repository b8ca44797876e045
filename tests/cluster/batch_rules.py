"""What Cobalt, PBS, aprun and PALS say that they accept, as far as the job scripts need it.

Neither scheduler can be installed here, so the scripts' directives and launcher lines are held
against the documented rules: the ALCF user guides (Theta: March 2024, Polaris: August 2026), the
`qsub` manual of Cobalt, PBS Professional's reference guide. This says nothing about what a queue, a
placement or a module does on the machine itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class RuleError(Exception):
    """Something that the scheduler or launcher would refuse, pass over or misread."""


@dataclass(frozen=True)
class Job:
    """What a script asks for."""

    n_nodes: int
    seconds: int
    queue: str
    name: str
    ranks_per_node: int = 1
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Launch:
    """What a launcher is asked for."""

    n_ranks: int
    per_node: int
    depth: int
    environment: Mapping[str, str]
    command: Sequence[str]


def check_cobalt(text: str, is_executable: bool = True) -> Job:
    """Directives of a Cobalt script for Theta.

    They start on line 2 and end at the first line that is none; they are split on blanks, so that
    there are no quotes, comments or variables in them (but Cobalt's own $jobid).
    """
    lines = text.split("\n")
    if not is_executable:
        raise RuleError("the script has no x bit: Cobalt refuses it")
    if not lines[0].startswith("#!"):
        raise RuleError("line 1 is no #! line")
    n_directives = 0
    while n_directives + 1 < len(lines) and lines[n_directives + 1].startswith("#COBALT "):
        n_directives += 1
    for i, line in enumerate(lines[n_directives + 1 :], n_directives + 2):
        if re.match(r"#\s*COBALT", line):
            raise RuleError(
                f"line {i}: directives ended at line {n_directives + 2}; it would be passed over"
            )
    words = [word for line in lines[1 : n_directives + 1] for word in line.split()[1:]]
    for word in words:
        if re.search(r"[\"'#]|\$(?!jobid)", word):
            raise RuleError(f"{word}: no quotes, comments or variables in a directive")
    valued = {
        "-n": "n", "--nodecount": "n", "-t": "t", "--time": "t", "-A": "A", "--project": "A",
        "-q": "q", "--queue": "q", "-O": "O", "-o": "o", "-e": "e", "-M": "M", "--attrs": "attrs",
        "--jobname": "name", "--dependencies": "dependencies", "--env": "env", "--cwd": "cwd",
    }  # fmt: skip
    options = _options(words, valued)
    for name, what in (("n", "-n NODES"), ("t", "-t TIME"), ("A", "-A PROJECT")):
        if name not in options:
            raise RuleError(f"{what} is required")
    n_nodes, seconds = _number(options["n"], "-n"), _cobalt_seconds(options["t"])
    queue = options.get("q", "default")
    if "filesystems" not in dict(
        attribute.partition("=")[::2] for attribute in options.get("attrs", "").split(":")
    ):
        raise RuleError("--attrs has no filesystems=: the job would wait for all of them")
    if queue.startswith("debug-"):
        if n_nodes > 8 or seconds > 3600:
            raise RuleError(f"{queue}: at most 8 nodes for 1 h")
    elif queue == "default":
        hours = {128: 3, 256: 6, 384: 9, 640: 12, 802: 24}
        most = max((hours[least] for least in hours if n_nodes >= least), default=0)
        if not most:
            raise RuleError("default queue: at least 128 nodes")
        if not 1800 <= seconds <= 3600 * most:
            raise RuleError(f"default queue: 30 min to {most} h for {n_nodes} nodes")
    else:
        raise RuleError(f"{queue}: no such queue")
    return Job(n_nodes, seconds, queue, options.get("name", ""), options=options)


_POLARIS_QUEUES = {  # nodes at least, at most, hours
    "debug": (1, 2, 1), "debug-scaling": (1, 10, 1), "prod": (10, 496, 24),
    "preemptable": (1, 10, 72), "capacity": (1, 4, 168),
}  # fmt: skip


def check_pbs(text: str, site: str | None = None) -> Job:
    """Directives of a PBS script; with ``site="polaris"`` that site's rules too.

    They end at the first line that is neither empty nor a comment.
    """
    options: dict[str, str] = {}
    resources: dict[str, str] = {}
    has_ended = False
    for i, line in enumerate(text.split("\n"), 1):
        if not line.startswith("#PBS"):
            has_ended = has_ended or bool(line.strip() and not line.startswith("#"))
            continue
        if has_ended:
            raise RuleError(f"line {i}: comes after the first command; it would be passed over")
        words = shlex.split(line.removeprefix("#PBS"), comments=False)
        if len(words) != 2 or not re.fullmatch("-[A-Za-z]", words[0]):
            raise RuleError(f"line {i}: a directive is one option and its value")
        option, value = words
        if option == "-l":
            for part in value.split(","):
                name, _, amount = part.partition("=")
                if name in resources:
                    raise RuleError(f"line {i}: {name} is asked for twice")
                resources[name] = amount
        elif option[1] in "AqNkjoemMrJvWpS":
            if option in options:
                raise RuleError(f"line {i}: {option} is given twice")
            options[option] = value
        else:
            raise RuleError(f"line {i}: {option} is not documented")
    for name in ("select", "walltime"):
        if name not in resources:
            raise RuleError(f"-l {name} is required")
    if unknown := set(resources) - {"select", "walltime", "place", "filesystems"}:
        raise RuleError(f"-l {unknown.pop()} is not documented")
    if not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", resources["walltime"]):
        raise RuleError(f"walltime={resources['walltime']} is not HH:MM:SS")
    hours, minutes, rest = map(int, resources["walltime"].split(":"))
    seconds = 3600 * hours + 60 * minutes + rest
    chunk = dict(part.partition("=")[::2] for part in resources["select"].split(":")[1:])
    n_nodes = _number(resources["select"].split(":")[0], "select")
    if len(options.get("-N", "")) > 230 or not re.fullmatch(r"[\w.+-]*", options.get("-N", "")):
        raise RuleError(f"-N {options['-N']}: letters, digits, and . + - _ only")
    queue = options.get("-q", "")
    if site == "polaris":
        _check_polaris(options, resources, chunk, queue, n_nodes, seconds)
    per_node = _number(chunk.get("mpiprocs", "1"), "mpiprocs")
    if "ncpus" in chunk and per_node > _number(chunk["ncpus"], "ncpus"):
        raise RuleError(f"mpiprocs={per_node} on ncpus={chunk['ncpus']}")
    return Job(n_nodes, seconds, queue, options.get("-N", ""), per_node, options)


def _check_polaris(
    options: Mapping[str, str], resources: Mapping[str, str], chunk: Mapping[str, str],
    queue: str, n_nodes: int, seconds: int,
) -> None:  # fmt: skip
    if "-A" not in options:
        raise RuleError("-A PROJECT is required")
    if "filesystems" not in resources:
        raise RuleError("-l filesystems is required")
    if not set(resources["filesystems"].split(":")) <= {"home", "eagle"}:
        raise RuleError(f"filesystems={resources['filesystems']}: home and eagle are mounted")
    if chunk.get("system", "polaris") != "polaris":
        raise RuleError(f"system={chunk['system']}")
    if options.get("-k", "doe") != "doe":
        raise RuleError("-k doe is enforced")
    if queue not in _POLARIS_QUEUES:
        raise RuleError(f"-q {queue}: one of {', '.join(_POLARIS_QUEUES)}")
    least, most, hours = _POLARIS_QUEUES[queue]
    if not (least <= n_nodes <= most and 300 <= seconds <= 3600 * hours):
        raise RuleError(f"{queue}: {least} to {most} nodes, 5 min to {hours} h")


def check_aprun(words: Sequence[str], n_nodes: int) -> Launch:
    """A line of aprun on Theta: 64 cores a node with 4 hardware threads each."""
    valued = {"-n": "n", "-N": "N", "-d": "d", "-j": "j", "-cc": "cc", "-e": "env", "-r": "r"}
    options, command, environment = _launcher_options(words, valued, {"-b", "-q"})
    per_core = _number(options.get("j", "1"), "-j")
    if per_core not in (1, 2, 4):
        raise RuleError(f"-j {per_core}: 1, 2 or 4 hardware threads a core")
    if not re.fullmatch(r"none|cpu|depth|numa_node|[\d,:x-]+", options.get("cc", "cpu")):
        raise RuleError(f"-cc {options['cc']}")
    n_ranks, depth = _number(options.get("n", "1"), "-n"), _number(options.get("d", "1"), "-d")
    per_node = _number(options.get("N", str(64 * per_core // depth)), "-N")
    return _fits(Launch(n_ranks, per_node, depth, environment, command), n_nodes, 64 * per_core)


def check_pals(words: Sequence[str], n_nodes: int) -> Launch:
    """A line of PALS' mpiexec on Polaris: 32 cores a node with 2 hardware threads each."""
    valued = {
        "-n": "n", "--np": "n", "--ppn": "ppn", "-ppn": "ppn", "--depth": "d", "-d": "d",
        "--cpu-bind": "bind", "--env": "env", "-env": "env", "--hostfile": "hostfile",
    }  # fmt: skip
    options, command, environment = _launcher_options(words, valued, {"--envall", "-l", "--label"})
    if "n" not in options:
        raise RuleError("-n is required")
    if not re.fullmatch(r"none|depth|core|numa|socket|list:[\d,:-]+", options.get("bind", "none")):
        raise RuleError(f"--cpu-bind {options['bind']}")
    n_ranks, depth = _number(options["n"], "-n"), _number(options.get("d", "1"), "--depth")
    per_node = _number(options.get("ppn", str(-(-n_ranks // n_nodes))), "--ppn")
    return _fits(Launch(n_ranks, per_node, depth, environment, command), n_nodes, 64)


def _fits(launch: Launch, n_nodes: int, n_threads: int) -> Launch:
    if launch.n_ranks > n_nodes * launch.per_node:
        raise RuleError(f"{launch.n_ranks} ranks, {launch.per_node} a node, on {n_nodes} nodes")
    if launch.per_node * launch.depth > n_threads:
        raise RuleError(
            f"{launch.per_node} ranks a node x depth {launch.depth} > {n_threads} hardware threads"
        )
    if not launch.command:
        raise RuleError("no command")
    return launch


def _launcher_options(
    words: Sequence[str], valued: Mapping[str, str], flags: set[str]
) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """Options up to the command, the command, and the variables that are set for it."""
    options: dict[str, str] = {}
    environment: dict[str, str] = {}
    left = list(words)
    while left and left[0].startswith("-"):
        option, has_value, value = left.pop(0).partition("=")
        if option in flags:
            continue
        if option not in valued:
            raise RuleError(f"{option} is not documented")
        if not has_value:
            if not left:
                raise RuleError(f"{option} has no value")
            value = left.pop(0)
        name = valued[option]
        if name == "env":
            if not re.match(r"\w+=", value):
                raise RuleError(f"{option} {value}: is not NAME=VALUE")
            environment.update([value.split("=", 1)])
        elif name in options:
            raise RuleError(f"{option} is given twice")
        else:
            options[name] = value
    return options, left, environment


def _options(words: Sequence[str], valued: Mapping[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    left = list(words)
    while left:
        option, has_value, value = left.pop(0).partition("=")
        if not option.startswith("-"):
            raise RuleError(f"{option}: would be taken for the command to run")
        if option not in valued:
            raise RuleError(f"{option} is not documented")
        if not has_value:
            if not left:
                raise RuleError(f"{option} has no value")
            value = left.pop(0)
        if valued[option] in options:
            raise RuleError(f"{option} is given twice")
        options[valued[option]] = value
    return options


def _number(text: str, what: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise RuleError(f"{what}: {text} is no number above 0")
    return int(text)


def _cobalt_seconds(text: str) -> int:
    if re.fullmatch(r"\d+", text):
        return 60 * int(text)
    if not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", text):
        raise RuleError(f"-t {text}: minutes or HH:MM:SS")
    hours, minutes, seconds = map(int, text.split(":"))
    return 3600 * hours + 60 * minutes + seconds
