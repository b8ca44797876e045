"""Opens damaged networks by the thousand, and tells what came of each: ``python fuzz_cases.py``.

    python -m tests.robustness.fuzz_cases [-n 2000] [--only SUBSTRING] [--case NUMBER]

TensorFlow is loaded once; every case is opened in a fork of its own, under limits of time and
memory, so that a crash ends that fork alone. The parent must never have run TensorFlow: threads
do not survive a fork. What belongs here: planning, forking, judging. What does not: the damage
(``fuzz_mutations``), the networks (``fuzz_sources``).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.robustness.fuzz_sources import SOURCES

ROOT = Path(__file__).resolve().parents[2]

SEED = 20200714
N_CASES = 2000
TIME_LIMIT_S = 120  # a case takes a tenth of a second
SPARE_KIB = 64 * 1024
ADDRESS_SPACE = 8 << 30
GOOD = ("refused", "right", "different")
BAD = ("undetected", "traceback", "hang", "memory", "crash", "unclear")


@dataclass(frozen=True)
class Damage:
    """One case: damage of ``kind`` to the file of a ``role`` in a source."""

    number: int
    source: str
    role: str
    kind: str


@dataclass(frozen=True)
class Outcome:
    """What came of it; ``peak_kib`` is over the memory before, ``what`` of :data:`GOOD`, BAD."""

    damage: Damage
    what: str
    message: str = ""
    seconds: float = 0.0
    peak_kib: int = 0
    limit_kib: int = 0


class Sources:
    """Undamaged networks in a temporary directory, and what opening them gives."""

    def __init__(self, directory: Path, theta: Path | None) -> None:
        self.directory = directory
        _load()
        said = _forked(lambda: _made(directory, theta), 600)
        if said.get("what") != "made":
            raise RuntimeError(f"the networks cannot be made: {said}")
        self.names = sorted(path.name for path in directory.iterdir())
        unknown = [name for name in self.names if {*self.files(name)} != {*SOURCES.get(name, ())}]
        if unknown:
            raise RuntimeError(f"not as fuzz_sources.SOURCES has them: {unknown}")
        self.expected: dict[str, Any] = {}
        self.nodes: dict[str, list[str]] = {}
        for name in self.names:
            place = directory / name
            said = _forked(lambda place=place, name=name: _open(place, name), 600)
            if said.get("what") != "opened":
                raise RuntimeError(f"{name} cannot be opened undamaged: {said}")
            self.expected[name] = said
            self.nodes[name] = _needed_nodes(place)

    def files(self, name: str) -> dict[str, list[Path]]:
        """The files of a source by their roles, relative to its directory."""
        found: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(p for p in (self.directory / name).rglob("*") if p.is_file()):
            role = _role(path)
            if role:
                found[role].append(path.relative_to(self.directory / name))
        return found


def plan(n_cases: int) -> list[Damage]:
    """The first so many cases of a fixed sequence in which all kinds of damage take turns.

    It is the same whichever sources there are. What is larger than any memory comes first, so
    that every source sees it however few cases there are.
    """
    from tests.robustness.fuzz_mutations import BYTES, GRAPH, INDEX, KERAS

    kinds = {
        "meta": (*BYTES, "missing", *GRAPH, *GRAPH),
        "saved_model": (*BYTES, "missing", *GRAPH, *GRAPH),
        "index": (*BYTES, "missing", *INDEX),
        "data": (*BYTES, "missing"),
        "v1": (*BYTES, "missing"),
        "keras": (*BYTES, "missing", *KERAS),
        "text": (*BYTES, "missing"),
    }
    pairs = [
        (name, role, kind)
        for name, roles in SOURCES.items()
        for role in roles
        for kind in kinds[role]
        if kind != "giant archive" or name == "keras keras"
    ]
    rng = np.random.default_rng(SEED)
    order = [index for index, (_, _, kind) in enumerate(pairs) if kind.startswith("giant")]
    while len(order) < n_cases:
        order.extend(rng.permutation(len(pairs)).tolist())
    return [Damage(number, *pairs[index]) for number, index in enumerate(order[:n_cases])]


def run(sources: Sources, damages: Iterable[Damage], keep: Path | None = None) -> Iterator[Outcome]:
    """Open every damaged network, one after another; ``keep`` is where the last one stays."""
    for damage in damages:
        yield _run_one(sources, damage, keep)


def table(outcomes: Iterable[Outcome]) -> str:
    """How many cases of each kind of damage ended in which way."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        counts[outcome.damage.role, outcome.damage.kind][outcome.what] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    columns = [*GOOD, *(what for what in BAD if total[what])]
    lines = [f"{'file':<12} {'damage':<18}" + "".join(f"{c:>11}" for c in ("cases", *columns))]
    for (role, kind), found in [*sorted(counts.items()), (("all", ""), total)]:
        numbers = [found.total(), *(found[column] for column in columns)]
        lines.append(f"{role:<12} {kind:<18}" + "".join(f"{n:>11}" for n in numbers))
    return "\n".join(lines)


