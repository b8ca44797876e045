"""The format ``tflite``: the network at its posterior mean, for the LiteRT interpreter.

``model.tflite`` has dense weights, ``model_sparse.tflite`` those that are mostly zero in TFLite's
sparse encoding, where the interpreter is right with it. TensorFlow's converter makes both of
``formats.tensorflow_layers``; it has no operation that draws from a posterior.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ExportError
from ..tensorflow_import import import_tensorflow, quiet_file_descriptor_2
from .bundle import why_no_layers
from .packing import PackedNetwork, pack
from .pruned_network import PrunedNetwork
from .reference import Reference, compare
from .tensorflow_layers import apply

TOLERANCE = 1e-5
"""As the interpreter adds long sums up one term after the other."""
_LOG = logging.getLogger(__name__)
_FILES = {"dense": "model.tflite", "sparse": "model_sparse.tflite"}
_INSTALL = "install it with: pip install 'bprune_hpc[export]'"


class Tflite:
    """See the module."""

    name = "tflite"
    place = "model.tflite"

    def why_not(self, network: PrunedNetwork) -> str | None:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        try:
            _import_interpreter()
        except ImportError as error:
            raise ConfigError(f"--formats=tflite: {error.name} is missing; {_INSTALL}") from error
        return why_no_layers(network)

    def write(self, network: PrunedNetwork, directory: Path) -> None:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        packed = pack(network, only_mean=True)
        for kind, file in _FILES.items():
            converted = _converted(network, packed, is_sparse=kind == "sparse")
            (directory / file).write_bytes(converted)

    def check(
        self, network: PrunedNetwork, directory: Path, reference: Reference
    ) -> dict[str, Any]:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        expected = reference.mean_outputs
        difference: dict[str, float] = {}
        for kind, file in _FILES.items():
            outputs = opened(directory / file)(reference.x)
            try:
                difference[kind] = compare(outputs, expected, f"tflite: {kind}", TOLERANCE)
            except ExportError:
                if kind == "dense":
                    raise
                # Some shapes of sparse weights the interpreter multiplies wrongly.
                _LOG.info(
                    "tflite: %s left out, as the interpreter gives other numbers for it", file
                )
                (directory / file).unlink()
        files = [file for kind, file in _FILES.items() if kind in difference]
        return {"files": files, "difference": difference}

    def runner(self, directory: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """See :class:`bprune_hpc.formats.size_and_speed.Runnable`."""
        return opened(directory / self.place)


def _import_interpreter() -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter


def opened(file: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What gives the outputs of a file in the LiteRT interpreter, on one thread."""
    with quiet_file_descriptor_2():
        interpreter = _import_interpreter()(model_path=str(file), num_threads=1)
        interpreter.allocate_tensors()
    (given,), (shown,) = interpreter.get_input_details(), interpreter.get_output_details()
    n_before: int | None = None

    def run(x: NDArray[Any]) -> NDArray[Any]:
        nonlocal n_before
        if n_before != len(x):
            interpreter.resize_tensor_input(given["index"], x.shape)
            interpreter.allocate_tensors()
            n_before = len(x)
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(shown["index"]))

    return run


def _converted(network: PrunedNetwork, packed: PackedNetwork, *, is_sparse: bool) -> bytes:
    tf = import_tensorflow()
    taken, values = network.fitting.network, packed.at_mean
    sizes = list(taken.shape[1:]) if taken.shape else [None]

    def outputs(x: Any) -> Any:
        examples = tf.cast(x, tf.float32)
        if packed.inputs is not None:
            flat = tf.reshape(examples, (-1, taken.n_values))
            examples = tf.gather(flat, packed.inputs.astype(np.int32), axis=1)
        examples = tf.reshape(examples, (-1, *packed.layers.input_shape))
        found = apply(tf, packed.layers, values, examples)
        return tf.reshape(found, (-1, math.prod(found.shape[1:])))

    return convert(outputs, sizes, taken.type.type, is_sparse=is_sparse)


def convert(
    outputs: Callable[[Any], Any],
    sizes: Sequence[int | None],
    dtype: Any,
    *,
    is_sparse: bool = False,
) -> bytes:
    """A TFLite file of a function of examples of some type and shape.

    Raises
    ------
    ExportError
        If the converter has an operation not.
    """
    tf = import_tensorflow()
    signature = tf.TensorSpec([None, *sizes], dtype, name="x")
    traced = tf.function(outputs, input_signature=[signature], autograph=False)
    function = traced.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if is_sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    try:
        with quiet_file_descriptor_2():
            return bytes(converter.convert())
    except Exception as error:  # of a private class of the converter's
        found = re.search(r"'(tf\.\w+)' op", str(error))
        what = f"has no {found[1]}" if found else f"says: {str(error).strip().splitlines()[0]}"
        raise ExportError(
            f"tflite: the converter {what}; leave it out (bundle and onnx take the network); "
            "nothing was kept"
        ) from error
