"""The graph of a training run: network, ELBO, optimizer; and what is measured at its end.

What belongs here: TensorFlow in graph mode; the likelihood of classes, and of a regression a Normal
around the network's output whose noise scale is given or learned. What does not: flags, files, the
loop over epochs (``train``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.tf1 import LOC_OP, SCALE_OP
from ..errors import ConfigError, WriteError
from ..job import memory
from ..models import zoo as models_zoo
from ..models.layers import local_dense
from ..posterior.mean_field import snr
from ..tensorflow_import import call_of, calls_of, import_probability, import_tensorflow
from .config import TrainConfig, op_seed
from .gradients import of_elbo, of_nll
from .noise import Noise
from .units import Units, variable
from .validation import log_likelihood

_SMALLEST_SCALE = 1e-6  # so that a perfect fit cannot end in a division by zero


def likelihood(
    output: Any, targets: Any, noise_scale: float | None, unit: Any = None
) -> tuple[Any, Any]:
    """Mean negative log-likelihood of a Normal around the output, and its standard deviation.

    The operations that a sweep takes the predictive from are called ``predictive/loc`` and
    ``predictive/scale``.

    Parameters
    ----------
    output : float32 tensor, shape (n, 1)
    targets : float32 tensor, shape (n,)
    noise_scale : float or None
        None: one for all examples is learned, from 1 on; targets of unit variance suit it.
    unit : float32 tensor, optional
        What a scale of 1 that is learned stands for; default: 1.

    Returns
    -------
    nll, scale : float32 tensor, shape ()
    """
    tf = import_tensorflow()
    loc = tf.identity(output, name=LOC_OP)
    if noise_scale is None:
        start = math.log(math.expm1(1.0))
        raw = tf.compat.v1.get_variable("noise/untransformed_scale", initializer=start)
        noise: Any = _SMALLEST_SCALE + tf.nn.softplus(raw)
        noise = noise if unit is None else unit * noise
    else:
        noise = tf.constant(noise_scale, tf.float32)
    scale = tf.identity(noise, name=SCALE_OP)
    return mean_nll(loc, targets, scale), scale


def mean_nll(outputs: Any, labels: Any, noise_scale: Any | None) -> Any:
    """Mean negative log-likelihood of classes or, with a standard deviation, of Normals."""
    tf, distributions = import_tensorflow(), import_probability().distributions
    if noise_scale is None:
        predictive = distributions.Categorical(logits=outputs, name="label_dist")
    else:
        predictive = distributions.Normal(outputs[:, 0], noise_scale, name="target_dist")
    return -tf.reduce_mean(predictive.log_prob(labels))


def measure(
    draws: Iterator[NDArray[np.float64]],
    at_mean: Callable[[], NDArray[np.float64]],
    targets: NDArray[np.float64],
    scale: float,
) -> dict[str, float]:
    """Errors on the test half.

    Parameters
    ----------
    draws : iterator of float64 array, shape (n, 1)
        Means under draws of the weights.
    at_mean : callable
        Gives those under the mean weights.
    targets : float64 array, shape (n,)
    scale : float

    Returns
    -------
    dict
        ``rmse_mean_weights``, ``rmse_averaged`` (of the mean over the draws), ``rmse_single_draw``,
        ``nll_averaged`` (of the mixture of the draws' Normals, nats an example), ``noise_scale``.
    """
    outputs = list(draws)
    error = np.stack([draw[:, 0] for draw in outputs]) - targets
    log_density = np.stack([log_likelihood(draw, targets, scale) for draw in outputs])
    mixture = np.logaddexp.reduce(log_density, axis=0) - math.log(len(error))
    return {
        "rmse_mean_weights": _root_mean_square(at_mean()[:, 0] - targets),
        "rmse_averaged": _root_mean_square(error.mean(axis=0)),
        "rmse_single_draw": _root_mean_square(error),
        "nll_averaged": -float(mixture.mean()),
        "noise_scale": scale,
    }


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return math.sqrt(float((values**2).mean()))


_EVALUATED_AT_ONCE = 500
_NO_SCALE = -200.0  # its softplus is 0 in float32


@dataclass(frozen=True)
class Training:
    """The graph of a training run and the handles that a step needs.

    Attributes
    ----------
    nll : float32 tensor, shape ()
        Mean negative log-likelihood, as it is trained by.
    scales : mapping of str to float32 tensor
        Standard deviations that it depends on, by the layer's name.
    nll_gradients : list of float32 tensor
        See :func:`bprune_hpc.training.gradients.of_nll`.
    gradients : list of float32 tensor
        This rank's share of the mean over ranks of the whole loss's.
    outputs : float32 tensor, shape (n, n_outputs)
        Logits of the network or, of a regression, means of the targets in their units.
    noise_scale : float32 tensor or None
        Of a regression.
    """

    graph: Any
    inputs: Any
    labels: Any
    learning_rate: Any
    kl_factor: Any
    network: models_zoo.Network
    nll: Any
    scales: Mapping[str, Any]
    nll_gradients: list[Any]
    gradients: list[Any]
    step: Any
    init: Any
    saver: Any
    outputs: Any
    noise_scale: Any | None = None


def build(
    config: TrainConfig,
    example_shape: tuple[int, ...],
    n_classes: int,
    n_train: int,
    rank: int = 0,
    n_ranks: int = 1,
    is_masked: bool = False,
    units: Units | None = None,
) -> Training:
    """Build network, ELBO and optimizer into a new TF1 graph.

    The first two ops are the placeholders of examples and labels, ``Placeholder`` and
    ``Placeholder_1``: BPrune's users find them by their place. The network is that of
    ``models.zoo``, whichever estimator its gradients are from.

    Parameters
    ----------
    config : TrainConfig
    example_shape : tuple of int
        Shape of one example; it is flattened into the placeholder.
    n_classes, n_train : int
        Classes, or 1 for a regression; examples in the whole training set.
    rank, n_ranks : int
        The first decides the seed of this process's initial values, the second the share of its
        gradients.
    is_masked : bool
        Whether weights can be pruned.
    units : Units, optional
        Of the data, where the network is to take them off.
    """
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        v1.set_random_seed(op_seed(config.seed, rank))
        inputs = v1.placeholder(tf.float32, (None, math.prod(example_shape)))
        is_regression = config.task == "regression"
        labels = v1.placeholder(tf.float32 if is_regression else tf.int64, (None,))
        rate = v1.placeholder(tf.float32, (), name="learning_rate")
        factor = v1.placeholder(tf.float32, (), name="kl_factor")
        taken, given, unit = inputs, (lambda logits: logits), None
        if units is not None:
            taken = (inputs - variable("mean", units.mean)) / variable("scale", units.scale)
        network = models_zoo.build(
            config.model,
            taken,
            n_classes,
            n_train,
            example_shape=example_shape,
            hidden=config.hidden,
            width=config.width,
            prior_scale=config.prior_scale,
            posterior_scale_init=config.posterior_scale_init,
            is_masked=is_masked,
        )
        if units is not None and is_regression:
            zero, unit = (
                variable("target_mean", units.target_mean),
                variable("target_scale", units.target_scale),
            )
            given = lambda logits: zero + unit * logits  # noqa: E731
        outputs, noise_scale = given(network.logits), None
        if is_regression:
            nll, noise_scale = likelihood(outputs, labels, config.noise_scale, unit)
        else:
            nll = mean_nll(outputs, labels, None)
        scales = network.drawn_scales
        if config.estimator == "local":
            logits, scales = local_dense(network.layers, taken)
            nll = mean_nll(given(logits), labels, noise_scale)
        found = of_nll(network, nll, scales, 1 / n_ranks)
        pairs = of_elbo(network, found, scales, factor / n_train, config.prior_scale, 1 / n_ranks)
        gradients = [gradient for gradient, _ in pairs]
        step = v1.train.AdamOptimizer(rate).apply_gradients(
            pairs, global_step=v1.train.get_or_create_global_step()
        )
        init = v1.global_variables_initializer()
        saver = v1.train.Saver(max_to_keep=None)  # it removes none; ``train_directory`` does
    return Training(
        graph, inputs, labels, rate, factor, network, nll, scales, found, gradients, step, init,
        saver, outputs, noise_scale,
    )  # fmt: skip


def check_memory(training: Training, asked_for: str) -> None:
    """Refuse a network whose variables, Adam's among them, are larger than the memory there is.

    Parameters
    ----------
    asked_for : str
        What decides its size, for the message.

    Raises
    ------
    ConfigError
    """
    variables = training.graph.get_collection("variables")
    gib = sum(v.dtype.size * math.prod(v.shape.as_list()) for v in variables) / 2**30
    available = memory.available()
    if available is not None and gib > available.gib:
        raise ConfigError(
            f"{asked_for}: the network and its optimizer take {gib:.1f} GiB, and "
            f"{available.gib:.1f} GiB are {available.of}; choose a smaller one, or get more"
        )


def noise_of(training: Training, config: TrainConfig, rank: int, n_steps: int = 0) -> Noise:
    """Noise of a rank's training steps, of which there have been some."""
    is_shared = config.estimator == "reparameterization"
    return Noise(training.nll, config.seed, rank, n_steps, is_shared)


def step_of(training: Training, session: Any, noise: Noise) -> Callable[..., np.float32]:
    """A training step of one rank alone as a call.

    It takes examples, labels, learning rate and weight of the KL term as arrays of the graph's
    types, and gives the negative log-likelihood in nats an example. That of several ranks is
    :class:`bprune_hpc.training.shares.SharedSteps`.
    """
    network = training.network
    fed = [training.learning_rate, training.inputs, training.labels, training.kl_factor]
    fed, flags = [*fed, *noise.fed], []
    if network.is_training is not None:
        fed, flags = [*fed, network.is_training], [np.bool_(True)]
    whole = calls_of(session, [training.nll], fed, [training.step, *network.updates])

    def step(x: Any, y: Any, rate: np.float32, factor: np.float32) -> np.float32:
        (nll,) = whole(rate, x, y, factor, *noise.next(len(x)), *flags)
        return nll  # type: ignore[no-any-return]

    return step


def state_of(training: Training, session: Any) -> dict[str, NDArray[Any]]:
    """Every variable, by its name."""
    variables = training.graph.get_collection("variables")
    names = [variable.name for variable in variables]
    return dict(zip(names, map(np.asarray, session.run(variables)), strict=True))


def set_state(training: Training, session: Any, values: Mapping[str, NDArray[Any]]) -> None:
    """Give variables the values of :func:`state_of`."""
    variables = {v.name: v for v in training.graph.get_collection("variables")}
    _assign(session, [(variables[name], value) for name, value in values.items()])


def _assign(session: Any, pairs: Sequence[tuple[Any, NDArray[Any]]]) -> None:
    initializers = [variable.initializer for variable, _ in pairs]
    feeds = {op.inputs[1]: value for op, (_, value) in zip(initializers, pairs, strict=True)}
    session.run(initializers, feeds)


def write_checkpoint(training: Training, session: Any, prefix: Path, step: int) -> None:
    """Write every variable to ``PREFIX-STEP``, and nothing else.

    Raises
    ------
    WriteError
        If the file system refuses.
    """
    errors = import_tensorflow().errors
    try:
        training.saver.save(
            session, str(prefix), global_step=step, write_meta_graph=False, write_state=False
        )
    except errors.OpError as error:
        found = re.search(r"; ([^;\n]+)$", error.message, re.MULTILINE)
        reason = found[1] if found else type(error).__name__
        raise WriteError(
            f"{prefix}-{step}: cannot be written ({reason}); what is there is as it was; mend "
            "that, and run the same command again"
        ) from error


def evaluate(
    config: TrainConfig,
    training: Training,
    session: Any,
    x: NDArray[np.float32],
    y: NDArray[Any],
    noise: Noise,
    before_draw: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Accuracy or error on held-out examples, and quantiles of the signal-to-noise ratios.

    Parameters
    ----------
    noise : Noise
        Of the network's outputs.
    before_draw : callable
        Called before each draw; what it raises ends the evaluation.

    Returns
    -------
    dict
        ``accuracy_mean_weights``, ``accuracy_averaged`` (mean probability over the draws),
        ``accuracy_single_draw`` (mean over the draws), ``nll_averaged`` (nats an example) and
        ``snr_quantiles`` of all kernels, by quantile; of a regression, in place of the first
        four, what :func:`bprune_hpc.training.graph.measure` gives.
    """
    draw = drawing(training, session, x, noise)

    def logits() -> NDArray[np.float64]:
        before_draw()
        return draw()

    def at_mean() -> NDArray[np.float64]:
        with _no_noise(training, session):
            return logits()

    draws = (logits() for _ in range(config.n_draws_eval))
    if training.noise_scale is not None:
        measured = measure(draws, at_mean, y, float(session.run(training.noise_scale)))
    else:
        measured = _measure_classes(draws, at_mean, y)
    locs, scales = session.run((training.network.locs, training.network.scales))
    ratios = np.concatenate([snr(locs[name], scales[name]).ravel() for name in locs])
    quantiles = (0.01, 0.25, 0.5, 0.75, 0.9, 0.99)
    return {
        **measured,
        "snr_quantiles": {str(q): float(np.quantile(ratios, q)) for q in quantiles},
    }


def drawing(
    training: Training, session: Any, x: NDArray[np.float32], noise: Noise
) -> Callable[[], NDArray[np.float64]]:
    """What gives the outputs of another draw for some examples, each time it is called."""
    call = call_of(session, training.outputs, [training.inputs, *noise.fed])
    batches = np.split(x, range(_EVALUATED_AT_ONCE, len(x), _EVALUATED_AT_ONCE))

    def draw() -> NDArray[np.float64]:
        parts = [call(batch, *noise.next(len(batch))) for batch in batches]
        return np.concatenate(parts).astype(np.float64)

    return draw


def _measure_classes(
    draws: Iterator[NDArray[np.float64]],
    at_mean: Callable[[], NDArray[np.float64]],
    y: NDArray[np.int64],
) -> dict[str, float]:
    mean_probability, single = np.zeros(()), []
    for draw in draws:
        single.append((draw.argmax(axis=1) == y).mean())
        weights = np.exp(draw - draw.max(axis=1, keepdims=True))
        mean_probability = mean_probability + weights / weights.sum(axis=1, keepdims=True)
    mean_probability = mean_probability / len(single)
    with np.errstate(divide="ignore"):
        nll = -np.log(mean_probability[np.arange(len(y)), y]).mean()
    return {
        "accuracy_mean_weights": float((at_mean().argmax(axis=1) == y).mean()),
        "accuracy_averaged": float((mean_probability.argmax(axis=1) == y).mean()),
        "accuracy_single_draw": float(np.mean(single)),
        "nll_averaged": float(nll),
    }


@contextmanager
def _no_noise(training: Training, session: Any) -> Iterator[None]:
    """The network at its posterior mean: TFP's scale is then float32's epsilon, 1.2e-7."""
    variables = list(training.network.untransformed_scales.values())
    trained = session.run(variables)
    _assign(session, [(v, np.full(v.shape, _NO_SCALE, np.float32)) for v in variables])
    try:
        yield
    finally:
        _assign(session, list(zip(variables, trained, strict=True)))
