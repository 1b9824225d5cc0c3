"""The kernels in C++, compiled where the machine has a compiler; an installation without one goes on and answers in numpy."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = Path("src/paligemma/edge/kernels")
COMPILE = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wno-psabi",
    "-pthread",
]


class BuildKernels(build_ext):
    def get_export_symbols(self, ext):
        return []  # a plain library for ctypes, not a module that Python could import


kernels = Extension(
    "paligemma.edge._kernels",
    sources=sorted(str(path) for path in FOLDER.glob("*.cpp")),
    depends=sorted(str(path) for path in FOLDER.glob("*.h")),
    language="c++",
    extra_compile_args=COMPILE,
    extra_link_args=["-pthread"],
    optional=True,
)

setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels})
