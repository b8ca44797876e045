"""Build script: the compiled module; all else stands in ``setup.cfg``."""

import runpy
from pathlib import Path

from setuptools import Extension, setup

HOME = Path(__file__).parent / "bprune_hpc"
sources = runpy.run_path(str(HOME / "sources.py"))
files = [path.relative_to(HOME.parent).as_posix() for path in sources["compiled_sources"](HOME)]

setup(
    ext_modules=[
        Extension(
            "bprune_hpc._compiled",
            ["bprune_hpc/_compiled.c"],
            depends=files,
            define_macros=[("SOURCES_SHA256", f'"{sources["compiled_sha256"](HOME)}"')],
            extra_compile_args=(HOME / sources["FLAGS"]).read_text().split(),
            # Without a compiler for it the package works all the same, with NumPy alone.
            optional=True,
        )
    ]
)
