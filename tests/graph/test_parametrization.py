"""Which variables make weights zero: given to the model, whose distributions say what is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bprune_hpc.checkpoints import keras_tracing
from bprune_hpc.checkpoints.case import Opening

pytestmark = pytest.mark.filterwarnings("ignore")

TINY = float(np.finfo(np.float32).tiny)


def _posteriors(model: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and deviation of every mean-field tensor, as TFP's distributions have them."""
    found = {}
    for layer in model.submodules:
        for kind in ("kernel_posterior", "bias_posterior"):
            normal = getattr(getattr(layer, kind, None), "distribution", None)
            if hasattr(normal, "scale"):
                found[normal.loc.name.partition(":")[0]] = normal
        if type(layer).__name__ == "DenseVariational":
            normal = layer._posterior(np.zeros((1, 4), np.float32)).tensor_distribution
            (flat,) = (v for v in layer.variables if "posterior" in v.name)
            found[f"{flat.name.partition(':')[0]}/strided_slice"] = normal
    return {name: (n.mean().numpy(), n.stddev().numpy()) for name, n in found.items()}


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("conv2d_flipout", 1.2e-7),
        ("dense_local_reparameterization", 1.2e-7),
        ("dense_variational", 1.01e-5),
        ("scale_is_exp", 1e-32),
        ("scale_is_softplus_without_eps", 1e-32),
        ("scale_is_plain", 2 * TINY),
        ("scale_is_a_part_of_it", 1e-31),
    ],
)
def test_what_is_left_of_pruned_weights(name: str, most: float) -> None:
    model = keras_tracing.build_model(f"tests.helpers.small_models:{name}")
    rng = np.random.default_rng(2)
    for variable in model.variables:
        value = rng.normal(0.3, 0.2, variable.shape)
        variable.assign(np.abs(value) if "scale" in variable.name else value)
    before = _posteriors(model)
    opening = Opening(model)
    source = opening.open()
    parametrization = opening.lift(source).parametrization
    pruned = {key: rng.random(loc.shape) < 0.6 for key, (loc, _) in before.items()}
    values = source.read(parametrization.variables)
    changed = parametrization.zeroed(values, pruned)
    by_name = keras_tracing.variables_by_name(model)
    for key, value in changed.items():
        by_name[key].assign(value)
    after = _posteriors(model)
    assert after.keys() == before.keys() and any(mask.any() for mask in pruned.values())
    for key, (loc, scale) in after.items():
        kept = ~pruned[key]
        np.testing.assert_array_equal(loc, np.where(kept, before[key][0], 0))
        np.testing.assert_array_equal(scale[kept], before[key][1][kept])
        # Above 0, so that its logarithm is finite.
        assert (scale[~kept] >= TINY).all() and (scale[~kept] <= most).all()
        assert np.isfinite(np.log(scale)).all()
