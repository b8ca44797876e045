"""The compiled module: whether there is one, and for which instructions of the processor it works.

Without it all is done by NumPy, more slowly; the last bits of results are then others, as they are
with another set of instructions. What it computes is described where it is called
(``evaluators.chain_compiled``, ``accumulators.classification_compiled``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from . import sources
from .errors import ConfigError

module: Any
missing = ""
"""Why there is no module."""
try:
    from . import _compiled as module
except ImportError as error:
    module, missing = None, str(error)
else:
    if getattr(module, "SOURCES_SHA256", "") != sources.compiled_sha256():
        module, missing = None, "the module was built from other sources; install the package anew"

VARIABLE = "BPRUNE_INSTRUCTIONS"
NONE = "none"


def supported() -> list[str]:
    """Sets of instructions that this processor has and the module was made for, fastest first."""
    return [] if module is None else list(module.supported_sets())


def instructions(environ: Mapping[str, str] = os.environ) -> str:
    """The set of instructions in use: the fastest, or the one that the environment names.

    Returns
    -------
    str
        ``"none"`` where the module was not built, or is not wanted.

    Raises
    ------
    ConfigError
        If the environment asks for a set that there is not.
    """
    return _chosen(environ.get(VARIABLE, "").strip())


@lru_cache
def _chosen(asked: str) -> str:
    possible = [*supported(), NONE]
    if not asked:
        return possible[0]
    if asked not in possible:
        raise ConfigError(
            f"{VARIABLE}={asked}: there is {', '.join(possible)} here; unset it, or take one of "
            "these"
        )
    return asked
