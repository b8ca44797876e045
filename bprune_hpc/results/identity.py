"""What defines a sweep's numbers, and in what environment they were made.

Two sweeps of one identity can be one: a resume compares. The environment changes the last bits
only; where it has changed, a file says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .._typing import AnyArray
from ..config.sweep_config import SweepConfig
from ..evaluators.selection import NAMES_IN_RESULTS
from ..graph.lifted import LiftedGraph
from ..job.provenance import SHARED_NOISE, Identity
from ..metrics.tasks import Classification, Task
from ..runner.datasets import OUT_OF_DISTRIBUTION, TRAINING, Examples
from ..runner.network import Network


def identity_of(config: SweepConfig, network: Network, examples: Sequence[Examples]) -> Identity:
    """What defines the numbers of a sweep."""
    test = examples[0]
    x = {one.name: one.x for one in examples}
    return {
        **network_identity(network),
        "data": _sha256([("x", test.x), ("label", test.summed_label)]),
        "ood data": (
            _sha256([("x", x[OUT_OF_DISTRIBUTION])]) if OUT_OF_DISTRIBUTION in x else None
        ),
        **_training(examples[-1]),
        **_feed(config),
        **test.record.choices,
        "task": network.task.name,
        "noise_scale": config.noise_scale,
        **_output_kind(network.task),
        "grid": f"{config.grid_kind}s",
        "seed": config.seed,
        "pairing": config.pairing,
        **_draw_noise(network),
        "criterion": config.criterion,
        "scope": config.scope,
        "granularity": config.granularity,
        "prior_scale": config.prior_scale,
        "prior of the graph": _prior(network),
        "pruned_weights": config.pruned_weights,
        "evaluator": NAMES_IN_RESULTS.get(network.evaluator, network.evaluator),
        "batch_size": min(config.batch_size, max(map(len, examples))),
    }


def _training(last: Examples) -> Identity:
    """Training data, where there are some: not of sweeps without, as files were before."""
    if last.name != TRAINING:
        return {}
    return {"training data": _sha256([("x", last.x), ("label", last.summed_label)])}


def network_identity(network: Network) -> Identity:
    """What defines the function and its weights, before pruning."""
    return {
        "checkpoint": _sha256(
            [*_named(network.posterior.loc), *_named(network.posterior.scale)],
            _named(network.fixed),
        ),
        "graph": graph_sha256(network.graph),
    }


def _prior(network: Network) -> str | None:
    if network.prior is None:
        return None
    return _sha256([(name, np.array([one.loc, one.scale])) for name, one in network.prior.items()])


def _feed(config: SweepConfig) -> Identity:
    """Values of placeholders; not of sweeps without, as files were before there were any."""
    said = ", ".join(f"{name}={value}" for name, value in sorted(config.feed.items()))
    return {"feed": said} if said else {}


def _draw_noise(network: Network) -> Identity:
    """Which examples share noise; not where all do, as in files before there was a choice."""
    if network.draw_noise == SHARED_NOISE:
        return {}
    block = f" of {network.noise_block}" if network.noise_block else ""
    return {"draw_noise": f"{network.draw_noise}{block}"}


def _output_kind(task: Task) -> Identity:
    """What outputs are taken for, where it is not what they were before there was a choice."""
    if not isinstance(task, Classification) or (
        task.output_kind == "logits" and not task.is_binary
    ):
        return {}
    return {"output_kind": f"{task.output_kind}{' of two classes' if task.is_binary else ''}"}


def graph_sha256(lifted: LiftedGraph) -> str:
    """Digest of the function that a lifted graph computes.

    Not of its bytes: names and order of operations, which a trace may change from process to
    process, do not count; what goes in is known by its role.
    """
    from ..tensorflow_import import import_graphs

    graph = import_graphs().GraphDef.FromString(lifted.graph_def)
    nodes = {node.name: node for node in graph.node}
    if graph.library.function or any(node.op == "NextIteration" for node in graph.node):
        whole = graph.SerializeToString(deterministic=True)  # loops: names and all
        return f"sha256 {hashlib.sha256(whole).hexdigest()}"
    fed = {lifted.input_tensor: "input"}
    fed |= {tensor: f"loc {name}" for name, tensor in lifted.loc_tensors.items()}
    fed |= {tensor: f"fixed {name}" for name, tensor in lifted.fixed_tensors.items()}
    known: dict[str, bytes] = {
        _output(tensor): hashlib.sha256(role.encode()).digest() for tensor, role in fed.items()
    }
    outputs = {"output": lifted.output_tensor, **lifted.output_tensors}
    total = hashlib.sha256(lifted.input_dtype.encode())
    for role, tensor in sorted(outputs.items()):
        total.update(role.encode() + _digest(_output(tensor), nodes, known))
    return f"sha256 {total.hexdigest()}"


def _digest(output: str, nodes: Mapping[str, Any], known: dict[str, bytes]) -> bytes:
    """Digest of an output: its operation, attributes and inputs; without recursion."""
    waiting = [output]
    while waiting:
        at = waiting[-1]
        name, _, port = at.rpartition(":")
        node = nodes[name]
        inputs = [_output(one) for one in node.input if not one.startswith("^")]
        missing = [one for one in inputs if one not in known]
        if at in known or not missing:
            waiting.pop()
            if at not in known:
                found = hashlib.sha256(f"{node.op}:{port}".encode())
                for key in sorted(node.attr):
                    if not key.startswith("_"):
                        value = node.attr[key].SerializeToString(deterministic=True)
                        found.update(key.encode() + hashlib.sha256(value).digest())
                for one in inputs:
                    found.update(known[one])
                known[at] = found.digest()
        else:
            waiting += missing
    return known[output]


def _output(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _named(arrays: Mapping[str, AnyArray]) -> list[tuple[str, AnyArray]]:
    return sorted(arrays.items())


def _sha256(*tables: Iterable[tuple[str, AnyArray]]) -> str:
    digest = hashlib.sha256()
    for table in tables:
        for name, array in table:
            digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        digest.update(b"|")
    return f"sha256 {digest.hexdigest()}"
