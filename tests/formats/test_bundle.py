"""A bundle: what ``predict.py`` gives in a process without TensorFlow and this package."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest

import bprune_hpc
from benchmarks import overpruned
from benchmarks.export import exported_network
from bprune_hpc import data
from bprune_hpc.errors import ConfigError, DataError, ExportError
from bprune_hpc.formats.bundle import Bundle, in_16_bits, opened
from bprune_hpc.formats.packing import pack
from bprune_hpc.formats.portable import OPERATIONS
from bprune_hpc.formats.reference import Reference
from bprune_hpc.graph.layer_graph import Operation
from bprune_hpc.graph.layer_ops import run
from bprune_hpc.models import digits_resnet18
from bprune_hpc.posterior.draws import standard_normal
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.posterior.pruning import PruningMask, mask_at_fraction
from bprune_hpc.runner.prediction import Sampling
from bprune_hpc.runner.prediction import predict as library_predict
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import small_models
from tests.helpers.exports import random_export
from tests.helpers.launch import LIMIT_S
from tests.helpers.regressions import trained

pytestmark = pytest.mark.filterwarnings("ignore")

N_DRAWS, SEED = 6, 3
FORMATS = ["bundle", *(["onnx"] if find_spec("onnxruntime") else [])]
_ALONE = """
import sys
sys.modules["tensorflow"] = sys.modules["bprune_hpc"] = sys.modules["scipy"] = None
import numpy as np
from predict import load
net, x = load(), np.load(sys.argv[1])
found = net.predict(x, n_draws=6, seed=3)
np.savez(sys.argv[2], mean=net.mean(x), sample=net.sample(x, 3, 6), **vars(found))
"""


@pytest.fixture(scope="module")
def digits() -> Any:
    return bprune_hpc.load("embedded:digits_fc").prune(snr=1)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return data.load("digits").x[:50]


@pytest.fixture(scope="module")
def bundle(digits: Any, x: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("digits") / "export"
    digits.save(directory, ["bundle"], x=x)
    return directory / "bundle"


@pytest.fixture(scope="module")
def predict(bundle: Path) -> Iterator[ModuleType]:
    with opened(bundle) as module:
        yield module


def test_alone_it_gives_the_numbers_of_the_library(
    digits: Any, x: np.ndarray, bundle: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", x)
    arguments = [sys.executable, "-c", _ALONE, "x.npy", "found.npz"]
    environment = {"PYTHONPATH": str(bundle), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(arguments, cwd=tmp_path, env=environment, check=True, timeout=LIMIT_S)
    found = np.load(tmp_path / "found.npz")
    logits, largest = digits.logits(x), np.abs(found["sample"]).max()
    for name, values in vars(digits.predict(x, N_DRAWS, SEED)).items():
        if isinstance(values, np.ndarray):
            atol = 1e-6 * (1 if name == "mean_probability" else largest)  # entropies go with logits
            np.testing.assert_allclose(found[name], values, rtol=0, atol=atol, err_msg=name)
    np.testing.assert_allclose(found["mean"], logits, rtol=0, atol=1e-6 * largest)
    loc, scale = digits.posterior.loc, digits.posterior.scale
    for draw, outputs in enumerate(found["sample"]):
        sign = -1 if draw % 2 else 1
        weights = {
            name: loc[name]
            + sign * scale[name] * standard_normal(SEED, name, draw // 2, loc[name].shape)
            for name in loc
        }
        expected_outputs = digits.logits(x, weights)
        np.testing.assert_allclose(outputs, expected_outputs, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"draw_noise": "per_example", "first_example": 1000, "pairing": "none", "batch_size": 7},
        {"noise_block": 16, "first_example": 7},
        {"draw_noise": "shared"},
    ],
)
def test_noise_of_examples_is_that_of_the_library(
    digits: Any, predict: ModuleType, x: np.ndarray, chosen: dict[str, Any]
) -> None:
    expected = digits.predict(x, N_DRAWS, SEED, **chosen)
    found = predict.load().predict(x, N_DRAWS, SEED, **chosen)
    largest = float(np.abs(digits.logits(x)).max())
    for name, values in vars(expected).items():
        if isinstance(values, np.ndarray):
            assert np.abs(getattr(found, name) - values).max() <= 1e-6 * largest, name
    other = predict.load().predict(x, N_DRAWS, SEED + 1, **chosen)
    assert np.abs(other.mean_probability - found.mean_probability).max() > 1e-3


@pytest.mark.parametrize("layer_pruned", [None, 0, 1, 2])
def test_noise_of_examples_with_random_biases_and_a_pruned_layer(
    tmp_path: Path, layer_pruned: int | None
) -> None:
    rng = np.random.default_rng(5)
    shapes = {"k0": (6, 5), "k1": (5, 4), "k2": (4, 3), "bias0": 5, "bias1": 4, "bias2": 3}
    loc = {name: rng.normal(size=n).astype(np.float32) for name, n in shapes.items()}
    scale = {name: rng.uniform(0.1, 0.5, n).astype(np.float32) for name, n in shapes.items()}
    kernels = [{name: of[name] for name in ("k0", "k1", "k2")} for of in (loc, scale)]
    network = replace(
        overpruned.dense_network(Posterior(*kernels)), posterior=Posterior(loc, scale), fixed={}
    )
    kept = {name: rng.random(n) < 0.6 for name, n in shapes.items()}
    if layer_pruned is not None:
        kept[f"k{layer_pruned}"][:] = False
    mask = PruningMask(math.nan, math.nan, kept, dict.fromkeys(kept, 0.0))
    export = exported_network(network, mask)
    x = rng.normal(size=(20, 6)).astype(np.float32)
    pruned = replace(export.pruned, draw_noise="per_example")
    sampling = Sampling(8, SEED, first_example=3)
    evaluator = pruned.make_evaluator(1, 1)
    expected = library_predict(pruned, evaluator, lambda *_: np.zeros(0), x, None, sampling)
    Bundle().write(export, tmp_path)
    with opened(tmp_path / "bundle") as module:
        net = module.load()
        found = net.predict(x, 8, SEED, draw_noise="per_example", first_example=3)
    for name in ("mean_probability", "predictive_entropy", "mutual_information"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=0, atol=2e-6, err_msg=name
        )


def test_noise_of_examples_is_for_dense_layers(tmp_path: Path) -> None:
    Bundle().write(random_export(1), tmp_path)
    with opened(tmp_path / "bundle") as module:
        net = module.load()
        x = np.zeros((2, *net.input.shape[1:]), np.float32)
        with pytest.raises(module.ConfigError, match="per_example is for dense layers"):
            net.predict(x, draw_noise="per_example")
        with pytest.raises(module.ConfigError, match="noise_block"):
            net.predict(x, draw_noise="per_block")


def test_parts_of_the_examples_and_calls_before_change_nothing(
    predict: ModuleType, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = predict.load()
    whole = net.mean(x)
    kept = whole.copy()
    for rows in (x[:3], x[10:], x[:1], 2 * x, x.astype(np.float64)):
        np.testing.assert_allclose(net.mean(rows), predict.load().mean(rows), rtol=0, atol=0)
    np.testing.assert_array_equal(whole, kept)
    monkeypatch.setattr(predict, "_ROWS", 7)
    np.testing.assert_allclose(predict.load().mean(x), whole, rtol=0, atol=1e-6 * abs(whole).max())


def test_it_holds_files_that_name_no_package_of_ours(bundle: Path) -> None:
    assert sorted(file.name for file in bundle.iterdir()) == [
        "network.json", "predict.py", "weights.npz",
    ]  # fmt: skip
    source = (bundle / "predict.py").read_text()
    lines = [line.strip() for line in source.splitlines()]
    imported = {
        line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))
    }
    assert "predict" in imported  # of the example in its docstring
    assert imported - {"predict"} <= {*sys.stdlib_module_names, "numpy"}


def test_a_bundle_has_all_operations() -> None:
    assert set(OPERATIONS.values()) == set(get_args(Operation))


def test_examples_are_fitted_as_the_library_does(
    digits: Any, predict: ModuleType, x: np.ndarray
) -> None:
    net = predict.load()
    of_bytes = np.rint(16 * x).astype(np.uint8)
    for given, chosen in (
        (x.reshape(-1, 8, 8), {}),
        (x.reshape(-1, 8, 8, 1).astype(np.float64), {}),
        (of_bytes, {}),
        (of_bytes, {"input_scale": "1/16"}),
        (of_bytes.astype(np.int64), {"input_scale": "none"}),
    ):
        found, expected = net.mean(given, **chosen), digits.logits(given, **chosen)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (np.ones((2, 63)), {}),
        (np.ones((2, 64)) * np.nan, {}),
        (np.ones((2, 64)), {"input_scale": "-1"}),
        (np.ones((2, 64)), {"n_draws": 0}),
        (np.ones((2, 64)), {"pairing": "both"}),
        (np.ones((2, 64)), {"seed": -1}),
        (np.ones((2, 64)), {"y": [0, 10]}),
        (np.ones((2, 64)), {"batch_size": 0}),
    ],
)
def test_bad_input_is_refused_in_one_line(
    digits: Any, predict: ModuleType, given: np.ndarray, chosen: dict[str, Any]
) -> None:
    with pytest.raises((DataError, ConfigError)):
        digits.predict(given, **chosen)
    with pytest.raises((predict.DataError, predict.ConfigError)) as refused:
        predict.load().predict(given, **chosen)
    assert "\n" not in str(refused.value) and "--" not in str(refused.value)


def test_what_a_bundle_says_in_a_check_is_one_of_our_errors(bundle: Path, x: np.ndarray) -> None:
    with (
        pytest.raises(ExportError, match="predict.py: outputs are not finite"),
        opened(bundle) as it,
    ):
        it.load().mean(1e38 * x)


def test_labels_and_unpaired_draws(digits: Any, predict: ModuleType, x: np.ndarray) -> None:
    label = data.load("digits").y[:50]
    chosen: dict[str, Any] = {"n_draws": 3, "pairing": "none", "y": label}
    found = predict.load().predict(x, **chosen)
    expected = digits.predict(x, **chosen)
    assert (found.n_draws, found.pairing) == (expected.n_draws, expected.pairing) == (3, "none")
    np.testing.assert_allclose(found.log_probability, expected.log_probability, atol=2e-6)
    np.testing.assert_array_equal(found.predicted_class, expected.predicted_class)


def test_sixteen_bits_where_the_deviation_says_so(
    digits: Any, x: np.ndarray, bundle: Path, tmp_path: Path
) -> None:
    card = digits.save(tmp_path / "export", ["bundle"], x=x, bits=16)
    assert max(card["formats"]["bundle"]["difference"].values()) < 1e-3
    sizes = []
    for home in (bundle, tmp_path / "export" / "bundle"):
        with np.load(home / "weights.npz") as arrays:
            of_numbers = [key for key in arrays if "/loc" in key or "/scale" in key]
            sizes.append(sum(arrays[key].nbytes for key in of_numbers))
    assert sizes[1] < 0.7 * sizes[0]


def test_numbers_in_sixteen_bits_are_as_near_as_asked_for() -> None:
    generator = np.random.default_rng(0)
    values = (generator.normal(size=2000) * 10.0 ** generator.integers(-9, 3, 2000)).astype("f4")
    error = (np.abs(values) * 10.0 ** generator.uniform(-5, -1, 2000)).astype("f4")
    narrow, exact = in_16_bits(values, error)
    assert narrow.dtype == np.uint16  # bfloat16: such numbers are beyond the range of float16
    wide = (narrow.astype(np.uint32) << 16).view(np.float32)
    is_exact = np.isnan(wide)
    np.testing.assert_array_equal(exact, values[is_exact])
    assert (np.abs(wide - values) <= error)[~is_exact].all()
    assert 0 < np.count_nonzero(is_exact) < 1000
    narrow, exact = in_16_bits(np.array([1.5, 0, -2], "f4"), np.zeros(3, "f4"))
    assert narrow.dtype == np.float16 and not exact.size
    np.testing.assert_array_equal(narrow, [1.5, 0, -2])


@pytest.mark.parametrize("seed", range(10))
def test_random_graphs_of_layers(seed: int, tmp_path: Path) -> None:
    """Against the graph in TensorFlow: at the mean, in draws, and averages of these."""
    network = random_export(seed)
    Bundle().write(network, tmp_path)
    with Reference(network) as reference:
        Bundle().check(network, tmp_path, reference)


@pytest.mark.parametrize("seed", [10, 11, 13, 138, 148, 152])
def test_a_layer_that_is_pruned_as_a_whole(seed: int, tmp_path: Path) -> None:
    network = random_export(seed)
    kernels = [name for name, kept in network.mask.kept.items() if kept.ndim > 1]
    name = np.random.default_rng(seed).choice(kernels)
    kept = {**network.mask.kept, name: np.zeros_like(network.mask.kept[name])}
    network = replace(network, mask=replace(network.mask, kept=kept))
    Bundle().write(network, tmp_path)
    with Reference(network) as reference:
        Bundle().check(network, tmp_path, reference)
        expected, x = reference.mean_outputs, reference.x
    for only_mean in (True, False):
        packed = pack(network, only_mean=only_mean)
        assert all(math.prod(tensor.shape) for tensor in packed.tensors.values())
        rows = x if packed.inputs is None else x.reshape(len(x), -1)[:, packed.inputs]
        found = run(packed.layers, packed.at_mean, rows.astype(np.float32))
        atol = 2e-6 * np.abs(expected).max()
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("only_mean", [False, True])
def test_of_a_chain_without_one_layer_nearly_nothing_is_left(only_mean: bool) -> None:
    network, _ = overpruned.problem(1)
    mask = mask_at_fraction(network.posterior, 0.0)
    kept = {**mask.kept, "kernel1": np.zeros((256, 256), bool)}
    packed = pack(exported_network(network, replace(mask, kept=kept)), only_mean=only_mean)
    assert [packed.tensors[f"kernel{at}"].shape for at in range(3)] == [(1, 1), (1, 1), (1, 10)]


def test_resnet18(tmp_path: Path) -> None:
    import_tensorflow().random.set_seed(1)
    net = bprune_hpc.load(digits_resnet18(), output_kind="logits").prune(fraction=0.5)
    examples = data.load("digits").x[:30].reshape(-1, 8, 8, 1)
    card = net.save(tmp_path / "export", FORMATS, x=examples)
    for of_format in card["formats"].values():
        assert max(of_format["difference"].values()) <= 1e-6


@pytest.mark.parametrize("name", ["conv2d_flipout", "residual", "normal_of_one"])
def test_small_networks(name: str, tmp_path: Path) -> None:
    """Mean-field biases, normalization and branches, two outputs; checked as they are written."""
    net = bprune_hpc.load(getattr(small_models, name)()).prune(fraction=0.6)
    try:
        card = net.save(tmp_path / "export", FORMATS)
    except ConfigError as refused:
        assert name == "normal_of_one" and "depends on the example" in str(refused)
        return
    for of_format in card["formats"].values():
        assert max(of_format["difference"].values()) <= 1e-6


def test_a_regression(tmp_path: Path) -> None:
    examples = data.load("diabetes", task="regression")
    net = bprune_hpc.load(trained(tmp_path / "case")).prune(fraction=0.5)
    card = net.save(tmp_path / "export", FORMATS, x=examples.x)
    for of_format in card["formats"].values():
        assert max(of_format["difference"].values()) <= 1e-6
    with opened(tmp_path / "export" / "bundle") as predict:
        found = predict.load().predict(examples.x, 8, SEED, y=examples.y)
    expected = net.predict(examples.x, 8, SEED, y=examples.y)
    for name, values in vars(expected).items():
        if isinstance(values, np.ndarray):
            np.testing.assert_allclose(getattr(found, name), values, rtol=2e-6, err_msg=name)


def test_an_overpruned_network_is_small_and_has_little_to_multiply(tmp_path: Path) -> None:
    network, examples = overpruned.problem(20)
    mask = mask_at_fraction(network.posterior, 0.95)
    exported = exported_network(network, mask)
    Bundle().write(exported, tmp_path)
    n_bytes = sum(file.stat().st_size for file in (tmp_path / "bundle").iterdir())
    assert n_bytes <= 8 * overpruned.N_WEIGHTS / 10
    with opened(tmp_path / "bundle") as predict:
        found = predict.load().mean(examples.x)
    hidden = examples.x.astype(float)
    for name in network.posterior.names:
        hidden = np.maximum(hidden, 0) @ np.where(mask.kept[name], network.posterior.loc[name], 0)
    np.testing.assert_allclose(found, hidden, rtol=0, atol=1e-6 * np.abs(hidden).max())
    kernels = [tensor for tensor in pack(exported).tensors.values() if len(tensor.shape) == 2]
    assert sum(math.prod(kernel.shape) for kernel in kernels) <= overpruned.N_WEIGHTS / 4


def test_few_inputs_are_left_out_where_that_saves_more_than_it_costs() -> None:
    network, _ = overpruned.problem(1)
    large = pack(exported_network(network, mask_at_fraction(network.posterior, 0.95)))
    assert large.inputs is not None
    assert large.tensors["kernel0"].shape[0] == len(large.inputs) < 784
    narrow = replace(
        network,
        posterior=Posterior(
            *({name: values[..., :2] if name == "kernel0" else values[:2] if name == "kernel1"
               else values for name, values in of.items()}
              for of in (network.posterior.loc, network.posterior.scale))
        ),
        fixed={**network.fixed, "bias0": np.zeros(2, np.float32)},
    )  # fmt: skip
    small = pack(exported_network(narrow, mask_at_fraction(narrow.posterior, 0.5)))
    assert small.inputs is None and small.layers.input_shape == (784,)
    tensor = small.tensors["kernel0"]
    mask = mask_at_fraction(narrow.posterior, 0.5).kept["kernel0"]
    np.testing.assert_array_equal(
        tensor.dense(tensor.loc), np.where(mask, narrow.posterior.loc["kernel0"], 0)
    )
    np.testing.assert_array_equal(tensor.full_places, np.flatnonzero(mask))


def test_constants_with_a_deviation_stay(tmp_path: Path) -> None:
    """A hidden unit without inputs: its outgoing weights vary, and so does what it gives."""
    network, examples = overpruned.problem(5)
    loc, scale = (
        {name: values.copy() for name, values in of.items()}
        for of in (network.posterior.loc, network.posterior.scale)
    )
    loc["kernel0"][:, 7], scale["kernel0"][:, 7] = 0, 0
    fixed = {**network.fixed, "bias0": np.full(256, 0.25, np.float32)}
    mask = mask_at_fraction(network.posterior, 0.0)
    posterior = replace(network.posterior, loc=loc, scale=scale)
    exported = exported_network(replace(network, posterior=posterior, fixed=fixed), mask)
    Bundle().write(exported, tmp_path)
    with opened(tmp_path / "bundle") as predict:
        found = predict.load().sample(examples.x, SEED, 2)
    for draw, sign in enumerate((1, -1)):
        hidden = examples.x.astype(float)
        for layer, name in enumerate(loc):
            noise = standard_normal(SEED, name, 0, loc[name].shape)
            weights = loc[name] + np.float32(sign) * (scale[name] * noise)
            hidden = np.maximum(hidden, 0) @ weights + fixed[f"bias{layer}"]
        largest = np.abs(hidden).max()
        np.testing.assert_allclose(found[draw], hidden, rtol=0, atol=1e-6 * largest)
    at_mean = pack(exported, only_mean=True)
    assert at_mean.tensors["kernel0"].shape[1] == 255


def test_a_bundle_of_another_kind_is_refused(bundle: Path, tmp_path: Path) -> None:
    with opened(bundle) as predict:
        described = json.loads((bundle / "network.json").read_text())
        (tmp_path / "network.json").write_text(json.dumps({**described, "format": "other/1"}))
        with pytest.raises(predict.DataError, match="other/1"):
            predict.load(tmp_path)
