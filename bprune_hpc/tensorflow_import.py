"""The one door to TensorFlow: imported late, quietly, with the threads and device asked for.

Most commands need a part of it only: what reads, changes and runs graphs, which loads in a third of
the time of the whole. Its modules are private to TensorFlow; where one of them has moved, the whole
is imported and the public names are taken.

What belongs here: importing TensorFlow, all of it or a part, the GPUs that it sees, and opening
sessions. What does not: graphs, checkpoints, anything that computes; which rank takes which GPU
(``job.device``).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
import operator
import os
import site
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from . import streams
from .errors import InstallationError

Homes = Mapping[str, tuple[str, str]]
"""Where TensorFlow keeps what is used of it: the private module, and the public name in the whole.

The private name is the public one's last part, if no other follows a colon. Some have no public
name; what can be done without is then None.
"""

GRAPHS: Homes = {
    "AttrValue": ("core.framework.attr_value_pb2", "compat.v1.AttrValue"),
    "BundleEntryProto": ("core.protobuf.tensor_bundle_pb2", ""),
    "CallableOptions": ("core.protobuf.config_pb2", ""),
    "ConfigProto": ("core.protobuf.config_pb2", "compat.v1.ConfigProto"),
    "Graph": ("python.framework.ops", "Graph"),
    "GraphDef": ("core.framework.graph_pb2", "compat.v1.GraphDef"),
    "MetaGraphDef": ("core.protobuf.meta_graph_pb2", "compat.v1.MetaGraphDef"),
    "OpError": ("python.framework.errors_impl", "errors.OpError"),
    "SavedModel": ("core.protobuf.saved_model_pb2", ""),
    "Session": ("python.client.session", "compat.v1.Session"),
    "TensorShape": ("python.framework.tensor_shape", "TensorShape"),
    "TrackableObjectGraph": ("core.protobuf.trackable_object_graph_pb2", ""),
    "VERSION": ("python.framework.versions", "version.VERSION"),
    "as_dtype": ("python.framework.dtypes", "as_dtype"),
    "broadcast_to": ("python.ops.gen_array_ops", "broadcast_to"),
    "cast": ("python.ops.math_ops", "cast"),
    "concat": ("python.ops.array_ops", "concat"),
    "constant": ("python.framework.constant_op", "constant"),
    "float32": ("python.framework.dtypes", "float32"),
    "float64": ("python.framework.dtypes", "float64"),
    "import_graph_def": ("python.framework.importer", "graph_util.import_graph_def"),
    "is_finite": ("python.ops.gen_math_ops", "math.is_finite"),
    "make_ndarray": ("python.framework.tensor_util:MakeNdarray", "make_ndarray"),
    "make_tensor_proto": ("python.framework.tensor_util", "make_tensor_proto"),
    "matmul": ("python.ops.math_ops", "matmul"),
    "op_def_of": ("python.framework.op_def_registry:get", ""),
    "open_checkpoint": (
        "python.training.py_checkpoint_reader:NewCheckpointReader",
        "train.load_checkpoint",
    ),
    "placeholder": ("python.ops.array_ops", "compat.v1.placeholder"),
    "reduce_all": ("python.ops.math_ops", "reduce_all"),
    "reshape": ("python.ops.array_ops", "reshape"),
    "resource": ("python.framework.dtypes", "resource"),
    "shape": ("python.ops.array_ops", "shape"),
    "variant": ("python.framework.dtypes", "variant"),
}
"""What reads, changes and runs graphs."""
VARIABLES: Homes = {"UninitializedVariable": ("python.ops.resource_variable_ops", "")}
"""For models that are built without values; all of TensorFlow is there then."""

_NEW, _PROBABILITY_FOR_NEW = (2, 18), (0, 25)  # versions that belong together
_CAN_BE_DONE_WITHOUT = {"CallableOptions"}
MOST_AXES = 254
"""Axes that a tensor of TensorFlow can have."""


@dataclass(frozen=True)
class Device:
    """What the operations of a session run on: the processors of this host, or one of its GPUs.

    Attributes
    ----------
    gpu : int or None
        The GPU's place among those that TensorFlow sees; None for the processors.
    """

    gpu: int | None = None

    @property
    def name(self) -> str:
        """As graphs name it: a session has at most one GPU."""
        return "/device:CPU:0" if self.gpu is None else "/device:GPU:0"

    def set_in(self, config: Any) -> None:
        """Let a session of this ``ConfigProto`` have this device, and no other GPU."""
        if self.gpu is None:
            config.device_count["GPU"] = 0
            return
        config.gpu_options.visible_device_list = str(self.gpu)
        config.gpu_options.allow_growth = True  # it would fill the memory of all GPUs otherwise
        config.allow_soft_placement = True  # what a GPU has no code for


CPU = Device()

logger = logging.getLogger(__name__)

_part = SimpleNamespace()
_lock = threading.RLock()
_has_run: list[bool] = []
_uses_gpus: list[bool] = []
_ROOT = Path("/")
_GPU_FILES = ("dev/nvidia[0-9]*", "dev/kfd")  # NVIDIA's, AMD's
_PACKAGE = "tensorflow"
_PLUGIN_VARIABLE = "TF_PLUGGABLE_DEVICE_LIBRARY_PATH"
_PLUGIN_DIRECTORY = "tensorflow-plugins"


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
        if _PACKAGE in sys.modules:
            return sys.modules[_PACKAGE]
        _quieten()
        with quiet_file_descriptor_2(), _no_collection():
            tensorflow = importlib.import_module(_PACKAGE)
            _hide_gpus(tensorflow)
            return tensorflow


def import_probability() -> Any:
    """Import TensorFlow Probability, and TensorFlow before it.

    Returns
    -------
    module
        ``tensorflow_probability``.

    Raises
    ------
    InstallationError
        If it is for another TensorFlow.
    """
    import_tensorflow()
    check_probability()
    return importlib.import_module("tensorflow_probability")


def check_probability() -> None:
    """Refuse a TensorFlow Probability that is for a newer TensorFlow; its own words are many.

    Raises
    ------
    InstallationError
    """
    with contextlib.suppress(metadata.PackageNotFoundError):
        found = metadata.version("tensorflow-probability")
        version = import_tensorflow().__version__
        if _numbers(found) >= _PROBABILITY_FOR_NEW and _numbers(version) < _NEW:
            raise InstallationError(
                f"TensorFlow Probability {found} is not for TensorFlow {version}, which is below "
                f"2.18; pip install 'tensorflow-probability==0.24.*', or a newer TensorFlow"
            )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def gpus() -> list[str]:
    """Names of the GPUs that TensorFlow sees, in its order; none of them is touched.

    Raises
    ------
    ImportError
        If TensorFlow cannot be imported.
    """
    _uses_gpus.append(True)
    config = import_tensorflow().config
    with quiet_file_descriptor_2():
        found = config.list_physical_devices("GPU")
        details = [config.experimental.get_device_details(one) for one in found]
    return [one.get("device_name", "a GPU without a name") for one in details]


def description_of(device: Device) -> str:
    """What TensorFlow says of a GPU, which it takes into use: name, PCI address, capability.

    Raises
    ------
    ImportError, RuntimeError
        If this TensorFlow does not tell, or cannot use it.
    """
    listed = _from_home("python.client.device_lib", "list_local_devices")
    with quiet_file_descriptor_2():
        found = listed(session_config(1, 1, device=device))
    for one in found:
        if one.device_type == "GPU":
            return str(one.physical_device_desc)
    raise RuntimeError("TensorFlow cannot use it; TF_CPP_MIN_LOG_LEVEL=0 shows why")


def keep_digits() -> None:
    """Have products on GPUs keep all digits of float32, in place of TF32's three."""
    import_tensorflow().config.experimental.enable_tensor_float_32_execution(False)


