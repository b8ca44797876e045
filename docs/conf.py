"""How Sphinx builds the site of this folder: ``make docs``."""

from __future__ import annotations

import bprune_hpc

project = "bprune_hpc"
author = "bprune_hpc developers"
copyright = f"2026, {author}"
version = release = bprune_hpc.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinxarg.ext",
]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"bprune_hpc {release}"
html_show_sourcelink = False
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4

# Tutorials run when the site is built, and an error in one fails the build.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False
# Every public name has a summary that ends in a full stop, and documents its parameters, what it
# returns and raises.
numpydoc_validation_checks = {
    "GL03", "GL08", "PR01", "PR02", "PR03", "PR04", "PR10", "RT01", "SS01", "SS03", "YD01",
}  # fmt: skip
# Dataclasses document what they hold as attributes.
numpydoc_validation_exclude = {
    rf"bprune_hpc\.{name}$"
    for name in (
        "BayesianNetwork",
        "Predictive",
        "NormalPredictive",
        r"data\.DataSet",
        r"results\.Results",
    )
}
