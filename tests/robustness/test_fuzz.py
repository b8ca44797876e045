"""A part of the damaged networks of ``make fuzz``, and files that would run code if they could."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.checkpoints.case import read_case
from bprune_hpc.errors import BpruneError, GraphError
from bprune_hpc.graph.lifting import lift
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.launch import ROOT, THETA_DIR, run_group
from tests.robustness import fuzz_cases, fuzz_sources

N_CASES = 150
DENSE = "tests.helpers.small_models:dense_flipout"


@pytest.mark.slow
def test_damaged_networks() -> None:
    """Each is refused in one line, gives the right answer, or is a valid and different graph."""
    # In a process of its own: a process that has run TensorFlow cannot be forked.
    program = [sys.executable, "-m", "tests.robustness.fuzz_cases", f"-n{N_CASES}"]
    done = run_group(program)
    assert done.returncode == 0, done.stdout + done.stderr
    n_absent = [damage.source for damage in fuzz_cases.plan(N_CASES)].count("tf1 theta")
    n_cases = N_CASES if THETA_DIR.is_dir() else N_CASES - n_absent
    assert f"{n_cases} cases in" in done.stdout
    assert (f"{n_absent} more cases are of 'tf1 theta'" in done.stdout) == (n_cases < N_CASES)


def test_every_source_sees_what_is_larger_than_any_memory() -> None:
    seen = {(one.source, one.kind) for one in fuzz_cases.plan(N_CASES)}
    assert {source for source, kind in seen if kind == "giant shape"} == set(fuzz_sources.SOURCES)
    assert fuzz_cases.plan(2 * N_CASES)[:N_CASES] == fuzz_cases.plan(N_CASES)


@pytest.mark.slow
def test_sources_are_the_same_whichever_there_are(tmp_path: Path) -> None:
    """So that a case is the same case, with or without data from elsewhere."""
    stand_in = ROOT / "bprune_hpc" / "embedded" / "digits_fc"
    contents = []
    for name, theta in {"without": [], "with": [str(stand_in)]}.items():
        place = tmp_path / name
        place.mkdir()
        done = run_group(
            [sys.executable, "-m", "tests.robustness.fuzz_sources", str(place), *theta],
            PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}",
        )
        assert done.returncode == 0, done.stderr
        files = [path for path in place.rglob("*") if path.is_file() and fuzz_cases._role(path)]
        contents.append({str(path.relative_to(place)): path.read_bytes() for path in files})
    without, with_theta = contents
    assert {name.split("/")[0] for name in with_theta.keys() - without.keys()} == {"tf1 theta"}
    assert [name for name in without if without[name] != with_theta[name]] == []


def _noisy(tensorflow: Any, x: Any) -> Any:
    tf1 = tensorflow.compat.v1
    loc, raw = tf1.get_variable("loc", (4, 3)), tf1.get_variable("raw", (4, 3))
    return x @ (loc + tensorflow.exp(raw) * tensorflow.random.normal((4, 3)))


def _py_func(tensorflow: Any, logits: Any, marker: Path) -> Any:
    def touch(value: Any) -> Any:
        marker.touch()
        return value

    return tensorflow.compat.v1.py_func(touch, [logits], tensorflow.float32, name="code")


def _eager_py_func(tensorflow: Any, logits: Any, marker: Path) -> Any:
    def touch(value: Any) -> Any:
        marker.touch()
        return value

    return tensorflow.py_function(touch, [logits], tensorflow.float32, name="code")


def _numpy_function(tensorflow: Any, logits: Any, marker: Path) -> Any:
    def touch(value: Any) -> Any:
        marker.touch()
        return value

    return tensorflow.numpy_function(touch, [logits], tensorflow.float32, False, name="code")


def _read_file(tensorflow: Any, logits: Any, marker: Path) -> Any:
    content = tensorflow.io.read_file("/etc/hostname", name="code")
    return logits + tensorflow.cast(tensorflow.strings.length(content), tensorflow.float32)


def _write_file(tensorflow: Any, logits: Any, marker: Path) -> Any:
    # Of a constant, so that folding constants would already write.
    with tensorflow.control_dependencies([tensorflow.raw_ops.WriteFile(
        filename=str(marker), contents="x", name="code"
    )]):  # fmt: skip
        return tensorflow.identity(logits)


def _matched_name(tensorflow: Any, logits: Any, marker: Path) -> Any:
    files = tensorflow.io.matching_files("/etc/*", name="code")
    return logits + tensorflow.strings.to_number(tensorflow.strings.reduce_join(files))


def _printed(tensorflow: Any, logits: Any, marker: Path) -> Any:
    return tensorflow.compat.v1.Print(logits, [logits], name="code")


def _restored(tensorflow: Any, logits: Any, marker: Path) -> Any:
    names = ["/etc/hostname"], ["a"], [""]
    (value,) = tensorflow.raw_ops.RestoreV2(
        prefix=names[0][0], tensor_names=names[1], shape_and_slices=names[2],
        dtypes=[tensorflow.float32], name="code",
    )  # fmt: skip
    return logits + value


@pytest.mark.parametrize(
    ("build", "op"),
    [
        (_py_func, "PyFunc"),
        (_eager_py_func, "EagerPyFunc"),
        (_numpy_function, "PyFuncStateless"),
        (_read_file, "ReadFile"),
        (_matched_name, "MatchingFiles"),
        (_restored, "RestoreV2"),
        (_printed, "Print"),
    ],
)
@pytest.mark.parametrize("place", ["graph", "noise", "function"])
def test_operations_that_run_code_or_touch_files(
    tmp_path: Path, build: Callable[..., Any], op: str, place: str
) -> None:
    """Refused by name, wherever the network has them: nothing runs that the payload would show."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    marker = tmp_path / "ran"
    with tensorflow.Graph().as_default() as graph:
        x = tf1.placeholder(tensorflow.float32, (None, 4))
        if place == "graph":
            logits = build(tensorflow, _noisy(tensorflow, x), marker)
        elif place == "noise":
            loc, raw = tf1.get_variable("loc", (4, 3)), tf1.get_variable("raw", (4, 3))
            scale = build(tensorflow, tensorflow.exp(raw), marker)
            logits = x @ (loc + scale * tensorflow.random.normal((4, 3)))
        else:
            call = tensorflow.function(lambda t: build(tensorflow, t, marker), autograph=False)
            logits = call(_noisy(tensorflow, x))
        tensorflow.nn.softmax(logits)
    values = {"loc": np.ones((4, 3), np.float32), "raw": np.ones((4, 3), np.float32)}
    with pytest.raises(GraphError, match=rf"run code, touch files.*\({op}\)") as caught:
        lift(graph.as_graph_def(), lambda names: {name: values[name] for name in names})
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_a_file_written_beside_the_data_is_not(tmp_path: Path) -> None:
    """Control edges go, so what hangs on one never runs; the network opens without it."""
    tensorflow = import_tensorflow()
    marker = tmp_path / "ran"
    with tensorflow.Graph().as_default() as graph:
        x = tensorflow.compat.v1.placeholder(tensorflow.float32, (None, 4))
        tensorflow.nn.softmax(_write_file(tensorflow, _noisy(tensorflow, x), marker))
    values = {"loc": np.ones((4, 3), np.float32), "raw": np.ones((4, 3), np.float32)}
    lifted = lift(graph.as_graph_def(), lambda names: {name: values[name] for name in names})
    assert lifted.dropped_ops["WriteFile"] == 1
    assert not marker.exists()


