"""The format ``bundle``: the pruned posterior alone, and one file that predicts with it.

``predict.py`` needs NumPy alone; it is ``formats.portable`` with what that takes of this package,
so that both are one text. Beside it lie ``network.json`` (operations, shapes, task) and
``weights.npz`` (means, deviations and places of the weights that are left).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..checkpoints import saver
from ..errors import ExportError
from ..graph.layer_graph import LayerGraph, UnknownOperation
from ..graph.nodes import parse_tensor
from ..metrics.tasks import Classification
from ..sources import HOME
from .interface import UnknownLayerError
from .packing import PackedNetwork, pack
from .portable import DESCRIPTION, DIGESTS, FORMAT, OPERATIONS, WEIGHTS, PackedTensor
from .pruned_network import PrunedNetwork
from .reference import Reference, compare, tolerance_of
from .single_file import single_file

TOLERANCE_16_BITS = 1e-3
_LOC_ERROR = 2.0**-10
"""By how much a mean may be off in 16 bits, in units of its own deviation."""
_SCALE_ERROR = 2.0**-8
"""The same of a deviation, as a share of it."""
_HEADER = """Predicts with the pruned Bayesian network in this directory; needs NumPy alone.

    from predict import load
    net = load()
    net.mean(x)                          # outputs at the posterior mean
    net.sample(x, seed=0, n_draws=10)    # outputs under draws of the weights
    net.predict(x, n_draws=200, seed=0)  # averages over draws, and uncertainties

Written by bprune_hpc, of its own source files."""


class Bundle:
    """See the module."""

    name = "bundle"
    place = "bundle"

    def why_not(self, network: PrunedNetwork) -> str | None:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        return why_no_layers(network)

    def write(self, network: PrunedNetwork, directory: Path) -> None:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        home = directory / self.place
        home.mkdir()
        packed = pack(network)
        described, arrays = _tensors(packed, network.bits)
        task = network.task
        contents = {
            "format": FORMAT,
            "input": asdict(network.fitting.network),
            "input_scale": network.fitting.input_scale,
            "layout": network.fitting.layout,
            "class_names": network.class_names,
            "task": {"name": task.name, **asdict(task)},
            "input_shape": packed.layers.input_shape,
            "inputs": None if packed.inputs is None else packed.inputs.tolist(),
            "largest": max(math.prod(shape) for shape in packed.shapes),
            "draw_noise": dict(zip(("kind", "block"), network.draw_noise, strict=True)),
            "is_by_example": network.is_by_example,
            "nodes": _nodes(packed.layers),
            "tensors": described,
        }
        (home / DESCRIPTION).write_text(json.dumps(contents) + "\n")
        np.savez_compressed(home / WEIGHTS, **arrays)
        digests = saver.file_sha256([home / DESCRIPTION, home / WEIGHTS])
        lines = [f"{digest}  {name}\n" for name, digest in digests.items()]
        (home / DIGESTS).write_text("".join(lines))
        source = single_file(HOME / "formats" / "portable.py", _HEADER)
        (home / "predict.py").write_text(source)

    def check(
        self, network: PrunedNetwork, directory: Path, reference: Reference
    ) -> dict[str, Any]:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        tolerance = tolerance_of(network) if network.bits == 32 else TOLERANCE_16_BITS
        where = "bundle" if network.bits == 32 else "bundle in 16 bits (leave out --bits for 32)"
        with opened(directory / self.place) as predict:
            net = predict.load()
            x, sampling = reference.x, network.sampling
            as_is = {"input_scale": "none", "batch_size": sampling.batch_size}
            chosen = {"seed": sampling.seed, "pairing": sampling.pairing}
            found = {"mean": net.mean(x, **as_is)}
            expected = {"mean": _shown(network, reference.mean_outputs)}
            found["sample"] = net.sample(x, n_draws=_N_DRAWS, **chosen, **as_is)
            of_draws = reference.sample(x, range(_N_DRAWS))
            expected["sample"] = np.stack([_shown(network, outputs) for outputs in of_draws])
            predictive = net.predict(x, n_draws=_N_DRAWS, **chosen, **as_is)
            own = reference.predict(x, _N_DRAWS)
            units = units_of(network, expected["sample"])
            for name in units:
                found[name], expected[name] = getattr(predictive, name), getattr(own, name)
        return {
            "bits": network.bits,
            "difference": {
                name: compare(
                    found[name], expected[name], f"{where}: {name}", tolerance, units.get(name)
                )
                for name in found
            },
        }

    def runner(self, directory: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """See :class:`bprune_hpc.formats.size_and_speed.Runnable`."""
        with opened(directory / self.place) as predict:
            net = predict.load()
        return lambda x: net.mean(x, len(x), input_scale="none")


_N_DRAWS = 4


def units_of(network: PrunedNetwork, outputs: NDArray[Any]) -> dict[str, float]:
    """What differences of each quantity of a prediction are a share of.

    Where outputs may be off by a share of the largest of them, probabilities and entropies (in
    nats) may be by as much, and variances by that times the outputs.
    """
    largest = float(np.abs(outputs).max(initial=0))
    if isinstance(network.task, Classification):
        names = (
            "mean_probability", "predictive_entropy", "expected_entropy", "mutual_information",
        )  # fmt: skip
        return dict.fromkeys(names, max(1.0, largest))
    squares = dict.fromkeys(("epistemic_variance", "aleatoric_variance"), largest**2)
    return dict.fromkeys(("predictive_mean", "predictive_sd"), largest) | squares


def why_no_layers(network: PrunedNetwork) -> str | None:
    """Why a network cannot be written as operations one by one; None where it can."""
    layers, graph = network.found_layers, network.unpruned.graph
    if isinstance(layers, UnknownOperation):
        if parse_tensor(graph.output_tensors.get("scale", ""))[0] == layers.name:
            return (
                f"its standard deviation ('{layers.name}') depends on the example, which this "
                "format has not; checkpoint and savedmodel take any network"
            )
        return (
            f"'{layers.name}' ({layers.operation}) is none of the operations that this format has; "
            "checkpoint and savedmodel take any network"
        )
    if layers is None:
        return (
            "it has two outputs, which this format has not; checkpoint and savedmodel take any "
            "network"
        )
    return None


@contextlib.contextmanager
def opened(home: Path) -> Iterator[ModuleType]:
    """The module ``predict`` of a bundle, as it is imported there."""
    name = f"predict_{secrets.token_hex(8)}"
    spec = importlib.util.spec_from_file_location(name, home / "predict.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    leaves_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    except Exception as error:
        if not isinstance(error, getattr(module, "BpruneError", ())):
            raise
        raise ExportError(f"bundle: predict.py: {error}; nothing was kept") from error
    finally:
        del sys.modules[name]
        sys.dont_write_bytecode = leaves_bytecode


def _shown(network: PrunedNetwork, outputs: NDArray[Any]) -> NDArray[Any]:
    """Logits of outputs; a regression's stay as they are."""
    task = network.task
    return task.logits(outputs.T[None])[0].T if isinstance(task, Classification) else outputs


