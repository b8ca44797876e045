"""Build script: the compiled module, and what stands beside the package in a checkout; all else is
in ``setup.cfg``."""

import runpy
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

HOME = Path(__file__).parent / "bprune_hpc"
sources = runpy.run_path(str(HOME / "sources.py"))
files = [path.relative_to(HOME.parent).as_posix() for path in sources["compiled_sources"](HOME)]


class BuildPackage(build_py):
    """Puts ``configs`` and ``jobs`` into a package that leaves its checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for name in ("configs", "jobs"):
                inside = Path(self.build_lib, HOME.name, sources["SHIPPED"], name)
                shutil.copytree(HOME.parent / name, inside, dirs_exist_ok=True)


setup(
    cmdclass={"build_py": BuildPackage},
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
    ],
)
