"""A TensorFlow SavedModel of the pruned posterior: ``mean``, ``sample`` and ``predict``.

    net = tf.saved_model.load("DIR/savedmodel")
    net.signatures["predict"](x=x, seed=tf.constant(0, tf.int64), n_draws=tf.constant(200))

Stateless: a seed gives the same bits each time, also when it is loaded again. The normals are
TensorFlow's, not those of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..accumulators.classification import MAX_NLL
from ..errors import ExportError
from ..metrics.tasks import Classification, Regression
from ..tensorflow_import import import_tensorflow, limit_threads
from .pruned_network import PrunedNetwork
from .reference import Reference, compare

_N_DRAWS = 32
_MOST_ERRORS = 8.0
"""Monte Carlo errors by which averages over draws may differ: of a million, none does by chance."""


class SavedModel:
    """See :class:`bprune_hpc.formats.interface.Format`."""

    name = "savedmodel"
    place = "savedmodel"

    def why_not(self, network: PrunedNetwork) -> str | None:
        """See :class:`Format`."""
        return None  # whatever can be lifted is a graph

    def write(self, network: PrunedNetwork, directory: Path) -> None:
        """See :class:`Format`."""
        tensorflow = import_tensorflow()
        limit_threads(*network.opening.threads)
        module = tensorflow.Module()
        signatures = _functions(network, module)
        # As attributes too, for who does not know signatures.
        module.mean, module.sample, module.predict = signatures.values()
        tensorflow.saved_model.save(module, str(directory / self.place), signatures=signatures)

    def check(
        self, network: PrunedNetwork, directory: Path, reference: Reference
    ) -> dict[str, Any]:
        """See :class:`Format`."""
        tensorflow = import_tensorflow()
        where, x = f"--formats={self.name}", reference.x
        first, again = (
            tensorflow.saved_model.load(str(directory / self.place)).signatures for _ in range(2)
        )

        def call(signatures: Any, name: str, *numbers: int) -> dict[str, NDArray[Any]]:
            types = (tensorflow.int64, tensorflow.int32)
            given = {
                key: tensorflow.constant(number, dtype)
                for key, number, dtype in zip(("seed", "n_draws"), numbers, types, strict=False)
            }
            found = signatures[name](x=tensorflow.constant(x), **given)
            return {key: value.numpy() for key, value in found.items()}

        off_by = compare(
            _joined(network, call(first, "mean")), _product(network, reference.mean_outputs),
            f"{where}, mean",
        )  # fmt: skip
        once = call(first, "predict", 7, 4)
        for name, value in call(again, "predict", 7, 4).items():
            if not np.array_equal(value, once[name]):
                raise ExportError(f"{where}: {name} of one seed is not the same when loaded again")
        found = np.stack(
            [_joined(network, call(first, "sample", seed)) for seed in range(_N_DRAWS)]
        )
        expected = np.stack(
            [
                _product(network, outputs)
                for outputs in reference.sample(x, [2 * pair for pair in range(_N_DRAWS)])
            ]
        )
        n_errors = _apart(found, expected)
        if not n_errors <= _MOST_ERRORS:
            raise ExportError(
                f"{where}: draws are on average {n_errors:.3g} Monte Carlo errors from the "
                "network's; nothing was kept"
            )
        return {"difference": {"mean": off_by}, "draws_apart_in_errors": n_errors}

    def runner(self, directory: Path) -> Callable[[NDArray[Any]], Any]:
        """See :class:`bprune_hpc.formats.size_and_speed.Runnable`."""
        tensorflow = import_tensorflow()
        loaded = tensorflow.saved_model.load(str(directory / self.place))
        shape = loaded.signatures["mean"].structured_input_signature[1]["x"].shape
        size = shape[0] if shape.rank else None
        if size is None:
            return lambda x: loaded.mean(tensorflow.constant(x))

        def run(x: NDArray[Any]) -> None:
            # A graph for a certain number of examples is run as often as it takes.
            for start in range(0, len(x), size):
                rows = np.take(x, np.arange(start, start + size), axis=0, mode="wrap")
                loaded.mean(tensorflow.constant(rows))

        return run


def _joined(network: PrunedNetwork, found: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What a signature gives as the product has it: logits, or means and standard deviations."""
    if isinstance(network.task, Classification):
        return found["logits"]
    columns = [found["predictive_mean"], found["scale"]]
    return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)