def _nodes(layers: LayerGraph) -> list[dict[str, Any]]:
    """Operations by name, with their fields and ``inputs``; see ``portable.layers_from``."""
    for node in layers.nodes:
        if type(node.operation).__name__ not in OPERATIONS:
            raise UnknownLayerError(node.operation)
    return [
        {
            "operation": type(node.operation).__name__,
            **asdict(node.operation),
            "inputs": list(node.inputs),
        }
        for node in layers.nodes
    ]


def _tensors(
    packed: PackedNetwork, bits: int
) -> tuple[dict[str, dict[str, Any]], dict[str, NDArray[Any]]]:
    """What JSON holds of each tensor, and the arrays; see ``PackedTensor.read``."""
    described: dict[str, dict[str, Any]] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for number, (name, tensor) in enumerate(packed.tensors.items()):
        key = f"t{number}"
        described[name] = {
            "name": tensor.name,
            "key": key,
            "shape": list(tensor.shape),
            "full_shape": list(tensor.full_shape),
            "is_part": [axis is not None for axis in tensor.axes],
        }
        for axis, left in enumerate(tensor.axes):
            if left is not None:
                arrays[f"{key}/axis{axis}"] = _narrow(left)
        arrays |= {f"{key}/{part}": values for part, values in _values(tensor, bits)}
    return described, arrays


def _values(tensor: PackedTensor, bits: int) -> Iterator[tuple[str, NDArray[Any]]]:
    if tensor.places is not None:
        rows, columns = np.divmod(tensor.places, tensor.shape[-1])
        n_rows = int(np.prod(tensor.shape[:-1]))
        yield "indptr", _narrow(np.searchsorted(rows, np.arange(n_rows + 1)))
        yield "indices", _narrow(columns)
    if tensor.scale is None or bits == 32:
        yield "loc", tensor.loc
        if tensor.scale is not None:
            yield "scale", tensor.scale
        return
    for part, values, error in (
        ("loc", tensor.loc, _LOC_ERROR * tensor.scale),
        ("scale", tensor.scale, _SCALE_ERROR * tensor.scale),
    ):
        narrow, exact = in_16_bits(values, error)
        yield part, narrow
        if exact.size:
            yield f"{part}_exact", exact


def in_16_bits(
    values: NDArray[np.float32], error: NDArray[np.float32]
) -> tuple[NDArray[np.float16] | NDArray[np.uint16], NDArray[np.float32]]:
    """Numbers as float16, or as the bits of bfloat16, whichever serves more of them.

    Parameters
    ----------
    values : float32 array
    error : float32 array
        By how much each may be off.

    Returns
    -------
    float16 or uint16 array
        NaN in place of a number that would be further off.
    float32 array
        Those numbers.
    """
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    bits = values.view(np.uint32).astype(np.uint64)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    of_half, of_upper = half.astype(np.float32), (upper.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):
        off_half, off_upper = (~(abs(one - values) <= error) for one in (of_half, of_upper))
    if np.count_nonzero(off_half) <= np.count_nonzero(off_upper):
        half[off_half] = np.nan
        return half, values[off_half]
    upper[off_upper] = 0x7FC0
    return upper, values[off_upper]


def _narrow(numbers: NDArray[np.integer]) -> NDArray[np.integer]:
    """The same in the smallest type that holds them."""
    types: tuple[DTypeLike, ...] = (np.uint8, np.uint16, np.uint32, np.uint64)
    largest = int(numbers.max(initial=0))
    return numbers.astype(next(one for one in types if largest <= np.iinfo(np.dtype(one)).max))
