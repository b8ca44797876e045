"""Networks whose outputs depend on the rest of the batch are refused, others never."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bprune_hpc
from bprune_hpc.checkpoints.case import Case, read_case
from bprune_hpc.errors import GraphError
from bprune_hpc.graph.layer_graph import UnknownOperation
from bprune_hpc.runner.batch_dependence import check_examples_apart, made_up_examples
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.small_graphs import save

pytestmark = pytest.mark.filterwarnings("ignore")

Build = Callable[[Any], Any]


def _flipout(width: int) -> Any:
    import_tensorflow()
    import tensorflow_probability as tfp

    return tfp.layers.DenseFlipout(width)


def _normalized(x: Any) -> Any:
    tensorflow = import_tensorflow()
    hidden = tensorflow.keras.layers.BatchNormalization()(_flipout(6)(x), training=True)
    return _flipout(3)(tensorflow.nn.relu(hidden))


def _normalized_images(x: Any) -> Any:
    tensorflow = import_tensorflow()
    images = tensorflow.reshape(_flipout(12)(x), (-1, 2, 2, 3))
    fused = tensorflow.keras.layers.BatchNormalization()(images, training=True)
    return _flipout(3)(tensorflow.reshape(fused, (-1, 12)))


def _of_earlier_ones(x: Any) -> Any:
    return _flipout(3)(import_tensorflow().cumsum(x, axis=0))


def _of_the_largest(x: Any) -> Any:
    tensorflow = import_tensorflow()
    return _flipout(3)(x / tensorflow.reduce_max(tensorflow.abs(x)))


def _in_probability_over_examples(x: Any) -> Any:
    return import_tensorflow().nn.softmax(_flipout(3)(x), axis=0)


def _case(directory: Path, build: Build) -> tuple[Case, np.ndarray]:
    directory.mkdir(exist_ok=True)
    saved = save(directory, lambda x: (build(x), []))
    return read_case(directory), saved.x


def _check(case: Case, x: np.ndarray) -> None:
    check_examples_apart(case.graph, case.posterior, case.fixed, x, "net")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_normalized, r"statistics of each batch \(see 'batch_normalization/moments/mean'\)"),
        (_normalized_images, r"statistics of each batch \(see 'batch_normalization/FusedBatch"),
        (_of_earlier_ones, "what the network gives an example depends on the others"),
        (_of_the_largest, "what the network gives an example depends on the others"),
        (_in_probability_over_examples, "what the network gives an example depends on the others"),
    ],
)
def test_networks_that_mix_examples(tmp_path: Path, build: Build, message: str) -> None:
    case, x = _case(tmp_path, build)
    for examples in (x, x[:2], np.concatenate([x] * 50), made_up_examples(case.graph)):
        assert examples is not None
        with pytest.raises(GraphError, match=f"^net: .*{message}") as caught:
            _check(case, examples)
        assert "\n" not in str(caught.value)
    with pytest.raises(GraphError, match=message):
        bprune_hpc.load(tmp_path)


def _at_inference(x: Any) -> Any:
    tensorflow = import_tensorflow()
    hidden = tensorflow.keras.layers.BatchNormalization()(_flipout(6)(x), training=False)
    hidden = tensorflow.keras.layers.LayerNormalization()(hidden)
    attention = tensorflow.nn.softmax(hidden[:, :, None] * hidden[:, None, :])
    return _flipout(3)(tensorflow.reduce_sum(attention * hidden[:, :, None], axis=1))


def _far_from_zero(x: Any) -> Any:
    """Outputs whose rounding is large beside their differences."""
    return 1e6 + 1e-2 * _flipout(3)(import_tensorflow().sin(x))


def _wide(x: Any) -> Any:
    """Sums so long that their rounding depends on the number of rows."""
    tensorflow = import_tensorflow()
    frequencies = np.linspace(1, 9, 2000, dtype=np.float32)
    return _flipout(3)(tensorflow.sin(tensorflow.tile(x, (1, 500)) * frequencies))


def _in_half_precision(x: Any) -> Any:
    tensorflow = import_tensorflow()
    half = tensorflow.cast(_flipout(64)(x), tensorflow.float16)
    mixed = half @ tensorflow.constant(np.random.default_rng(1).normal(size=(64, 64)), "float16")
    return _flipout(3)(tensorflow.cast(tensorflow.tanh(mixed), tensorflow.float32))


@pytest.mark.parametrize("build", [_at_inference, _far_from_zero, _wide, _in_half_precision])
def test_networks_that_take_each_example_alone(tmp_path: Path, build: Build) -> None:
    case, x = _case(tmp_path, build)
    assert isinstance(case.graph.layers, UnknownOperation)  # else nothing is looked at
    for examples in (x, x[:1], 1000 * x, made_up_examples(case.graph)):
        assert examples is not None
        _check(case, examples)


def _copied(kind: str, how: str) -> Build:
    def build(x: Any) -> Any:
        tensorflow = import_tensorflow()
        import tensorflow_probability as tfp

        make = getattr(tfp.layers, kind)
        copy = {
            "tile": lambda: tensorflow.tile(x, (5, 1)),
            "repeat": lambda: tensorflow.repeat(x, 5, axis=0),
            "axis": lambda: tensorflow.tile(x[:, None], (1, 5, 1)),
        }
        passes = make(3)(make(6, activation="relu")(copy[how]()))
        if how == "tile":
            return tensorflow.reduce_mean(tensorflow.reshape(passes, (5, -1, 3)), axis=0)
        return tensorflow.reduce_mean(tensorflow.reshape(passes, (-1, 5, 3)), axis=1)

    return build


@pytest.mark.parametrize("how", ["tile", "repeat", "axis"])
@pytest.mark.parametrize("kind", ["DenseFlipout", "DenseLocalReparameterization"])
def test_networks_that_copy_examples(tmp_path: Path, kind: str, how: str) -> None:
    """Each copy has noise of its own: a mean over passes inside."""
    case, x = _case(tmp_path, _copied(kind, how))
    with pytest.raises(GraphError, match="^net: makes 5 copies of each example .* each with noise"):
        _check(case, x)


def test_copies_without_noise_of_their_own(tmp_path: Path) -> None:
    """A draw of the kernel serves all rows of a batch anyway."""
    case, x = _case(tmp_path, _copied("DenseReparameterization", "tile"))
    _check(case, x)


def test_places_are_no_copies(tmp_path: Path) -> None:
    """One layer at several places of an example, some of which are alike."""

    def build(x: Any) -> Any:
        tensorflow = import_tensorflow()
        places = tensorflow.stack([x, x, tensorflow.sin(x)], axis=1)
        return _flipout(3)(tensorflow.reduce_sum(tensorflow.nn.relu(_flipout(6)(places)), axis=1))

    case, x = _case(tmp_path, build)
    _check(case, x)
    # By chance all places of some examples may be alike.
    case, _ = _case(tmp_path / "sequence", _of_a_sequence)
    x[0] = 0.5
    _check(case, x)


def _of_a_sequence(x: Any) -> Any:
    tensorflow = import_tensorflow()
    table = tensorflow.constant(np.random.default_rng(2).normal(size=(3, 5)), tensorflow.float32)
    tokens = tensorflow.gather(table, tensorflow.cast(tensorflow.abs(x), tensorflow.int32) % 3)
    return _flipout(3)(tensorflow.reduce_sum(tensorflow.nn.relu(_flipout(6)(tokens)), axis=1))


@pytest.mark.parametrize(
    "kind", ["DenseFlipout", "DenseReparameterization", "DenseLocalReparameterization"]
)
def test_noise_of_examples_is_gone_before(tmp_path: Path, kind: str) -> None:
    import_tensorflow()
    import tensorflow_probability as tfp

    def build(x: Any) -> Any:
        make = getattr(tfp.layers, kind)
        return make(3)(import_tensorflow().sin(make(5)(x)))

    case, x = _case(tmp_path, build)
    assert isinstance(case.graph.layers, UnknownOperation)
    _check(case, x)


def test_a_network_that_says_the_same_at_its_means(tmp_path: Path) -> None:
    """At its means nothing depends on the input: a draw is looked at."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1

    def build(x: Any) -> Any:
        loc = tensorflow.multiply(tf1.get_variable("w", (4, 3)), 0.0)
        scale = tensorflow.exp(tf1.get_variable("raw", (4, 3)))
        hidden = x @ (loc + scale * tensorflow.random.normal((4, 3)))
        return hidden - tensorflow.reduce_max(hidden, axis=0)

    case, x = _case(tmp_path, build)
    assert not any(loc.any() for loc in case.posterior.loc.values())
    with pytest.raises(GraphError, match="depends on the others of its batch"):
        _check(case, x)
