"""The format ``onnx``: three graphs of plain operations, written one by one.

``model.onnx`` is the network at its posterior mean; ``model_sample.onnx`` has standard normals of
the weights that are left as inputs, so that whoever runs it draws them; ``model_ensemble.onnx`` is
some draws of the sweep, side by side under one mask. What belongs here: these graphs. What does
not: what an operation is in ONNX (``formats.onnx_graph``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..metrics.tasks import Classification, Regression
from ..posterior.draws import Draw, replicates_of, standard_normal
from .bundle import why_no_layers
from .onnx_graph import GraphBuilder, Ordered, add_layers, import_onnx
from .packing import PackedNetwork, pack
from .portable import PackedTensor
from .pruned_network import PrunedNetwork
from .reference import Reference, compare, tolerance_of

N_MEMBERS = 8
_N_DRAWS = 4
_INSTALL = "install it with: pip install 'bprune_hpc[export]'"
_FILES = {"mean": "model.onnx", "sample": "model_sample.onnx", "ensemble": "model_ensemble.onnx"}


class Onnx:
    """See the module."""

    name = "onnx"
    place = "model.onnx"

    def why_not(self, network: PrunedNetwork) -> str | None:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        check_installed()
        return why_no_layers(network)

    def write(self, network: PrunedNetwork, directory: Path) -> None:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        whole, at_mean = pack(network), pack(network, only_mean=True)
        models = {
            "mean": _mean(network, at_mean),
            "sample": _sample(network, whole),
            "ensemble": _ensemble(network, whole),
        }
        for kind, model in models.items():
            (directory / _FILES[kind]).write_bytes(model.SerializeToString(deterministic=True))

    def check(
        self, network: PrunedNetwork, directory: Path, reference: Reference
    ) -> dict[str, Any]:
        """See :class:`bprune_hpc.formats.interface.Format`."""
        x, packed, tolerance = reference.x, pack(network), tolerance_of(network)
        run = {kind: opened(directory / name) for kind, name in _FILES.items()}
        (mean,) = run["mean"]({"x": x})
        found, expected = {"mean": mean}, {"mean": reference.mean_outputs}
        draws = draws_of(network, max(_N_DRAWS, N_MEMBERS))
        of_draws = reference.sample(x, range(len(draws)))
        samples = [
            run["sample"]({"x": x, **_noise(network, packed, draw)})[0] for draw in draws[:_N_DRAWS]
        ]
        found["sample"], expected["sample"] = np.stack(samples), of_draws[:_N_DRAWS]
        members, *averages = run["ensemble"]({"x": x})
        found["ensemble"], expected["ensemble"] = members, of_draws[:N_MEMBERS]
        units = {}
        for name, values in zip(_averages_of(network), averages, strict=True):
            found[name] = values
            expected[name] = _averaged(network, name, of_draws[:N_MEMBERS])
            units[name] = max(1.0, float(np.abs(of_draws).max(initial=0)))
        return {
            "files": list(_FILES.values()),
            "members": N_MEMBERS,
            "difference": {
                name: compare(
                    found[name], expected[name], f"onnx: {name}", tolerance, units.get(name)
                )
                for name in found
            },
        }

    def runner(self, directory: Path) -> Callable[[NDArray[Any]], Any]:
        """See :class:`bprune_hpc.formats.size_and_speed.Runnable`."""
        run = opened(directory / self.place)
        return lambda x: run({"x": x})


def check_installed() -> None:
    """Raise ConfigError unless ONNX and its runtime are installed."""
    for find in (import_onnx, _import_runtime):
        try:
            find()
        except ImportError as error:
            raise ConfigError(f"--formats=onnx: {error.name} is missing; {_INSTALL}") from error


def _import_runtime() -> Any:
    import onnxruntime

    return onnxruntime


def opened(file: Path) -> Callable[[dict[str, NDArray[Any]]], list[NDArray[Any]]]:
    """What gives the outputs of a file in onnxruntime, on one thread."""
    runtime = _import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        str(file), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return lambda inputs: list(session.run(None, inputs))


def draws_of(network: PrunedNetwork, n_draws: int) -> list[Draw]:
    """The first draws of the sweep."""
    pairing = network.sampling.pairing
    whole = n_draws + n_draws % 2
    draws = [draw for replicate in replicates_of(whole, pairing) for draw in replicate]
    return draws[:n_draws]


def _mean(network: PrunedNetwork, packed: PackedNetwork) -> Any:
    builder = GraphBuilder()
    given, examples = _given(builder, network, packed)
    values = packed.at_mean

    def weight(name: str, ordered: Ordered) -> str:
        return builder.weights(np.ascontiguousarray(ordered(values[name])), name)

    outputs = _outputs(builder, network, packed, weight, examples)
    return _model(builder, network, [given], [(outputs, ["n_examples", None])], "mean")


def _sample(network: PrunedNetwork, packed: PackedNetwork) -> Any:
    builder = GraphBuilder()
    given, examples = _given(builder, network, packed)
    inputs = [given]

    def weight(name: str, ordered: Ordered) -> str:
        tensor = packed.tensors[name]
        if tensor.scale is None:
            return builder.weights(np.ascontiguousarray(ordered(tensor.dense(tensor.loc))), name)
        noise = f"noise/{name}"
        inputs.append(_value(builder, noise, np.float32, [tensor.loc.size]))
        deviation = builder.add("Mul", noise, builder.constant(tensor.scale, f"{name}/scale"))
        drawn = builder.add("Add", builder.constant(tensor.loc, f"{name}/loc"), deviation)
        return builder.scattered(drawn, tensor, ordered, name)

    outputs = _outputs(builder, network, packed, weight, examples)
    return _model(builder, network, inputs, [(outputs, ["n_examples", None])], "sample")


def _ensemble(network: PrunedNetwork, packed: PackedNetwork) -> Any:
    builder = GraphBuilder()
    given, examples = _given(builder, network, packed)
    members = []
    for draw in draws_of(network, N_MEMBERS):
        noise = _noise(network, packed, draw)

        def weight(name: str, ordered: Ordered, noise: dict[str, Any] = noise) -> str:
            tensor = packed.tensors[name]
            drawn = tensor.loc
            if tensor.scale is None:
                return builder.weights(np.ascontiguousarray(ordered(tensor.dense(drawn))), name)
            drawn = drawn + tensor.scale * noise[f"noise/{name}"]
            return builder.scattered(builder.constant(drawn, name), tensor, ordered, name)

        outputs = _outputs(builder, network, packed, weight, examples)
        axis = builder.constant(np.array([0], np.int64))
        members.append(builder.add("Unsqueeze", outputs, axis))
    together = builder.add("Concat", *members, axis=0, name="members")
    shown: list[tuple[str, list[Any]]] = [(together, [N_MEMBERS, "n_examples", None])]
    for name in _averages_of(network):
        shown.append((_add_average(builder, network, name, together), ["n_examples", None]))
    return _model(builder, network, [given], shown, "ensemble")


def _outputs(
    builder: GraphBuilder,
    network: PrunedNetwork,
    packed: PackedNetwork,
    weight: Callable[[str, Ordered], str],
    examples: str,
) -> str:
    found = add_layers(builder, packed.layers, packed.shapes, weight, examples)
    return builder.add("Flatten", found, axis=1, name="outputs")


def _given(builder: GraphBuilder, network: PrunedNetwork, packed: PackedNetwork) -> tuple[Any, str]:
    """The graph's input, and the examples as the first layer takes them."""
    taken = network.fitting.network
    sizes = list(taken.shape[1:]) if taken.shape else [None]
    given = _value(builder, "x", taken.type.type, ["n_examples", *sizes])
    examples = "x"
    if taken.type != np.float32:
        examples = builder.add("Cast", examples, to=builder.onnx.TensorProto.FLOAT)
    if packed.inputs is not None:
        examples = builder.add("Flatten", examples, axis=1)
        examples = builder.add("Gather", examples, builder.constant(packed.inputs), axis=1)
    shape = np.array([-1, *packed.layers.input_shape], np.int64)
    return given, builder.add("Reshape", examples, builder.constant(shape))


