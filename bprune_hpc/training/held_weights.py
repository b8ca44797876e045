"""Pruned weights held at zero while a script of one's own trains on.

    held = hold("export/checkpoint/mask.npz", model)
    model.fit(x, y, callbacks=[held])

What belongs here: layers of TensorFlow Probability in tf_keras models and TF1 graphs. What does
not: networks of this package's trainer, which have the masks in them (``training.pruning``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..tensorflow_import import import_tensorflow
from .pruning import read_masks

_NO_SCALE = -200.0
"""Before a softplus or an exponential: what makes the standard deviation as small as it can be."""
_SMALL = 1e-6  # a standard deviation that stands for none: TFP's smallest is 1.2e-7


def hold(mask: str | os.PathLike[str] | Mapping[str, NDArray[np.bool_]], model: Any) -> Any:
    """Hold pruned weights at zero in a training: their means, and the optimizer's averages.

    Their standard deviations stay at the smallest that the layer's own function can give, and their
    divergence from the prior is left out of the loss. Call it before the loss is built.

    Parameters
    ----------
    mask : str or path or mapping of str to bool array
        ``mask.npz`` of an export, or which weights stay, by the name of the variable of their
        means.
    model : tf_keras.Model or sequence of layers
        With layers of TensorFlow Probability.

    Returns
    -------
    tf_keras.callbacks.Callback
        For ``fit(..., callbacks=[held])``. In a TF1 graph ``held.operation(optimizer)`` is to be
        run once before the first step and after each.

    Raises
    ------
    ConfigError
        If a mask is of no weights of the model, or a layer's standard deviation cannot be made
        small by its variable.
    """
    masks = dict(mask) if isinstance(mask, Mapping) else read_masks(os.fspath(mask))
    layers = [
        layer
        for layer in _flat(getattr(model, "layers", model))
        if hasattr(layer, "kernel_posterior_fn")
    ]
    for layer in layers:
        layer.kernel_divergence_fn = _of_kept(layer.kernel_divergence_fn, masks)
        if getattr(layer, "bias_divergence_fn", None) is not None:
            layer.bias_divergence_fn = _of_kept(layer.bias_divergence_fn, masks)
    import tf_keras

    class Held(tf_keras.callbacks.Callback):  # type: ignore[misc]
        """Puts pruned weights back to zero after each step."""

        def on_train_begin(self, logs: Any = None) -> None:
            """Set them before the first step."""
            _set(layers, masks, self.model.optimizer)
            _check(layers, masks)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            """Set them again."""
            _set(layers, masks, self.model.optimizer)

        def operation(self, optimizer: Any = None) -> Any:
            """Of a TF1 graph: what sets them, as an operation."""
            return import_tensorflow().group(*_set(layers, masks, optimizer))

    return Held()


def _flat(layers: Iterable[Any]) -> Iterable[Any]:
    for layer in layers:
        yield layer
        yield from _flat(getattr(layer, "layers", ()))


def _of_kept(divergence: Any, masks: Mapping[str, NDArray[np.bool_]]) -> Any:
    """A divergence in which pruned weights have the prior's own mean and standard deviation."""
    if divergence is None:
        return None

    def of_kept(posterior: Any, prior: Any, ignore: Any = None) -> Any:
        kept = masks.get(_name(posterior.distribution.loc))
        if kept is not None:
            tf, normal, of_prior = import_tensorflow(), posterior.distribution, prior.distribution
            independent, whole = (
                type(posterior),
                type(normal)(
                    tf.where(kept, normal.loc, of_prior.loc),
                    tf.where(kept, normal.scale, of_prior.scale),
                ),
            )
            posterior = independent(whole, posterior.reinterpreted_batch_ndims)
        return divergence(posterior, prior, ignore)

    return of_kept


def _name(variable: Any) -> str:
    return str(getattr(variable, "name", "")).partition(":")[0]


def _weights(
    layers: Iterable[Any], masks: Mapping[str, NDArray[np.bool_]]
) -> list[tuple[Any, Any, NDArray[np.bool_], Any]]:
    """Of each mask: variable of the means, variable of the scales, mask, distribution."""
    found, left = [], set(masks)
    for layer in layers:
        for kind in ("kernel_posterior", "bias_posterior"):
            normal: Any = getattr(getattr(layer, kind, None), "distribution", None)
            loc: Any = getattr(normal, "loc", None)
            name = _name(loc)
            if name not in masks:
                continue
            left.discard(name)
            others = [v for v in normal.trainable_variables if v is not loc]
            if len(others) != 1 or others[0].shape != loc.shape:
                raise ConfigError(
                    f"mask: the standard deviations of '{name}' are not those of one variable of "
                    "its shape; hold them by hand"
                )
            if masks[name].shape != tuple(loc.shape):
                raise ConfigError(
                    f"mask: '{name}' has shape {masks[name].shape}, in the model {tuple(loc.shape)}"
                )
            found.append((loc, others[0], masks[name], normal))
    if left:
        names = ", ".join(_names(layers))
        raise ConfigError(f"mask: has '{min(left)}', and the model has {names}")
    return found


def _names(layers: Iterable[Any]) -> list[str]:
    """Of all variables that are trained."""
    return [_name(variable) for layer in layers for variable in layer.trainable_variables]


def _set(
    layers: Sequence[Any], masks: Mapping[str, NDArray[np.bool_]], optimizer: Any
) -> list[Any]:
    """Assignments that put pruned weights back."""
    tf, made, names = import_tensorflow(), [], _names(layers)
    for loc, raw, kept, _ in _weights(layers, masks):
        made.append(loc.assign(tf.where(kept, loc, 0.0)))
        made.append(raw.assign(tf.where(kept, raw, _NO_SCALE)))
        for slot in _slots(optimizer, [loc, raw], names):
            made.append(slot.assign(tf.where(kept, slot, 0.0)))
    return made


def _slots(optimizer: Any, variables: list[Any], names: list[str]) -> list[Any]:
    """The optimizer's variables that go with these, of their shape: the longest name counts."""
    if optimizer is None:
        return []
    every = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    mine = {_name(variable) for variable in variables}
    found = []
    for slot in every:
        owners = [name for name in names if name in slot.name]
        if owners and max(owners, key=len) in mine and slot.shape == variables[0].shape:
            found.append(slot)
    return found


def _check(layers: Iterable[Any], masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Look at the standard deviations that are left."""
    for loc, _, kept, normal in _weights(layers, masks):
        left = np.where(kept, 0, np.asarray(normal.stddev()))
        if not (left <= _SMALL).all():
            raise ConfigError(
                f"mask: pruned weights of '{_name(loc)}' keep a standard deviation of "
                f"{left.max():g}, as it is no softplus or exponential of its variable; hold them "
                "by hand"
            )