def _load() -> None:
    """Import what a fork needs, and run none of it."""
    from bprune_hpc.tensorflow_import import import_tensorflow

    import_tensorflow()
    for name in ("bprune_hpc.checkpoints.case", "bprune_hpc.graph.lifted", "h5py",
                 "tests.helpers.small_models", "tf_keras.layers",
                 "tensorflow_probability.python.layers",
                 "tensorflow.python.checkpoint.graph_view"):  # fmt: skip
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _made(directory: Path, theta: Path | None) -> dict[str, Any]:
    from tests.robustness import fuzz_sources

    fuzz_sources.make_all(directory, theta)
    return {"what": "made"}


def _role(path: Path) -> str | None:
    if path.suffix in (".meta", ".index"):
        return path.suffix[1:]
    if ".data-" in path.name:
        return "data"
    if path.name == "saved_model.pb":
        return "saved_model"
    if path.suffix in (".h5", ".keras"):
        return "keras"
    if path.name in ("checkpoint", "Ops_name_BNN.txt"):
        return "text"
    return "v1" if path.name.startswith("model.ckpt") else None


def _needed_nodes(place: Path) -> list[str]:
    """Names of the nodes that the network is made of; of functions without the calls' names."""
    from bprune_hpc.checkpoints import saved_model, saver
    from bprune_hpc.graph import endpoints
    from bprune_hpc.graph.inlining import flatten
    from bprune_hpc.graph.nodes import ancestors

    if (place / "saved_model.pb").exists():
        meta = saved_model._meta_graph(place / "saved_model.pb")
        (end,) = meta.signature_def["serving_default"].outputs.values()
        nodes, moved = flatten(meta.graph_def)
        tensor = endpoints.named_tensor(nodes, moved, end.name, "", "")
        return ancestors(nodes, [tensor])
    metas = list(place.glob("*.meta"))
    if not metas:
        return []
    graph_def = saver.read_meta_graph(metas[0].with_suffix("")).graph_def
    nodes, _ = flatten(graph_def)
    return ancestors(nodes, [endpoints.find_logits(nodes, "")])


def _run_one(sources: Sources, damage: Damage, keep: Path | None) -> Outcome:
    rng = np.random.default_rng([SEED, damage.number])
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "case"
        shutil.copytree(sources.directory / damage.source, place, copy_function=os.symlink)
        files = sources.files(damage.source)[damage.role]
        path = place / files[rng.integers(len(files))]
        _damage(path, damage, rng, sources.nodes[damage.source])
        n_bytes = sum(p.stat().st_size for p in place.rglob("*") if p.is_file())
        if keep is not None:
            shutil.copytree(place, keep, dirs_exist_ok=True)
        gc.freeze()
        said = _forked(lambda: _open(place, damage.source), TIME_LIMIT_S)
        limit = SPARE_KIB + 2 * n_bytes // 1024
        return _judged(said, damage, sources.expected[damage.source], limit)


def _damage(path: Path, damage: Damage, rng: np.random.Generator, names: list[str]) -> None:
    from tests.robustness import fuzz_mutations as mutations

    data, kind = path.read_bytes(), damage.kind
    if kind == "missing":
        path.unlink()
    elif kind in mutations.BYTES:
        mutations.replace(path, mutations.BYTES[kind](data, rng, names))
    elif damage.role == "index":
        mutations.replace(path, mutations.index_entry(data, rng, kind))
    elif damage.role == "keras":
        is_zip = path.suffix == ".keras"
        mutations.replace(path, mutations.keras(data, rng, kind, is_zip))
    else:
        from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        message = (SavedModel if damage.role == "saved_model" else MetaGraphDef).FromString(data)
        meta = message.meta_graphs[0] if damage.role == "saved_model" else message
        mutations.graph(meta.graph_def, rng, kind, names)
        mutations.replace(path, message.SerializeToString())