def _value(builder: GraphBuilder, name: str, kind: Any, shape: list[Any]) -> Any:
    helper = builder.onnx.helper
    return helper.make_tensor_value_info(
        builder.name(name), helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape
    )


def _model(
    builder: GraphBuilder,
    network: PrunedNetwork,
    inputs: list[Any],
    outputs: list[tuple[str, list[Any]]],
    kind: str,
) -> Any:
    helper, number = builder.onnx.helper, builder.onnx.TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, number, shape) for name, shape in outputs]
    words = f"{kind} of a pruned Bayesian network: {network.cut}"
    return builder.model(inputs, values, kind, words)


def _noise(
    network: PrunedNetwork, packed: PackedNetwork, draw: Draw
) -> dict[str, NDArray[np.float32]]:
    """Standard normals of the weights that are left, by the names of the graph's inputs."""
    return {
        f"noise/{name}": np.float32(draw.sign) * _normals(network, tensor, draw)
        for name, tensor in packed.tensors.items()
        if tensor.scale is not None
    }


def _normals(network: PrunedNetwork, tensor: PackedTensor, draw: Draw) -> NDArray[np.float32]:
    whole = standard_normal(network.sampling.seed, tensor.name, draw.noise, tensor.full_shape)
    return whole.reshape(-1)[tensor.full_places]


def _averages_of(network: PrunedNetwork) -> tuple[str, ...]:
    """What an ensemble gives besides its members' outputs."""
    return (
        ("mean_probability",) if isinstance(network.task, Classification) else ("predictive_mean",)
    )


def _add_average(builder: GraphBuilder, network: PrunedNetwork, name: str, members: str) -> str:
    task = network.task
    values = members
    if isinstance(task, Regression):
        starts, stops, axes = (
            builder.constant(np.array([number], np.int64)) for number in (0, task.n_targets, 2)
        )
        values = builder.add("Slice", values, starts, stops, axes)
    elif task.is_binary:
        one = values
        if task.output_kind == "logits":
            one = builder.add("Sigmoid", one)
        zero = builder.add("Sub", builder.constant(np.float32(1)), one)
        values = builder.add("Concat", zero, one, axis=2)
    elif task.output_kind == "logits":
        values = builder.add("Softmax", values, axis=2)
    axis = builder.constant(np.array([0], np.int64))
    return builder.add("ReduceMean", values, axis, keepdims=0, name=name)


def _averaged(network: PrunedNetwork, name: str, outputs: NDArray[Any]) -> NDArray[Any]:
    task = network.task
    if isinstance(task, Regression):
        return outputs[..., : task.n_targets].mean(axis=0)
    logits = task.logits(np.moveaxis(outputs, 2, 1)).astype(np.float64)
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = weight / weight.sum(axis=1, keepdims=True)
    return np.moveaxis(probability, 1, 2).mean(axis=0)
