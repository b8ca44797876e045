"""The library for notebooks: load a network, look at its posterior, prune it, predict with it.

    net = bprune_hpc.load("embedded:digits_fc")
    net.prune(snr=0.5).predict(x, n_draws=200).predictive_entropy

What belongs here: a thin shell over the modules that the commands use, so that a number found
here is the number that a sweep writes. What does not: maths of its own, and what users' arrays
have to be like (``library_checks``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .case import Source, read_case
from .errors import ConfigError, GraphError
from .evaluation import NotFinite, batches, evaluate
from .evaluator_choice import choose_evaluator
from .evaluators import Evaluator
from .graph_evaluator import GraphEvaluator
from .library_checks import (
    check_outputs,
    checked_batch_size,
    checked_draws,
    checked_examples,
    checked_weights,
)
from .metrics import Statistics
from .network import GraphNetwork
from .plan import make_plan, round_of
from .posterior import Posterior
from .predicted import Predictive
from .predictive import DrawSums, GroupSums, bytes_per_cell
from .problem import Problem
from .pruning import cut_at_fraction, cut_at_threshold
from .pruning import prune as pruned_posterior
from .tasks import Classification

_SUMS_LIMIT_BYTES = 2**30


@dataclass(frozen=True, repr=False)
class BayesianNetwork:
    """A mean-field Bayesian classifier: a function of examples and weights, and a posterior.

    Made by :func:`load`; nothing changes it. Pruning gives a new one that shares the function.

    Attributes
    ----------
    posterior : Posterior
        Read-only table of the weights' means and standard deviations, by tensor.
    fixed : mapping of str to array
        Read-only; the network's tensors that have no posterior.
    source : Source
        Where the network came from.
    """

    posterior: Posterior
    fixed: Mapping[str, NDArray[Any]]
    source: Source
    _network: GraphNetwork

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
        """Number of classes."""
        return int((self._network.lifted.output_shape or (0,))[-1] or 0)

    def prune(self, *, snr: float | None = None, fraction: float | None = None) -> BayesianNetwork:
        """A new network without the weights of lowest signal-to-noise ratio; this one stays.

        Parameters
        ----------
        snr : float
            Prune where the ratio is at or below this; 0 prunes nothing.
        fraction : float
            Prune this share, in [0, 1), of all weights that have a posterior.

        Returns
        -------
        BayesianNetwork
            Its pruned weights have mean 0 and standard deviation 0.

        Raises
        ------
        ConfigError
            Unless exactly one of the two is given, and in its range.
        """
        try:
            if snr is not None and fraction is None:
                cut = cut_at_threshold(self.posterior, snr)
            elif fraction is not None and snr is None:
                cut = cut_at_fraction(self.posterior, fraction)
            else:
                raise ConfigError("prune: give either snr or fraction")
        except ValueError as error:
            raise ConfigError(f"prune: {error}") from error
        return dataclasses.replace(self, posterior=_frozen(pruned_posterior(self.posterior, cut)))

    def predict(
        self,
        x: ArrayLike,
        n_draws: int = 200,
        seed: int = 0,
        pairing: str = "antithetic",
        batch_size: int = 500,
    ) -> Predictive:
        """Average the class probabilities of examples over draws from the posterior.

        A sweep with the same draws, seed, pairing and batch size writes the same bits.

        Parameters
        ----------
        x : float array, shape (n_examples, ...)
            Examples, scaled as the network was trained; reshaped where only the axes differ.
        n_draws : int
            Rounded up to an even number for antithetic pairs.
        seed : int
            In [0, 2**64); decides every draw.
        pairing : {"antithetic", "none"}
            Whether draws come in pairs with opposite noise.
        batch_size : int
            Examples evaluated at once.

        Returns
        -------
        Predictive

        Raises
        ------
        DataError
            If the examples do not fit the network or are not finite.
        ConfigError
            If a number is out of its range.
        BpruneError
            If an output is not finite.
        """
        n_draws = checked_draws(n_draws, seed, pairing, batch_size)
        problem = self._problem(x)
        n_examples = len(problem.x)
        plan = make_plan(
            n_draws=n_draws,
            pairing=pairing,
            n_thresholds=1,
            n_examples=n_examples,
            bytes_per_cell=bytes_per_cell(problem.n_classes),
            batch_size=batch_size,
            limit_bytes=_SUMS_LIMIT_BYTES,
        )
        everything = [cut_at_threshold(self.posterior, 0.0)]
        evaluator = self._evaluator(problem)
        (share,) = round_of(range(len(plan.units)), [1], 1).shares
        draw_sums = DrawSums.zeros(1, n_draws)
        not_finite: NotFinite = {}
        statistics = Statistics(plan, keep_probabilities=True)
        for block in plan.blocks:
            sums: dict[int, GroupSums] = {}
            evaluate(
                evaluator, problem, everything, plan, share, block,
                sums, draw_sums, not_finite,
                seed=seed, advance=lambda n_cells: None,
            )  # fmt: skip
            check_outputs(not_finite)
            statistics.add_block(sums, problem.label[block.start : block.stop])
        mean_probability = statistics.mean_probability
        assert mean_probability is not None  # it was asked for
        return Predictive(
            mean_probability=mean_probability[0],
            predictive_entropy=statistics.per_example("predictive_entropy")[0],
            expected_entropy=statistics.per_example("expected_entropy")[0],
            mutual_information=statistics.per_example("mutual_information")[0],
            n_draws=n_draws,
            seed=seed,
            pairing=pairing,
        )

    def logits(
        self,
        x: ArrayLike,
        weights: Mapping[str, ArrayLike] | None = None,
        batch_size: int = 500,
    ) -> NDArray[np.float32]:
        """Logits of examples at the posterior mean, or under given weights.

        Parameters
        ----------
        x : float array, shape (n_examples, ...)
        weights : mapping of str to array, optional
            One array for each name of ``posterior.loc``, of the same shape; as they are, so that
            pruning is not applied to them.
        batch_size : int

        Returns
        -------
        float32 array, shape (n_examples, n_classes)

        Raises
        ------
        DataError
            If examples or weights do not fit the network.
        """
        checked_batch_size(batch_size)
        examples = checked_examples(x, self._network.lifted)
        chosen = self.posterior.loc
        if weights is not None:
            chosen = checked_weights(weights, self.posterior)
        size = min(batch_size, len(examples))
        parts = [
            self._network(batch, chosen)[: rows.stop - rows.start]
            for rows, batch in batches(examples, range(len(examples)), size)
        ]
        return np.concatenate(parts)

    def __repr__(self) -> str:
        shape = self._network.lifted.input_shape
        axes = "any" if shape is None else ", ".join("n" if s is None else str(s) for s in shape)
        return (
            f"<BayesianNetwork {Path(self.source.path).name}: {self.n_weights:,} weights with a "
            f"posterior in {len(self.posterior.names)} tensors, {100 * self.pruned_fraction:.1f} % "
            f"pruned; ({axes}) -> {self.n_classes} classes>"
        )

    def _problem(self, x: ArrayLike) -> Problem:
        examples = checked_examples(x, self._network.lifted)
        return Problem(
            graph=self._network.lifted,
            posterior=self.posterior,
            fixed=self.fixed,
            x=examples,
            # Only sums that are not asked for here depend on the labels.
            label=np.zeros(len(examples), np.int64),
            task=Classification(self.n_classes),
            checkpoint=self.source.path,
            sha256=self.source.sha256,
            evaluator=choose_evaluator("auto", self._network.lifted),
        )

    def _evaluator(self, problem: Problem) -> Evaluator:
        if problem.evaluator == "graph":
            return GraphEvaluator(self._network)
        return problem.make_evaluator(self._network.n_intra, 1)


def load(
    case: str | Path,
    model_ckpt: str | None = None,
    model: str | None = None,
    *,
    input_op: str | None = None,
    logits_op: str | None = None,
    n_intra: int = 1,
    n_inter: int = 1,
) -> BayesianNetwork:
    """Load a trained Bayesian classifier.

    Parameters
    ----------
    case : path or str
        Case directory or file; ``embedded:digits_fc`` is one that comes with the package.
    model_ckpt : str, optional
        Which checkpoint of a directory; without, the newest.
    model : str, optional
        ``MODULE:FUNCTION``, the builder of the Keras model that a weight file belongs to.
    input_op, logits_op : str, optional
        Operations of the graph, where they are not found.
    n_intra, n_inter : int
        TensorFlow threads. The first network of a process decides; the bits depend on them.

    Returns
    -------
    BayesianNetwork

    Raises
    ------
    CheckpointError, GraphError
        If it cannot be read, or is not a mean-field classifier.
    """
    found = read_case(
        case,
        model_ckpt,
        model=model,
        input_op=input_op,
        logits_op=logits_op,
        n_intra=n_intra,
        n_inter=n_inter,
    )
    if "loc" in found.graph.output_tensors:
        raise GraphError(
            f"{found.source.path}: gives a Normal distribution, with the mean at "
            f"{found.graph.output_tensor}; the library takes classifiers, or logits_op"
        )
    if (found.graph.output_shape or (None,))[-1] is None:
        raise GraphError(
            f"{found.source.path}: {found.graph.output_tensor} has an unknown number of classes; "
            "name the logits with logits_op"
        )
    network = GraphNetwork(found.graph, found.fixed, n_intra, n_inter)
    return BayesianNetwork(_frozen(found.posterior), _read_only(found.fixed), found.source, network)


def _frozen(posterior: Posterior) -> Posterior:
    return Posterior(_read_only(posterior.loc), _read_only(posterior.scale))


def _read_only(arrays: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """The same arrays, protected, since networks that come from one another share them."""
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return MappingProxyType(views)