class _Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def _with_pickles(path: Path, payload: bytes, place: str) -> None:
    """Put a pickle where a reader might look for an object: attributes, strings, other members."""
    opaque = np.void(payload)
    if path.suffix == ".keras":
        source = zipfile.ZipFile(path)
        members = {name: source.read(name) for name in source.namelist()}
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            _hide(file, opaque, place)
        members["model.weights.h5"] = buffer.getvalue()
        members["model.weights.npz"] = payload  # an older form, which was read with pickle
        with zipfile.ZipFile(path, "w") as target:
            for name, content in members.items():
                target.writestr(name, content)
        return
    with h5py.File(path, "r+") as file:
        _hide(file, opaque, place)


def _hide(file: Any, opaque: Any, place: str) -> None:
    if place == "attributes":
        for name in ("model_config", "training_config", "keras_version", "backend"):
            file.attrs[name] = opaque
        return
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    del file[names[0]]
    file[names[0]] = opaque


@pytest.mark.parametrize("place", ["attributes", "tensor"])
@pytest.mark.parametrize("name", ["net.weights.h5", "net.h5", "net.keras"])
def test_pickles_are_not_read(tmp_path: Path, name: str, place: str) -> None:
    path, marker = tmp_path / name, tmp_path / "ran"
    model = keras_tracing.build_model(DENSE)
    (model.save if name.endswith("keras") else model.save_weights)(path)
    payload = pickle.dumps(_Payload(marker))
    pickle.loads(payload)
    assert marker.exists()  # it is one that works
    marker.unlink()
    _with_pickles(path, payload, place)
    try:
        read_case(path, model=DENSE)
        assert place == "attributes"
    except BpruneError as error:
        assert "\n" not in str(error)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["net.h5", "net.keras"])
def test_marshalled_lambda_is_not_run(tmp_path: Path, name: str) -> None:
    """The weights of the layers before it are taken; its bytecode is left where it is."""
    import tf_keras

    path, marker = tmp_path / name, tmp_path / "ran"
    code = eval(f"lambda t: open({str(marker)!r}, 'w') and t")
    layers = keras_tracing.build_model(DENSE).layers
    lambda_layer = tf_keras.layers.Lambda(code)
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), *layers, lambda_layer])
    assert marker.exists()  # it runs where a model is called
    marker.unlink()
    model.save(path)
    content = path.read_bytes()
    assert b"Lambda" in content
    case = read_case(path, model=DENSE)
    np.testing.assert_array_equal(
        case.posterior.loc["first/kernel_posterior_loc"], layers[0].kernel_posterior.mean()
    )
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["external", "virtual", "link"])
@pytest.mark.parametrize("suffix", ["weights.h5", "h5"])
@pytest.mark.parametrize("model", ["dense_flipout", "adapted"])
def test_tensors_in_other_files_are_refused(
    tmp_path: Path, kind: str, suffix: str, model: str
) -> None:
    """HDF5 can name any file of the machine as the place of a tensor."""
    path, secret = tmp_path / f"net.{suffix}", tmp_path / "secret"
    name_of_model = f"tests.helpers.small_models:{model}"
    keras_tracing.build_model(name_of_model).save_weights(path)
    secret.write_bytes(bytes(80))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["w"] = np.zeros((4, 5), np.float32)
    with h5py.File(path, "r+") as file:
        name = _first(file)
        del file[name]
        if kind == "external":
            file.create_dataset(name, (4, 5), "f4", external=[(str(secret), 0, 80)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4, 5), "f4")
            layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "w", shape=(4, 5))
            file.create_virtual_dataset(name, layout)
        else:
            file[name] = h5py.ExternalLink(tmp_path / "other.h5", "w")
    with pytest.raises(BpruneError, match="lies in another file"):
        read_case(path, model=name_of_model)


def _first(file: Any) -> str:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if getattr(item, "shape", None) == (4, 5) else None
    )
    return names[0]
