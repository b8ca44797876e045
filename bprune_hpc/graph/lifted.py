"""Evaluators: the deterministic half of a Bayesian network, ``outputs = f(x, weights)``.

What belongs here: calling a lifted graph with given weights. What does not: how the graph was
lifted (``graph.lifting``), where the weights come from (``posterior.draws``,
``posterior.pruning``), sums over draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .layer_graph import LayerGraph, UnknownOperation

OUTPUT_KINDS = ("logits", "probabilities", "independent", "mean", "mean_and_scale")
"""What a network gives: logits, or probabilities, of classes (a single one: of class 1 of two);
probabilities of labels that do not exclude each other; the mean of each target; the means of the
targets and after them as many standard deviations."""
OF_REGRESSION = ("mean", "mean_and_scale")


@dataclass(frozen=True)
class LiftedGraph:
    """A network as a graph without noise and without weights: every weight is an argument.

    Attributes
    ----------
    graph_def : bytes
        Serialized GraphDef; holds constants, but no variable's value.
    input_tensor, output_tensor : str
        Names of the tensors that take the examples and give the logits (in a regression, the mean).
    output_tensors : mapping of str to str
        Every output by what it is: ``logits``; or ``loc`` and ``scale``, the mean and the standard
        deviation of a regression's Normal, each of one shape with the other or broadcast to it.
    input_shape, output_shape : tuple of int or None; None
        First axis: examples. An axis that the graph leaves open is None; None in place of the
        tuple says that not even the number of axes is known.
    input_dtype : str
        NumPy's name of the type that examples are cast to.
    loc_tensors, fixed_tensors : mapping of str to str
        Name of each mean-field tensor, and of each deterministic one, to the tensor it is fed to.
    output_kind : str or None
        What ``output_tensor`` gives, one of ``OUTPUT_KINDS``, as the source or the structure says;
        None where only its numbers can tell.
    notes : tuple of str
        What a reader of results should know about the lift.
    rows_with_noise : tuple of str
        Tensors that a layer multiplies by its weights with noise of its own for each row, which the
        lifted network has not: a draw of weights is for all rows.
    layers : LayerGraph, UnknownOperation or None
        The same network as a graph of layers, or what keeps it from being one; None for a network
        of two outputs.
    """

    graph_def: bytes
    input_tensor: str
    input_shape: tuple[int | None, ...] | None
    input_dtype: str
    output_tensor: str
    output_shape: tuple[int | None, ...] | None
    loc_tensors: Mapping[str, str]
    fixed_tensors: Mapping[str, str]
    notes: tuple[str, ...] = ()
    output_tensors: Mapping[str, str] = field(default_factory=dict)
    output_kind: str | None = None
    rows_with_noise: tuple[str, ...] = ()
    layers: LayerGraph | UnknownOperation | None = None

    @property
    def batch_size(self) -> int | None:
        """How many examples the graph takes at once, where it takes no other number."""
        if self.input_shape and self.input_shape[0] is not None:
            return self.input_shape[0]
        # A reshape on the way can say it too, though the input is open.
        whole = self.output_shape or (None,)
        return whole[0] if None not in whole and (whole[0] or 0) > 1 else None
