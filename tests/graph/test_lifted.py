"""Calling a lifted graph, against the same network written in NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc.evaluators.graph import GraphNetwork
from bprune_hpc.graph.lifted import LiftedGraph
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers.launch import LIMIT_S


@pytest.fixture(scope="module")
def lifted() -> LiftedGraph:
    """``relu(x @ w) + b`` where x is float64 and w is mean-field."""
    tensorflow = import_tensorflow()
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default() as graph:
        x = tf1.placeholder(tensorflow.float64, (None, 3), name="x")
        w = tf1.placeholder(tensorflow.float32, (3, 2), name="w")
        b = tf1.placeholder(tensorflow.float32, (2,), name="b")
        total = tensorflow.nn.relu(tensorflow.cast(x, tensorflow.float32) @ w) + b
        tensorflow.identity(total, name="logits")
        content = graph.as_graph_def().SerializeToString()
    return LiftedGraph(
        content, "x:0", (None, 3), "float64", "logits:0", (None, 2), {"w": "w:0"}, {"b": "b:0"}
    )


def test_same_as_numpy(lifted: LiftedGraph) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(9, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    with GraphNetwork(lifted, {"b": b.astype(np.float32)}) as network:
        logits = network(x, {"w": w.astype(np.float32)})
        again = network(x, {"w": w.astype(np.float32)})
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, np.maximum(x @ w, 0) + b, atol=2e-6)
    np.testing.assert_array_equal(logits, again)


def test_missing_fixed_value(lifted: LiftedGraph) -> None:
    with pytest.raises(ValueError, match=r"no value for \['b'\]"):
        GraphNetwork(lifted, {})


def test_imports_leave_tensorflow_out() -> None:
    modules = "tensorflow_import checkpoints.saver checkpoints.case graph.lifting evaluators.graph"
    code = f"import sys\nfor m in '{modules}'.split(): __import__('bprune_hpc.' + m)\n"
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=LIMIT_S).returncode == 0


def run_alone(code: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a process of its own; what it says on standard error is shown, too."""
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    sys.stderr.write(ended.stderr.decode())
    return ended


def test_tensorflow_starts_quietly_with_settings() -> None:
    code = (
        "import os, numpy as np\n"
        "from bprune_hpc.tensorflow_import import import_tensorflow\n"
        "import_tensorflow()\n"
        "assert os.environ['TF_USE_LEGACY_KERAS'] == '1'\n"
        "assert os.environ['TF_CPP_MIN_LOG_LEVEL'] == '3'\n"
    )
    ended = run_alone(code)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_held_back_lines_are_shown_where_the_import_fails() -> None:
    code = (
        "import os\n"
        "from bprune_hpc.tensorflow_import import quiet_file_descriptor_2\n"
        "with quiet_file_descriptor_2(): os.write(2, b'chatter')\n"
        "with quiet_file_descriptor_2():\n"
        "    os.write(2, b'the reason')\n"
        "    raise ImportError('no library')\n"
    )
    ended = run_alone(code)
    assert b"the reason" in ended.stderr and b"chatter" not in ended.stderr


def test_what_graphs_need_leaves_the_rest_of_tensorflow_to_others() -> None:
    code = (
        "import sys\n"
        "from bprune_hpc.tensorflow_import import import_graphs\n"
        "part = import_graphs()\n"
        "assert 'tensorflow' not in sys.modules\n"
        "with part.Graph().as_default() as graph:\n"
        "    finite = part.reduce_all(part.is_finite(part.constant([1.0, float('nan')])))\n"
        "import tensorflow\n"
        "assert tensorflow.Graph is part.Graph and tensorflow.executing_eagerly()\n"
        "assert tensorflow.function(lambda x: x + 1)(tensorflow.constant(1)).numpy() == 2\n"
        "layer = tensorflow.keras.layers.Dense(3)\n"
        "assert layer(tensorflow.ones((2, 4))).shape == (2, 3)\n"
        "assert tensorflow.TensorShape([None, 3])[1] == 3\n"
        "with part.Session(graph=graph) as session:\n"
        "    assert not session.run(finite)\n"
        "assert import_graphs() is part\n"
    )
    assert run_alone(code).returncode == 0


@pytest.mark.parametrize("evaluator", ["chain", "graph"])
def test_reading_and_running_a_checkpoint_needs_no_more(evaluator: str, tmp_path: Path) -> None:
    arguments = ["--model_dir=embedded:digits_fc", "--num_monte_carlo=2", "--thresholds=0"]
    arguments += [f"--evaluator={evaluator}", f"--output={tmp_path / 'sweep.h5'}"]
    code = (
        "import sys\n"
        "from bprune_hpc.mpi.comm import run\n"
        "from bprune_hpc.sweep import sweep\n"
        f"assert not run(lambda comm: sweep(comm, {arguments!r}))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    assert run_alone(code).returncode == 0


def test_another_thread_that_imports_tensorflow_meanwhile_gets_it() -> None:
    code = (
        "import sys, threading\n"
        "from bprune_hpc.tensorflow_import import import_graphs\n"
        "found = []\n"
        "def look():\n"
        "    while not found:\n"
        "        found.extend([sys.modules['tensorflow']] if 'tensorflow' in sys.modules else [])\n"
        "thread = threading.Thread(target=look, daemon=True)\n"
        "thread.start()\n"
        "import_graphs()\n"
        "thread.join()\n"
        "assert found[0].constant(3).numpy() == 3\n"
    )
    assert run_alone(code).returncode == 0


def test_plugins_are_loaded_with_the_whole() -> None:
    code = "from bprune_hpc.tensorflow_import import import_graphs\nimport_graphs()\n"
    ended = run_alone(code, TF_PLUGGABLE_DEVICE_LIBRARY_PATH="/nowhere/plugin.so")
    assert ended.returncode == 1 and b"/nowhere/plugin.so" in ended.stderr