def _open(place: Path, source: str) -> dict[str, Any]:
    """Open a network as a user would, and evaluate it; runs in the fork."""
    from bprune_hpc.checkpoints import keras_tracing
    from bprune_hpc.checkpoints.case import read_case
    from bprune_hpc.errors import BpruneError
    from bprune_hpc.evaluators.graph import GraphNetwork
    from tests.robustness import fuzz_sources

    model = fuzz_sources.model_of(source)
    if model is not None:
        # What building a model costs by itself is no matter of the file.
        keras_tracing.trace(model, keras_tracing.build_model(model))
        gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _status("VmRSS"), time.perf_counter()
    said: dict[str, Any] = {}
    peak = 0  # of reading; what evaluation takes is no matter of the file
    try:
        case = read_case(place, model=model)
        peak = _status("VmHWM") - before
        said = {"tables": _digest(case)}
        shape = [size or 3 for size in case.graph.input_shape or (3,)]
        if np.prod([float(size) for size in shape]) < 1e6:
            x = np.random.default_rng(0).random(shape).astype(case.graph.input_dtype)
            with GraphNetwork(case.graph, case.fixed) as network:
                said["logits"] = network(x, case.posterior.loc).tobytes().hex()
        said["what"] = "opened"
    except BpruneError as error:
        said = {"what": "refused", "message": str(error)}
    said["seconds"] = time.perf_counter() - start
    said["peak_kib"] = peak or _status("VmHWM") - before
    return said


def _digest(case: Any) -> str:
    import hashlib

    digest = hashlib.sha256()
    for table in (case.posterior.loc, case.posterior.scale, case.fixed):
        for name, value in sorted(table.items()):
            digest.update(f"{name} {value.shape} {value.dtype} ".encode() + value.tobytes())
    return digest.hexdigest()


def _judged(
    said: dict[str, Any], damage: Damage, expected: dict[str, Any], limit_kib: int
) -> Outcome:
    what, message = said["what"], said.get("message", "")
    peak, seconds = said.get("peak_kib", 0), said.get("seconds", 0.0)
    if what == "opened":
        same = all(said.get(key) == expected[key] for key in ("tables", "logits"))
        what = "right" if same else "different"
        if what == "different" and damage.role in ("data", "v1"):
            what = "undetected"
    if what == "refused" and ("\n" in message or ": " not in message or len(message) > 1000):
        what = "unclear"
    if what in GOOD and peak > limit_kib:
        what = "memory"
    return Outcome(damage, what, message, seconds, peak, limit_kib)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def _forked(task: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What a task says in a fork of this process, or how that ended."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                said = task()
            except BaseException:
                said = {"what": "traceback", "message": traceback.format_exc()[-3000:]}
            with os.fdopen(sender, "w") as stream:
                json.dump(said, stream)
        finally:
            os._exit(0)
    os.close(sender)
    text, end = b"", time.monotonic() + seconds
    with os.fdopen(receiver, "rb") as stream:
        while True:
            ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return {"what": "hang", "message": f"no end within {seconds} s"}
            part = os.read(stream.fileno(), 1 << 16)
            if not part:
                break
            text += part
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) or not text:
        return {"what": "crash", "message": f"status {status}"}
    said: dict[str, Any] = json.loads(text)
    return said


def _theta() -> Path | None:
    place = Path(os.environ.get("BPRUNE_TEST_DATA", ROOT.parent / "shared" / "data"))
    return place / "theta_2rank_250" if (place / "theta_2rank_250").is_dir() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=N_CASES, help="number of cases")
    parser.add_argument("--only", default="", help="cases whose 'source/file/damage' has this")
    parser.add_argument("--log", type=Path, help="file for one line on every case")
    parser.add_argument("--case", type=int, help="one case; its files stay in fuzz_case/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sources = Sources(Path(name), _theta())
        damages, keep = plan(options.n), None
        damages = [d for d in damages if options.only in f"{d.source}/{d.role}/{d.kind}"]
        if options.case is not None:
            damages, keep = [d for d in damages if d.number == options.case], Path("fuzz_case")
        absent = Counter(d.source for d in damages if d.source not in sources.names)
        damages = [d for d in damages if d.source in sources.names]
        start = time.monotonic()
        outcomes = []
        with (options.log or Path(os.devnull)).open("w", buffering=1) as log:
            for outcome in run(sources, damages, keep):
                outcomes.append(outcome)
                log.write(f"{outcome}\n")
                if outcome.what in BAD or options.case is not None:
                    sys.stdout.write(f"{outcome}\n".replace("\\n", "\n"))
        sys.stdout.write(table(outcomes) + "\n")
        for name, n_cases in absent.items():
            sys.stdout.write(f"{n_cases} more cases are of '{name}', which is not here\n")
        slowest = max(outcomes, key=lambda o: o.seconds)
        largest = max(outcomes, key=lambda o: o.peak_kib - o.limit_kib)
        sys.stdout.write(
            f"{len(outcomes)} cases in {time.monotonic() - start:.0f} s; slowest "
            f"{slowest.seconds:.1f} s; closest to its limit: {largest.peak_kib / 1024:.0f} MiB of "
            f"{largest.limit_kib / 1024:.0f} ({largest.damage})\n"
        )
        return int(any(outcome.what in BAD for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
