"""The library for notebooks: load a network, look at its posterior, prune it, predict with it.

    net = bprune_hpc.load("embedded:digits_fc")
    net.prune(snr=0.5).predict(x, n_draws=200).predictive_entropy

What belongs here: a thin shell over the modules that the commands use, so that a number found
here is the number that a sweep writes. What does not: maths of its own, and what users' arrays
have to be like (``library.validation``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checkpoints.case import Opening, Source, read_case
from ..data.fitting import NetworkInput
from ..errors import ConfigError, InputError
from ..evaluators.graph import GraphEvaluator, GraphNetwork
from ..evaluators.interface import Evaluator
from ..evaluators.selection import choose_evaluator
from ..formats.card import provenance
from ..formats.pruned_network import InputFitting, PrunedNetwork
from ..formats.selection import DEFAULT as DEFAULT_FORMATS
from ..formats.selection import read_formats
from ..formats.writing import export
from ..graph.lifted import OUTPUT_KINDS
from ..graph.network_input import network_input
from ..metrics.tasks import TASKS, Classification, Regression, Task
from ..posterior.criteria import CRITERIA
from ..posterior.mean_field import Posterior, Prior
from ..posterior.pruning import (
    GRANULARITIES,
    PRUNED_SCALE,
    SCOPES,
    PruningMask,
    PruningRule,
    mask_at_threshold,
    pruning_masks,
    thresholds_in_words,
)
from ..runner import prediction
from ..runner.batch_dependence import check_examples_apart, made_up_examples
from ..runner.datasets import TEST_SET, Examples
from ..runner.network import Network
from ..runner.output_probe import some_outputs
from ..runner.prediction import NormalPredictive, Predictive, Sampling
from ..runner.problem import check_prior, noise_of
from ..runner.task_selection import choose_task, kind_asked, told_by
from .validation import (
    checked_batch_size,
    checked_draws,
    checked_examples,
    checked_labels,
    checked_noise,
    checked_weights,
)


@dataclass(frozen=True)
class _Pruning:
    """How a network has become what it is: the posterior before, and what went."""

    unpruned: Posterior
    mask: PruningMask
    rule: PruningRule | None
    cut: str

    def then(self, later: _Pruning) -> _Pruning:
        """This one, and another of the network that was left."""
        kept = {name: mask & later.mask.kept[name] for name, mask in self.mask.kept.items()}
        pruned_scale = max(self.mask.pruned_scale, later.mask.pruned_scale)
        mask = dataclasses.replace(later.mask, kept=kept, pruned_scale=pruned_scale)
        return _Pruning(self.unpruned, mask, None, f"{self.cut}, then {later.cut}")


@dataclass(frozen=True, repr=False)
class BayesianNetwork:
    """A mean-field Bayesian network: a function of examples and weights, and a posterior.

    Made by :func:`load`; nothing changes it. Pruning gives a new one that shares the function.

    Attributes
    ----------
    posterior : Posterior
        Read-only table of the weights' means and standard deviations, by tensor.
    fixed : mapping of str to array
        Read-only; the network's tensors that have no posterior.
    source : Source
        Where the network came from.
    task : Classification or Regression
        What the network is for. A classification's ``output_kind`` is None where only the outputs
        for examples tell it.
    prior : mapping of str to Prior
        Of each tensor whose Gaussian prior the graph says.
    input : NetworkInput
        What the network takes.
    """

    posterior: Posterior
    fixed: Mapping[str, NDArray[Any]]
    source: Source
    task: Task
    prior: Mapping[str, Prior]
    input: NetworkInput
    _network: GraphNetwork
    _opening: Opening
    _output_kind: str = "auto"
    _pruning: _Pruning | None = None

    @property
    def n_weights(self) -> int:
        """Number of weights that have a posterior, pruned ones included."""
        return self.posterior.n_weights

    @property
    def n_active(self) -> int:
        """Number of them that are not exactly zero (mean and deviation)."""
        loc, scale = self.posterior.loc, self.posterior.scale
        return sum(int(np.count_nonzero((loc[n] != 0) | (scale[n] != 0))) for n in loc)

    @property
    def pruned_fraction(self) -> float:
        """Share of the weights with a posterior that are exactly zero."""
        return 1.0 - self.n_active / self.n_weights

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for a regression."""
        return self.task.n_classes

    def prune(
        self,
        *,
        snr: float | None = None,
        threshold: float | None = None,
        fraction: float | None = None,
        criterion: str = "snr",
        scope: str = "global",
        granularity: str = "weight",
        prior_scale: float | None = None,
        seed: int = 0,
        pruned_weights: str = "zero",
    ) -> BayesianNetwork:
        """A new network without the weights that matter least; this one stays.

        Everything means what it means in a sweep: the network that a sweep has chosen is
        ``net.prune(**bprune_hpc.results.read("sweep.h5").chosen_pruning())``.

        Parameters
        ----------
        snr : float
            A threshold of the signal-to-noise ratio: ``criterion="snr"`` and ``threshold``.
        threshold : float
            Prune what has a score of the criterion at this or beyond; its units are the
            criterion's.
        fraction : float
            Prune this share, in [0, 1), of what the granularity counts.
        criterion : str
            A key of :data:`bprune_hpc.posterior.criteria.CRITERIA`.
        scope : {"global", "layer"}
            Whether a fraction is of all tensors together, or of each alone.
        granularity : {"weight", "neuron", "filter"}
            What is pruned as a whole.
        prior_scale : float, optional
            Standard deviation of the weights' Gaussian prior, for the criteria that need one;
            without, what the graph says (``prior``).
        seed : int
            Of the criterion ``random``: that of the sweep.
        pruned_weights : {"zero", "bprune"}
            What a pruned weight becomes: exactly zero, or BPrune's N(0, ln 2²).

        Returns
        -------
        BayesianNetwork

        Raises
        ------
        ConfigError
            Unless exactly one of the first three is given, and all are in their range.
        """
        points = {"snr": snr, "threshold": threshold, "fraction": fraction}
        given = [(name, value) for name, value in points.items() if value is not None]
        if len(given) != 1:
            raise ConfigError("prune: give one of snr, threshold and fraction")
        ((point, value),) = given
        if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
            raise ConfigError(f"prune: seed {seed} is not an integer from 0 to 2**64 - 1")
        if point == "snr" and criterion != "snr":
            raise ConfigError(f"prune: snr is not a threshold of {criterion}; give threshold")
        for name, asked, known in (
            ("criterion", criterion, CRITERIA), ("scope", scope, SCOPES),
            ("granularity", granularity, GRANULARITIES),
            ("pruned_weights", pruned_weights, PRUNED_SCALE),
        ):  # fmt: skip
            if asked not in known:
                raise ConfigError(f"prune: {name} '{asked}' is none of {', '.join(known)}")
        prior = self.prior if CRITERIA[criterion].needs_prior and prior_scale is None else None
        rule = PruningRule(
            criterion, scope, granularity, prior_scale, seed, prior, PRUNED_SCALE[pruned_weights]
        )
        kind = "fraction" if point == "fraction" else "threshold"
        try:
            with _flags_as_arguments():
                if prior is not None:
                    check_prior(f"--criterion={criterion}", self.posterior, prior, self.source.path)
                (mask,) = pruning_masks(self.posterior, kind, [value], rule)
        except ValueError as error:
            raise ConfigError(f"prune: {error}") from error
        (cut,) = thresholds_in_words(rule, kind, [mask])
        pruning = _Pruning(self.posterior, mask, rule, cut)
        return dataclasses.replace(
            self,
            posterior=_frozen(mask.apply(self.posterior)),
            _pruning=pruning if self._pruning is None else self._pruning.then(pruning),
        )

    def save(
        self,
        directory: str | os.PathLike[str],
        formats: Sequence[str] = DEFAULT_FORMATS,
        *,
        x: ArrayLike | None = None,
        y: ArrayLike | None = None,
        n_draws: int = 200,
        seed: int = 0,
        pairing: str = "antithetic",
        batch_size: int = 500,
        input_scale: str | float = "auto",
        layout: str | None = None,
        bits: int = 32,
        keep_slots: bool = False,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Write the network in files that others open, each checked in its own runtime.

        Parameters
        ----------
        directory : path
            That is made, whole or not at all.
        formats : sequence of str
            Keys of :data:`bprune_hpc.formats.selection.FORMATS`.
        x, y : array, optional
            Examples that the formats are compared on, and their labels, with which the network at
            its mean, an ensemble and the posterior are measured.
        n_draws, seed : int
            See :meth:`predict`; they go into the files.
        pairing : str
            The same.
        batch_size : int
            The same.
        input_scale : str or float
            The same.
        layout : str, optional
            The same.
        bits : {32, 16}
            Of a number in the bundle, where its deviation says that no more are known.
        keep_slots : bool
            Whether a checkpoint keeps what the optimizer has for each weight; else that begins
            anew.
        overwrite : bool
            Whether an export that is there is replaced.

        Returns
        -------
        dict
            What stands in ``model_card.json``.

        Raises
        ------
        ConfigError
            If an argument is out of its range, or a format cannot take the network.
        ExportError
            If what was written does not give the network's numbers.
        """
        n_draws = checked_draws(n_draws, seed, pairing, batch_size, self.task)
        if bits not in (16, 32):
            raise ConfigError(f"save: bits {bits} is neither 16 nor 32")
        with _flags_as_arguments():
            chosen = read_formats(formats)
            examples = None
            if x is not None:
                fitted = checked_examples(x, self.input, input_scale, layout)
                label = checked_labels(y, len(fitted), self.task)
                examples = Examples(TEST_SET, fitted, label)
            some = made_up_examples(self._network.lifted) if examples is None else examples.x
            if some is None:
                raise ConfigError("save: the shape of an example is open; give examples as x")
            pruning = self._pruning or _Pruning(
                self.posterior, mask_at_threshold(self.posterior, 0.0), None, "none"
            )
            unpruned = dataclasses.replace(
                self._of_the_sweep(self._told_by(some)), posterior=pruning.unpruned
            )
            draw_noise = noise_of(
                ("auto", None), unpruned.evaluator,
                (unpruned.graph, unpruned.posterior, self.fixed), [some],
            )  # fmt: skip
            network = PrunedNetwork(
                unpruned=unpruned,
                mask=pruning.mask,
                rule=pruning.rule,
                cut=pruning.cut,
                source=self.source,
                opening=self._opening,
                fitting=InputFitting(self.input, str(input_scale), layout),
                sampling=Sampling(n_draws, seed, pairing, batch_size),
                provenance=provenance(self.source, pruning.rule),
                examples=examples,
                draw_noise=draw_noise,
                bits=bits,
                keeps_slots=keep_slots,
            )
            return export(network, directory, chosen, overwrite=overwrite)

    def predict(
        self,
        x: ArrayLike,
        n_draws: int = 200,
        seed: int = 0,
        pairing: str = "antithetic",
        batch_size: int = 500,
        y: ArrayLike | None = None,
        *,
        input_scale: str | float = "auto",
        layout: str | None = None,
        draw_noise: str = "auto",
        noise_block: int | None = None,
        first_example: int = 0,
    ) -> Predictive | NormalPredictive:
        """The predictive distribution of examples, averaged over draws from the posterior.

        A sweep with the same draws, seed, pairing, noise and batch size writes the same bits.

        Parameters
        ----------
        x : array of real numbers, shape (n_examples, ...)
            Examples; reshaped where only the axes differ.
        n_draws : int
            Rounded up to what is taken together: two for antithetic pairs, four in a regression.
        seed : int
            In [0, 2**64); decides every draw.
        pairing : {"antithetic", "none"}
            Whether draws come in pairs with opposite noise.
        batch_size : int
            Examples evaluated at once.
        y : array, shape (n_examples,), optional
            Class numbers or names, or targets, whose log-probability or log-density is wanted; of
            several targets, (n_examples, n_targets).
        input_scale : str or float
            What examples are multiplied by: ``none``, or a factor such as 0.5 or ``"1/255"``;
            ``auto``, as in a sweep: bytes (uint8) by 1/255 unless the network takes integers or
            scales them itself, all else as it is.
        layout : {"channels_last", "channels_first"}, optional
            Where the examples have their channels, if that is not clear.
        draw_noise : {"auto", "shared", "per_block", "per_example"}
            Which examples share the noise of a draw: what is right for each example by itself, or
            ``shared``, one network a draw, for statements about several examples together.
        noise_block : int, optional
            Examples that share it, for ``per_block``; without, what the network says.
        first_example : int
            Position of the first example in its data set: noise that is not shared is a function
            of positions, so that parts of a set are given what the whole is.

        Returns
        -------
        Predictive
            Of a classification.
        NormalPredictive
            Of a regression.

        Raises
        ------
        DataError
            If examples or labels do not fit the network or are not finite.
        ConfigError
            If a number is out of its range.
        BpruneError
            If an output is not finite.
        """
        n_draws = checked_draws(n_draws, seed, pairing, batch_size, self.task)
        with _flags_as_arguments():
            examples = checked_examples(x, self.input, input_scale, layout)
            label = checked_labels(y, len(examples), self.task)
            task = self._told_by(examples)
        noise = checked_noise(draw_noise, noise_block, first_example, len(examples))
        network = self._of_the_sweep(task)
        with _flags_as_arguments():
            kind, n_together = noise_of(
                noise, network.evaluator, (network.graph, self.posterior, self.fixed), [examples]
            )
            network = dataclasses.replace(network, draw_noise=kind, noise_block=n_together)
            batch_size = network.noise(seed).batch_size(batch_size)
        sampling = Sampling(n_draws, seed, pairing, batch_size, first_example)
        return prediction.predict(
            network, self._evaluator(network), self._network, examples, label, sampling
        )

    def _told_by(self, examples: NDArray[Any]) -> Task:
        """The task, which some outputs may have to tell, as in a sweep."""
        lifted = self._network.lifted
        outputs = some_outputs(
            GraphEvaluator(self._network), self.posterior, examples, lifted.batch_size
        )
        return told_by(outputs, self.task, lifted, self.source.path, self._output_kind)

    def _of_the_sweep(self, task: Task) -> Network:
        """The network as a sweep takes it."""
        lifted = self._network.lifted
        return Network(
            graph=lifted,
            posterior=self.posterior,
            fixed=self.fixed,
            task=task,
            checkpoint=self.source.path,
            sha256=self.source.sha256,
            evaluator=choose_evaluator("auto", lifted),
        )

    def logits(
        self,
        x: ArrayLike,
        weights: Mapping[str, ArrayLike] | None = None,
        batch_size: int = 500,
        *,
        input_scale: str | float = "auto",
        layout: str | None = None,
    ) -> NDArray[np.float32]:
        """Logits of examples at the posterior mean, or under given weights.

        Parameters
        ----------
        x : float array, shape (n_examples, ...)
        weights : mapping of str to array, optional
            One array for each name of ``posterior.loc``, of the same shape; as they are, so that
            pruning is not applied to them.
        batch_size : int
        input_scale : str or float
            See :meth:`predict`.
        layout : str, optional
            The same.

        Returns
        -------
        float32 array, shape (n_examples, n_classes)

        Raises
        ------
        DataError
            If examples or weights do not fit the network.
        """
        checked_batch_size(batch_size)
        if not isinstance(self.task, Classification):
            raise ConfigError("logits: the network is a regression; use predict")
        with _flags_as_arguments():
            examples = checked_examples(x, self.input, input_scale, layout)
        chosen = self.posterior.loc
        if weights is not None:
            chosen = checked_weights(weights, self.posterior)
        with _flags_as_arguments():
            task = self._told_by(examples)
        assert isinstance(task, Classification)
        outputs = prediction.outputs_at(self._network, examples, chosen, batch_size)
        return np.ascontiguousarray(task.logits(outputs.T[None])[0].T)

    def __repr__(self) -> str:
        shape = self._network.lifted.input_shape
        axes = "any" if shape is None else ", ".join("n" if s is None else str(s) for s in shape)
        return (
            f"<BayesianNetwork {Path(self.source.path).name}: {self.n_weights:,} weights with a "
            f"posterior in {len(self.posterior.names)} tensors, {100 * self.pruned_fraction:.1f} % "
            f"pruned; ({axes}) -> {self._output_in_words()}>"
        )

    def _output_in_words(self) -> str:
        if isinstance(self.task, Classification):
            return f"{self.n_classes} classes"
        noise = self.task.noise_scale
        what = "a Normal" if noise is None else f"the mean of a Normal, scale {noise:g}"
        n_targets = self.task.n_targets
        return what if n_targets == 1 else f"{what}, of each of {n_targets} targets"

    def _evaluator(self, network: Network) -> Evaluator:
        if network.evaluator == "graph":
            return GraphEvaluator(self._network)
        return network.make_evaluator(self._network.n_intra, self._network.n_inter)


def load(
    case: Any,
    model_ckpt: str | None = None,
    model: str | Callable[[], Any] | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    input_op: str | None = None,
    logits_op: str | None = None,
    loc_op: str | None = None,
    scale_op: str | None = None,
    feed: Mapping[str, str | float | bool] | None = None,
    task: str = "auto",
    noise_scale: float | None = None,
    output_kind: str = "auto",
    n_intra: int = 1,
    n_inter: int = 1,
) -> BayesianNetwork:
    """Load a trained Bayesian network, a classifier or a regression.

    Parameters
    ----------
    case : path, str or tf_keras.Model
        Case directory or file; ``embedded:digits_fc`` is one that comes with the package. Or a
        model in memory, whose weights are copied.
    model_ckpt : str, optional
        Which checkpoint of a directory; without, the newest.
    model : str or callable, optional
        What builds the Keras model that a weight file belongs to: a function without arguments,
        ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``.
    input_shape : tuple of int, optional
        Shape of an example, for a model that does not say what it takes.
    input_op, logits_op : str, optional
        Operations of the graph, where they are not found.
    loc_op, scale_op : str, optional
        Of a regression: operations that give mean and standard deviation.
    feed : mapping of str to number, optional
        Values of placeholders besides the input, such as a dropout rate, by name.
    task : {"auto", "classification", "regression"}
        What the network is for; ``auto``: what its output says, as in a sweep.
    noise_scale : float, optional
        Of a regression that gives a mean alone: the standard deviation of the targets.
    output_kind : str
        What the output's numbers are, one of ``OUTPUT_KINDS`` of :mod:`bprune_hpc.graph.lifted`;
        ``auto``: what the structure or, of the first examples, they themselves say.
    n_intra, n_inter : int
        TensorFlow threads. The first network of a process decides; the bits depend on them.

    Returns
    -------
    BayesianNetwork

    Raises
    ------
    CheckpointError, GraphError
        If it cannot be read, or is no mean-field network.
    ConfigError
        If what it is for cannot be told, or is not what was asked for.
    """
    if task not in TASKS:
        raise ConfigError(f"task: '{task}' is none of {', '.join(TASKS)}")
    if noise_scale is not None and not 1e-30 <= noise_scale <= 1e30:
        raise ConfigError(f"noise_scale: {noise_scale:g} is not in 1e-30 to 1e30")
    if output_kind not in ("auto", *OUTPUT_KINDS):
        raise ConfigError(
            f"output_kind: '{output_kind}' is none of auto, {', '.join(OUTPUT_KINDS)}"
        )
    with _flags_as_arguments():
        kind = kind_asked(task, output_kind, noise_scale)
        found = read_case(
            case,
            model_ckpt,
            model=model,
            example_shape=None if input_shape is None else lambda: tuple(input_shape),
            input_op=input_op,
            logits_op=logits_op,
            loc_op=loc_op,
            scale_op=scale_op,
            output_kind=kind,
            feed={name: str(value) for name, value in (feed or {}).items()},
            with_prior=True,
            n_intra=n_intra,
            n_inter=n_inter,
        )
        chosen = choose_task(task, noise_scale, found.graph, found.source.path, output_kind)
        examples = made_up_examples(found.graph)
        if examples is not None:
            check_examples_apart(
                found.graph, found.posterior, found.fixed, examples, found.source.path,
                (n_intra, n_inter),
            )  # fmt: skip
    is_normal = isinstance(chosen, Regression) and chosen.noise_scale is None
    network = GraphNetwork(found.graph, found.fixed, n_intra, n_inter, with_scale=is_normal)
    return BayesianNetwork(
        _frozen(found.posterior), _read_only(found.fixed), found.source, chosen,
        MappingProxyType(dict(found.prior)), network_input(found.graph, found.fixed), network,
        found.opening, output_kind,
    )  # fmt: skip


@contextlib.contextmanager
def _flags_as_arguments() -> Iterator[None]:
    """What a command calls a flag is an argument here: say so in messages."""
    try:
        yield
    except InputError as error:
        raise type(error)(re.sub(r"--(\w+)", r"\1", str(error))) from None


def _frozen(posterior: Posterior) -> Posterior:
    return Posterior(_read_only(posterior.loc), _read_only(posterior.scale))


def _read_only(arrays: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """The same arrays, protected, since networks that come from one another share them."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return MappingProxyType(views)
