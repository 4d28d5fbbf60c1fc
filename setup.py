"""Packaging of tfdistill. `make test-lowest` tests the lower ends of the ranges, `make test` the versions of requirements.txt (docs/compatibility.md)."""

import pathlib
import runpy
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent


class BuildWithKits(build_py):
    """Puts the files of `export/` into the package, where `tfdistill/utils/shipped.py` looks for them: they are no package and import none."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib) / "tfdistill" / "export"
            shutil.rmtree(target, ignore_errors=True)
            left_over = shutil.ignore_patterns("__pycache__", "*.pyc", ".gradle", "build", "node_modules", "*.swp")
            shutil.copytree(HERE / "export", target, ignore=left_over)


EXTRAS = {
    "report": ["matplotlib>=3.8", "jinja2>=3.1"],
    "demo": ["scikit-learn>=1.4", "matplotlib>=3.8"],
    "lowrank": ["tensorly>=0.9"],
    "search": ["optuna>=4"],
    "ray": ["ray[default,train]>=2.60"],
    "quantizer": ["litert-quantizer>=0.11"],
    "micro": ["tflite-micro>=0.dev20260801"],
}
EXTRAS["all"] = sorted({package for packages in EXTRAS.values() for package in packages})
# Without the quantizer, which takes one version of ai-edge-litert alone, the newest: requirements.txt has it, requirements-lowest.txt an older one.
EXTRAS["dev"] = sorted(
    {
        *EXTRAS["demo"],
        *EXTRAS["report"],
        *EXTRAS["micro"],
        *EXTRAS["lowrank"],
        "pytest>=8",
        "pytest-timeout>=2.3.1",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.9",
        "mypy>=2",
    }
)

setup(
    name="tfdistill",
    version=runpy.run_path(str(HERE / "tfdistill" / "version.py"))["__version__"],
    description="Distil, compress, export, verify and benchmark Keras models for phones and small boards.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    cmdclass={"build_py": BuildWithKits},
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["tfdistill", "tfdistill.*"]),
    package_data={
        "tfdistill": [
            *("py.typed", "runtime/operation_tables/*.json", "runtime/operation_versions/*.json"),
            *("benchmarking/browser/*.html", "benchmarking/browser/*.js"),
        ],
        "": ["*.pyi"],
    },
    install_requires=[
        # What quantization-aware layers need of tf-keras came with 2.20, and each tf-keras takes the TensorFlow of its own number alone.
        "tensorflow>=2.20,<2.22",
        "keras>=3.12,<4",  # the first with keras.distillation
        "tf-keras>=2.20,<2.22",
        "tensorflow-model-optimization>=0.8.0",
        "ai-edge-litert>=2.1.6",  # earlier ones crash on a truncated file
        "numpy>=1.26,<3",
        "pydantic>=2.7",
        "rich>=13",
        "typer>=0.20",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["tfdistill=tfdistill.cli.app:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
