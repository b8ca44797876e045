"""Build script: the compiled module; all else stands in ``setup.cfg``."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "bprune_hpc._compiled",
            ["bprune_hpc/_compiled.c"],
            depends=["bprune_hpc/_compiled_forward.h", "bprune_hpc/_compiled_classes.h"],
            extra_compile_args=[
                "-std=gnu11",
                "-O3",
                "-Werror=implicit",
                "-fno-fast-math",
                "-fno-math-errno",
                "-fno-trapping-math",
            ],
            # Without a compiler for it the package works all the same, with NumPy alone.
            optional=True,
        )
    ]
)