def _product(network: PrunedNetwork, outputs: NDArray[Any]) -> NDArray[Any]:
    task = network.task
    if isinstance(task, Classification):
        return np.asarray(task.logits(outputs.T[None])[0].T)
    if task.noise_scale is None:
        return outputs
    return np.concatenate([outputs, np.full_like(outputs, task.noise_scale)], axis=1)


def _apart(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference of means over draws, in its standard errors."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    variance = (found.var(axis=0, ddof=1) + expected.var(axis=0, ddof=1)) / len(found)
    difference = np.abs(found.mean(axis=0) - expected.mean(axis=0))
    # What does not depend on the draw differs by rounding alone.
    rounding = 1e-6 * np.abs(expected).max(initial=0)
    return float((difference / np.sqrt(variance + rounding**2 + 1e-30)).max(initial=0))


def _functions(network: PrunedNetwork, module: Any) -> dict[str, Any]:
    """The three signatures; variables become attributes of the module."""
    tensorflow = import_tensorflow()
    lifted, posterior, task = network.unpruned.graph, network.posterior, network.task
    definition = tensorflow.compat.v1.GraphDef.FromString(lifted.graph_def)

    def variables(arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
        return [tensorflow.Variable(array, trainable=False) for array in arrays.values()]

    module.loc = variables(posterior.loc)
    module.scale = variables(posterior.scale)
    module.fixed = variables({name: network.fixed[name] for name in lifted.fixed_tensors})
    ends = [lifted.output_tensor]
    if isinstance(task, Regression) and task.noise_scale is None and lifted.output_tensors:
        ends = [lifted.output_tensors.get(kind, lifted.output_tensor) for kind in ("loc", "scale")]
        ends = list(dict.fromkeys(ends))
    types = {
        f"{node.name}:0": node.attr["dtype"].type
        for node in definition.node
        if node.op == "Placeholder"
    }

    def outputs(x: Any, weights: list[Any]) -> list[Any]:
        fed = dict(zip(lifted.loc_tensors.values(), weights, strict=True))
        fed |= zip(lifted.fixed_tensors.values(), module.fixed, strict=True)
        typed = {
            tensor: tensorflow.cast(tensorflow.convert_to_tensor(value), types[tensor])
            for tensor, value in fed.items()
        }
        examples = tensorflow.identity(x)  # which a loop's own graph has to take in first
        found = tensorflow.graph_util.import_graph_def(
            definition, {lifted.input_tensor: examples, **typed}, ends, name="network"
        )
        n_examples = tensorflow.shape(found[0])[0]
        wide = [tensorflow.broadcast_to(one, tensorflow.shape(found[0])) for one in found]
        return [tensorflow.reshape(one, [n_examples, -1]) for one in wide]

    def drawn(seed: Any, draw: Any) -> list[Any]:
        key = tensorflow.stack([seed, tensorflow.zeros_like(seed)])
        key = tensorflow.random.experimental.stateless_fold_in(key, draw)
        weights = []
        for index, (loc, scale) in enumerate(zip(module.loc, module.scale, strict=True)):
            of_tensor = tensorflow.random.experimental.stateless_fold_in(key, index)
            noise = tensorflow.random.stateless_normal(loc.shape, of_tensor, dtype=loc.dtype)
            weights.append(loc + scale * noise)
        return weights

    if isinstance(task, Classification):
        one, average = _of_classes(tensorflow, task)
    else:
        one, average = _of_numbers(tensorflow, task)

    def mean(x: Any) -> dict[str, Any]:
        return one(outputs(x, list(module.loc)))

    def sample(x: Any, seed: Any) -> dict[str, Any]:
        return one(outputs(x, drawn(seed, 0)))

    def predict(x: Any, seed: Any, n_draws: Any) -> dict[str, Any]:
        return average(
            one(outputs(x, list(module.loc))),
            lambda draw: one(outputs(x, drawn(seed, draw))),
            n_draws,
        )

    shape = lifted.input_shape
    specs = [
        tensorflow.TensorSpec(shape, lifted.input_dtype, name="x"),
        tensorflow.TensorSpec([], tensorflow.int64, name="seed"),
        tensorflow.TensorSpec([], tensorflow.int32, name="n_draws"),
    ]
    return {
        function.__name__: tensorflow.function(
            function, input_signature=specs[: at + 1], autograph=False
        )
        for at, function in enumerate((mean, sample, predict))
    }


One = Callable[[list[Any]], dict[str, Any]]
Average = Callable[[dict[str, Any], Callable[[Any], dict[str, Any]], Any], dict[str, Any]]


def _of_classes(tensorflow: Any, task: Classification) -> tuple[One, Average]:
    """What one draw says of classes, and the average over draws; see ``metrics.tasks``."""

    def one(outputs: list[Any]) -> dict[str, Any]:
        (found,) = outputs
        if task.output_kind == "probabilities":
            found = tensorflow.maximum(found, 0)
            logits = tensorflow.math.log(found)
            if task.is_binary:
                of_zero = tensorflow.math.log1p(-tensorflow.minimum(found, 1))
                logits = tensorflow.concat([of_zero, logits], axis=1)
            logits = tensorflow.maximum(logits, tensorflow.cast(-MAX_NLL, logits.dtype))
        else:
            logits = found
            if task.is_binary:
                logits = tensorflow.concat([tensorflow.zeros_like(found), found], axis=1)
        return {"logits": logits, "probabilities": tensorflow.nn.softmax(logits)}

    def entropy(probability: Any) -> Any:
        return -tensorflow.reduce_sum(tensorflow.math.xlogy(probability, probability), axis=1)

    def average(
        at_mean: dict[str, Any], draw_of: Callable[[Any], dict[str, Any]], n_draws: Any
    ) -> dict[str, Any]:
        def probabilities(draw: Any) -> Any:
            found = tensorflow.cast(draw_of(draw)["logits"], tensorflow.float64)
            return tensorflow.nn.softmax(found)

        def step(draw: Any, total: Any, entropies: Any) -> tuple[Any, Any, Any]:
            found = probabilities(draw)
            return draw + 1, total + found, entropies + entropy(found)

        zero = tensorflow.zeros_like(tensorflow.cast(at_mean["logits"], tensorflow.float64))
        _, total, entropies = tensorflow.while_loop(
            lambda draw, *_: draw < n_draws, step, (0, zero, zero[:, 0])
        )
        number = tensorflow.cast(n_draws, tensorflow.float64)
        probability, expected = total / number, entropies / number
        whole = entropy(probability)
        return {
            "mean_probability": tensorflow.cast(probability, tensorflow.float32),
            "predictive_entropy": whole,
            "expected_entropy": expected,
            "mutual_information": whole - expected,
        }

    return one, average


def _of_numbers(tensorflow: Any, task: Regression) -> tuple[One, Average]:
    """What one draw says of targets, and the mixture of the draws."""

    def of_targets(columns: Any) -> Any:
        return columns[:, 0] if task.n_targets == 1 else columns

    def one(outputs: list[Any]) -> dict[str, Any]:
        # Means alone, both in one tensor, or each in its own.
        loc = outputs[0][:, : task.n_targets]
        if task.noise_scale is not None:
            scale = tensorflow.fill(
                tensorflow.shape(loc), tensorflow.cast(task.noise_scale, loc.dtype)
            )
        else:
            scale = outputs[-1][:, -task.n_targets :]
        return {"predictive_mean": of_targets(loc), "scale": of_targets(scale)}

    def average(
        at_mean: dict[str, Any], draw_of: Callable[[Any], dict[str, Any]], n_draws: Any
    ) -> dict[str, Any]:
        centre = tensorflow.cast(at_mean["predictive_mean"], tensorflow.float64)

        def step(draw: Any, total: Any, squares: Any, variances: Any) -> tuple[Any, ...]:
            found = draw_of(draw)
            away = tensorflow.cast(found["predictive_mean"], tensorflow.float64) - centre
            variance = tensorflow.cast(found["scale"], tensorflow.float64) ** 2
            return draw + 1, total + away, squares + away**2, variances + variance

        zero = tensorflow.zeros_like(centre)
        _, total, squares, variances = tensorflow.while_loop(
            lambda draw, *_: draw < n_draws, step, (0, zero, zero, zero)
        )
        number = tensorflow.cast(n_draws, tensorflow.float64)
        away, aleatoric = total / number, variances / number
        epistemic = tensorflow.maximum(squares / number - away**2, 0)
        return {
            "predictive_mean": centre + away,
            "predictive_sd": tensorflow.sqrt(epistemic + aleatoric),
            "epistemic_variance": epistemic,
            "aleatoric_variance": aleatoric,
        }

    return one, average