@contextmanager
def same_bits() -> Iterator[None]:
    """Have GPUs give the same bits each time, in the body alone.

    There TensorFlow refuses random operations without a seed, which networks have that are read.
    """
    import_tensorflow().config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        _from_home("python.framework.config", "disable_op_determinism")()


def import_graphs() -> Any:
    """Import what reads, changes and runs graphs, as quietly; see ``GRAPHS``.

    Returns
    -------
    namespace
        ``Graph``, ``Session``, ``import_graph_def`` and the others, by their names.

    Raises
    ------
    ImportError
        If TensorFlow cannot be imported, or lacks something that is used.
    """
    return _with(GRAPHS)


def import_variables() -> Any:
    """All of TensorFlow, and the class of variables without values."""
    import_tensorflow()
    return _with(VARIABLES)


def _with(homes: Homes) -> SimpleNamespace:
    if not homes.keys() <= vars(_part).keys():
        with _lock, _no_collection():
            _quieten()
            vars(_part).update(_private(homes) or _public(homes))
    return _part


@contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no garbage meanwhile: modules make none, and a tenth of their import is less."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _private(homes: Homes) -> dict[str, Any] | None:
    """A part by TensorFlow's private names; None where one of them has moved."""
    values: dict[str, Any] = {}
    with quiet_file_descriptor_2(), _stand_in():
        try:
            importlib.import_module(f"{_PACKAGE}.python.tf2").enable()  # as its own import begins
            for name, (home, _) in homes.items():
                values[name] = _from_home(home, name)
        except (ModuleNotFoundError, AttributeError) as error:
            logger.debug("TensorFlow has moved a private name, all of it is imported: %s", error)
            return None
    return values


