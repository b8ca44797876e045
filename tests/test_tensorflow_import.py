"""TensorFlow as it comes into a process: quietly, in part or whole, without the host's GPUs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bprune_hpc import tensorflow_import
from bprune_hpc.errors import InstallationError
from tests.helpers import small_models
from tests.helpers.bits import all_bits
from tests.helpers.launch import LIMIT_S


def test_sessions_take_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = tensorflow_import.import_graphs()
    configs = []

    def opened(graph: Any = None, config: Any = None) -> Any:
        configs.append(config)
        return graphs.Session(graph=graph, config=config)

    stand_in = SimpleNamespace(**{**vars(graphs), "Session": opened})
    monkeypatch.setattr(tensorflow_import, "import_graphs", lambda: stand_in)
    with graphs.Graph().as_default() as graph:
        one = graphs.constant(1)
    with tensorflow_import.open_session(graph) as session:
        assert session.run(one) == 1
    assert configs and all(config.device_count["GPU"] == 0 for config in configs)


def test_a_session_on_a_gpu_sees_that_one_alone_and_takes_memory_as_it_needs_it() -> None:
    config = tensorflow_import.session_config(2, 3, device=tensorflow_import.Device(5))
    assert config.gpu_options.visible_device_list == "5" and config.gpu_options.allow_growth
    assert config.allow_soft_placement and "GPU" not in config.device_count
    threads = config.intra_op_parallelism_threads, config.inter_op_parallelism_threads
    assert threads == (2, 3)
    processors = tensorflow_import.session_config(2, 3)
    assert processors.device_count["GPU"] == 0 and not processors.HasField("gpu_options")


def test_gpus_are_named_in_tensorflows_order(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"GPU": ["first", "second"]}
    details = {"first": {"device_name": "A", "compute_capability": (8, 0)}, "second": {}}
    config = SimpleNamespace(
        list_physical_devices=listed.get,
        experimental=SimpleNamespace(get_device_details=details.get),
    )
    monkeypatch.setattr(
        tensorflow_import, "import_tensorflow", lambda: SimpleNamespace(config=config)
    )
    monkeypatch.setattr(tensorflow_import, "_uses_gpus", [])
    assert tensorflow_import.gpus() == ["A", "a GPU without a name"]
    assert tensorflow_import._uses_gpus  # so that nothing says that they are left alone


def test_a_host_without_a_gpu_describes_none() -> None:
    code = (
        "from bprune_hpc.tensorflow_import import Device, description_of, gpus\n"
        "from bprune_hpc.tensorflow_import import keep_digits, same_bits\n"
        "assert gpus() == []\n"
        "keep_digits()\n"
        "import tensorflow as tf\n"
        "from tensorflow.python.framework import config\n"
        "with same_bits():\n"
        "    assert config.is_op_determinism_enabled()\n"
        "assert not config.is_op_determinism_enabled()\n"
        "assert not tf.config.experimental.tensor_float_32_execution_enabled()\n"
        "try:\n"
        "    description_of(Device(0))\n"
        "except RuntimeError as error:\n"
        "    assert 'cannot use it' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    assert run_alone(code).returncode == 0


@pytest.mark.parametrize("has_run", [False, True])
def test_a_tensorflow_that_is_imported_here_sees_no_gpu(
    monkeypatch: pytest.MonkeyPatch, has_run: bool
) -> None:
    visible: list[tuple[list[Any], str]] = []

    def set_visible_devices(devices: list[Any], kind: str) -> None:
        if has_run:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        visible.append((devices, kind))

    config = SimpleNamespace(set_visible_devices=set_visible_devices)
    fake = SimpleNamespace(config=config)
    monkeypatch.delitem(tensorflow_import.sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(tensorflow_import.importlib, "import_module", lambda name: fake)
    assert tensorflow_import.import_tensorflow() is fake
    assert visible == ([] if has_run else [([], "GPU")])


def test_gpus_of_the_host_are_mentioned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tensorflow_import, "_ROOT", tmp_path)
    say = tensorflow_import._say_that_gpus_are_left_alone
    for n_said in (0, 1, 1):
        if n_said:
            (tmp_path / "dev").mkdir(exist_ok=True)
            (tmp_path / "dev/nvidia0").touch()
        say()
        assert len(caplog.messages) == n_said
        if not n_said:
            say.cache_clear()
    say.cache_clear()
    assert "GPUs of this host are not used" in caplog.text


def test_imports_leave_tensorflow_out() -> None:
    modules = "tensorflow_import checkpoints.saver checkpoints.case graph.lifting evaluators.graph"
    code = f"import sys\nfor m in '{modules}'.split(): __import__('bprune_hpc.' + m)\n"
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=LIMIT_S).returncode == 0


def run_alone(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a process of its own; what it says on standard error is shown, too."""
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **variables},
        capture_output=True, timeout=LIMIT_S,
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


