"""The one door to TensorFlow: imported late, quietly, and with the threads that were asked for.

What belongs here: importing TensorFlow, all of it or what graphs need, and opening sessions. What
does not: graphs, checkpoints, anything that computes.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from . import streams, tensorflow_graphs

MOST_AXES = 254
"""Axes that a tensor of TensorFlow can have."""

logger = logging.getLogger(__name__)

_part = SimpleNamespace()
_lock = threading.RLock()
_has_run: list[bool] = []
_ROOT = Path("/")
_GPU_FILES = ("dev/nvidia[0-9]*", "dev/kfd")  # NVIDIA's, AMD's
_OPTIMIZERS = ("tf_keras.src.optimizers", "keras.src.optimizers")


def import_tensorflow() -> Any:
    """Import TensorFlow without its start-up chatter, and without GPUs.

    ``TF_CPP_MIN_LOG_LEVEL`` (3) and ``TF_USE_LEGACY_KERAS`` (1) are set unless the user has set
    them; ``TF_ENABLE_ONEDNN_OPTS``, which changes bits, is left alone.

    Returns
    -------
    module
        ``tensorflow``.

    Raises
    ------
    ImportError
        If TensorFlow cannot be imported; what it wrote to standard error is then shown.
    """
    with _lock:
        if "tensorflow" in sys.modules:
            return sys.modules["tensorflow"]
        _set_variables()
        with quiet_file_descriptor_2(), _without_optimizers():
            tensorflow = importlib.import_module("tensorflow")
            _hide_gpus(tensorflow)
            return tensorflow


def import_graphs() -> Any:
    """Import what reads, changes and runs graphs, as quietly; see ``tensorflow_graphs``.

    Returns
    -------
    namespace
        ``Graph``, ``Session``, ``import_graph_def`` and the others, by their names.

    Raises
    ------
    ImportError, AttributeError
        If TensorFlow cannot be imported, or is not one of the versions that are supported.
    """
    return _with(tensorflow_graphs.GRAPHS)


def import_layers() -> Any:
    """The same, and what layers of a network are built of."""
    import_graphs()
    return _with(tensorflow_graphs.LAYERS)


def _with(homes: tensorflow_graphs.Homes) -> SimpleNamespace:
    (*_, last) = homes.values()
    if not hasattr(_part, last[-1].rpartition(":")[2]):
        with _lock, quiet_file_descriptor_2():
            _set_variables()
            vars(_part).update(tensorflow_graphs.load(homes))
    return _part


def _hide_gpus(tensorflow: Any) -> None:
    """Keep a TensorFlow that is new in this process off the GPUs: it would fill their memory."""
    with contextlib.suppress(RuntimeError):  # it has run already, with what its user chose
        tensorflow.config.set_visible_devices([], "GPU")


@lru_cache
def _say_that_gpus_are_left_alone() -> None:
    if any(next(_ROOT.glob(pattern), None) for pattern in _GPU_FILES):
        logger.info("this host has GPUs, which are not used: everything runs on its processors")


def _set_variables() -> None:
    _say_that_gpus_are_left_alone()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


@contextmanager
def _without_optimizers() -> Iterator[None]:
    """Keep TensorFlow from loading Keras' optimizers, a quarter of the time of its import.

    It does so to register them for SavedModels that hold one, and passes over their absence; here
    graphs are read from SavedModels, and no objects. Keras itself is loaded when it is first used.
    """
    absent = [name for name in _OPTIMIZERS if name not in sys.modules]
    blocked: dict[str, Any] = dict.fromkeys(absent)  # None: Python says that there is none
    sys.modules.update(blocked)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def open_session(graph: Any, n_intra: int = 1, n_inter: int = 1, is_optimized: bool = True) -> Any:
    """Open a TF1 session over ``graph`` with its own number of threads.

    TensorFlow makes one pool of intra-op threads a process, for the first session that is opened,
    so every session of a process has to come through here with the same counts.

    Parameters
    ----------
    graph : tf.Graph
    n_intra, n_inter : int
        Threads within an operation and between operations.
    is_optimized : bool
        Whether TensorFlow may rewrite the graph and fold its constants.

    Returns
    -------
    tf.compat.v1.Session
    """
    tensorflow = import_graphs()
    config = tensorflow.ConfigProto(
        intra_op_parallelism_threads=n_intra,
        inter_op_parallelism_threads=n_inter,
        use_per_session_threads=True,
        device_count={"GPU": 0},
    )
    if not is_optimized:
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = -1
    if not _has_run:
        # The first run of a process writes a line that no log level stops.
        with quiet_file_descriptor_2(), tensorflow.Graph().as_default():
            nothing = tensorflow.constant(0)
            with tensorflow.Session(config=config) as session:
                session.run(nothing)
        _has_run.append(True)
    return tensorflow.Session(graph=graph, config=config)


def call_of(session: Any, output: Any, fed: Sequence[Any]) -> Callable[..., Any]:
    """What a session makes of arrays for some tensors: :func:`calls_of` with one output."""
    call = calls_of(session, [output], fed)
    return lambda *arrays: call(*arrays)[0]


def calls_of(
    session: Any, outputs: Sequence[Any], fed: Sequence[Any], targets: Sequence[Any] = ()
) -> Callable[..., list[Any]]:
    """What a session makes of arrays for some tensors, in their order.

    ``Session.run`` looks at every array and copies it; this call takes arrays as they lie. They
    have to be of the tensors' types, and of shapes that the caller has seen to. What it returns
    may share their memory, and they are let go of at the next call.

    Parameters
    ----------
    session : tf.compat.v1.Session
    outputs, fed : sequence of tf.Tensor or str
        Tensors, or their names.
    targets : sequence of tf.Operation
        What else is run.
    """
    options = import_graphs().CallableOptions(
        fetch=[getattr(tensor, "name", tensor) for tensor in outputs],
        feed=[getattr(tensor, "name", tensor) for tensor in fed],
        target=[operation.name for operation in targets],
    )
    with quiet_file_descriptor_2():  # the first one of a process announces the MLIR passes
        return session._make_callable_from_options(options)  # type: ignore[no-any-return]


def limit_threads(n_intra: int, n_inter: int) -> None:
    """Give what runs outside of sessions (a Keras model as it is built) the same threads."""
    config = import_tensorflow().config.threading
    try:
        config.set_intra_op_parallelism_threads(n_intra)
        config.set_inter_op_parallelism_threads(n_inter)
    except RuntimeError:
        # TensorFlow has run in this process already and keeps what it has.
        return


@contextmanager
def quiet_file_descriptor_2() -> Iterator[None]:
    """Hold back what is written to file descriptor 2; show it only if the body raises."""
    # cuDNN, cuBLAS and cpu_feature lines are written by C++ before any log level is read, so only
    # the file descriptor itself can be silenced.
    streams.open_missing()
    _flush()
    with tempfile.TemporaryFile() as captured:
        original = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            with contextlib.suppress(OSError):
                os.write(original, captured.read())
            raise
        finally:
            _flush()
            os.dup2(original, 2)
            os.close(original)


def _flush() -> None:
    if sys.stderr is not None:  # as it is in a program that was started with it closed
        sys.stderr.flush()