def _public(homes: Homes) -> dict[str, Any]:
    """The same by the public names of the whole, and by private ones that have no other."""
    tensorflow, values = import_tensorflow(), {}
    for name, (home, public) in homes.items():
        try:
            values[name] = (
                operator.attrgetter(public)(tensorflow) if public else _from_home(home, name)
            )
        except (ImportError, AttributeError) as error:
            if name in _CAN_BE_DONE_WITHOUT:
                values[name] = None
                continue
            version = getattr(tensorflow, "__version__", "")
            raise ImportError(
                f"TensorFlow {version} lacks {public or home}, which is needed; "
                "install the version that setup.cfg names"
            ) from error
    return values


def _from_home(home: str, name: str) -> Any:
    module, _, private = home.partition(":")
    return getattr(importlib.import_module(f"{_PACKAGE}.{module}"), private or name)


class _StandIn(ModuleType):
    """What another thread gets that imports TensorFlow meanwhile: the whole, once it asks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or sys.modules.get(_PACKAGE) is self:
            raise AttributeError(name)
        return getattr(importlib.import_module(_PACKAGE), name)


@contextmanager
def _stand_in() -> Iterator[None]:
    """Let ``tensorflow.x`` be imported without ``tensorflow``, whose import loads all of it.

    The stand-in is gone at the end: who imports TensorFlow then, in the same process, gets all of
    it, with the modules that are there as its own. Plugins are loaded by the whole alone.
    """
    if _PACKAGE not in sys.modules and _has_plugins():
        importlib.import_module(_PACKAGE)
    if _PACKAGE in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named '{_PACKAGE}'", name=_PACKAGE)
    package = _StandIn(_PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[_PACKAGE] = package
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


def _has_plugins() -> bool:
    directories = {site.getusersitepackages(), *site.getsitepackages(), *sys.path}
    return bool(os.environ.get(_PLUGIN_VARIABLE)) or any(
        Path(directory, _PLUGIN_DIRECTORY).exists() for directory in directories
    )


def _hide_gpus(tensorflow: Any) -> None:
    """Keep a TensorFlow that is new in this process off the GPUs: it would fill their memory."""
    with contextlib.suppress(RuntimeError):  # it has run already, with what its user chose
        tensorflow.config.set_visible_devices([], "GPU")


@lru_cache
def _say_that_gpus_are_left_alone() -> None:
    if not _uses_gpus and any(next(_ROOT.glob(pattern), None) for pattern in _GPU_FILES):
        logger.info("the GPUs of this host are not used; a sweep uses them with --device=gpu")


def _quieten() -> None:
    _say_that_gpus_are_left_alone()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # TensorFlow Probability's layers call tf_keras by a name that this calls deprecated.
    warnings.filterwarnings("ignore", "`layer.add_variable` is deprecated", UserWarning)


def session_config(
    n_intra: int, n_inter: int, is_optimized: bool = True, device: Device = CPU
) -> Any:
    """The ``ConfigProto`` of a session; see :func:`open_session`."""
    config = import_graphs().ConfigProto(
        intra_op_parallelism_threads=n_intra,
        inter_op_parallelism_threads=n_inter,
        use_per_session_threads=True,
    )
    device.set_in(config)
    if not is_optimized:
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = -1
    return config


def open_session(
    graph: Any, n_intra: int = 1, n_inter: int = 1, is_optimized: bool = True, device: Device = CPU
) -> Any:
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
    device : Device
        The processors alone, or them and a GPU.

    Returns
    -------
    tf.compat.v1.Session
    """
    tensorflow = import_graphs()
    config = session_config(n_intra, n_inter, is_optimized, device)
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
    make = getattr(session, "_make_callable_from_options", None)
    options = import_graphs().CallableOptions
    with quiet_file_descriptor_2():  # the first one of a process announces the MLIR passes
        if make is None or options is None:  # moved: the public one copies
            call = session.make_callable([*outputs, *targets], list(fed))
            return lambda *arrays: call(*arrays)[: len(outputs)]
        return make(  # type: ignore[no-any-return]
            options(
                fetch=[getattr(tensor, "name", tensor) for tensor in outputs],
                feed=[getattr(tensor, "name", tensor) for tensor in fed],
                target=[operation.name for operation in targets],
            )
        )


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