@pytest.mark.parametrize("moved", ["modules", "names"])
def test_private_names_that_have_moved_are_taken_from_the_whole(moved: str, tmp_path: Path) -> None:
    arguments = ["--model_dir=embedded:digits_fc", "--num_monte_carlo=2", "--thresholds=0"]
    outputs = [tmp_path / "as_they_are.h5", tmp_path / "moved.h5"]
    code = (
        "import sys\n"
        "from bprune_hpc import tensorflow_import as door\n"
        "from bprune_hpc.mpi.comm import run\n"
        "from bprune_hpc.sweep import sweep\n"
        "def elsewhere(name, home, public):\n"
        f"    gone = 'python.gone' if {moved == 'modules'} else home.split(':')[0] + ':gone'\n"
        "    can_move = public or name in door._CAN_BE_DONE_WITHOUT\n"
        "    return (gone if can_move else home), public\n"
        "if sys.argv[1:]:\n"
        "    for homes in (door.GRAPHS,):\n"
        "        homes.update({name: elsewhere(name, *home) for name, home in homes.items()})\n"
        f"output = {[str(path) for path in outputs]}[len(sys.argv) - 1]\n"
        f"arguments = [*{arguments}, '--evaluator=graph', '--output=' + output]\n"
        "assert not run(lambda comm: sweep(comm, arguments))\n"
        "assert ('tensorflow' in sys.modules) == bool(sys.argv[1:])\n"
    )
    for index in range(len(outputs)):
        assert run_alone(code, *["moved"] * index).returncode == 0
    one, other = map(all_bits, outputs)
    assert one == other


def test_a_tensorflow_that_lacks_a_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_import, "_part", SimpleNamespace())
    homes = {"Session": ("python.gone", "compat.v9.Session")}
    monkeypatch.setattr(tensorflow_import, "GRAPHS", homes)
    with pytest.raises(ImportError, match=r"TensorFlow 2.* lacks compat.v9.Session"):
        tensorflow_import.import_graphs()


@pytest.mark.parametrize(
    ("tensorflow", "probability", "fits"),
    [
        ("2.16.2", "0.24.0", True),
        ("2.17.1", "0.25.0", False),
        ("2.18.0", "0.25.0", True),
        ("2.21.0", "0.25.0", True),
    ],
)
def test_probability_for_another_tensorflow_is_refused(
    tensorflow: str, probability: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = SimpleNamespace(__version__=tensorflow)
    monkeypatch.setattr(tensorflow_import, "import_tensorflow", lambda: fake)
    versions = {"tensorflow-probability": probability}
    monkeypatch.setattr(tensorflow_import.metadata, "version", versions.__getitem__)
    if fits:
        tensorflow_import.check_probability()
        return
    with pytest.raises(InstallationError) as refused:
        tensorflow_import.import_probability()
    assert str(refused.value) == (
        "TensorFlow Probability 0.25.0 is not for TensorFlow 2.17.1, which is below 2.18; "
        "pip install 'tensorflow-probability==0.24.*', or a newer TensorFlow"
    )


def test_layers_of_tensorflow_probability_do_not_warn() -> None:
    """Of what is no user's to mend; as in a process that has not imported TensorFlow yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*add_variable")
        tensorflow_import._quieten()
        small_models.dense_flipout()
