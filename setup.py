"""Installation of pav_jax; `make env` is the tested road, with locked versions."""

import sys

import setuptools

# The configs go into the package: a run on a machine that has nothing else is one of them by its name, and the name configs stays
# the user's. An editable installation leaves them where they lie, beside the package.
EDITABLE = not {"editable_wheel", "develop"}.isdisjoint(sys.argv)
CONFIGS = "configs" if EDITABLE else "pav_jax.configs"

setuptools.setup(
    name="pav_jax",
    version="0.1.0",
    description="Process advantage verifiers in JAX: rollouts, values, verifiers, search.",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*setuptools.find_packages(include=["pav_jax", "pav_jax.*"]), CONFIGS, f"{CONFIGS}.didactic", f"{CONFIGS}.paper"],
    package_dir={CONFIGS: "configs"},
    entry_points={"console_scripts": ["pav_jax = pav_jax.console:main"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py",
        "chex",
        "etils[epath]",
        "flax",
        # gs://: what etils and orbax reach Cloud Storage with.
        "gcsfs",
        # Tests and benchmarks compare with it; pav_jax itself does not import it (tests/gemma_library.py says why).
        "gemma",
        # GGUF weights: its tables of block types, and their dequantisation.
        "gguf",
        "jax",
        # Answers are read by math-verify's parser; the extra names the ANTLR runtime.
        "latex2sympy2-extended[antlr4_13_2]>=1.11.0",
        "matplotlib",
        "ml-collections",
        "numpy",
        "optax",
        "orbax-checkpoint",
        # sentencepiece 0.2.3 needs >= 7.36.1, and seqio breaks below 7.
        "protobuf>=7.36.1,<8",
        # Parquet and arrow; tensorflow-datasets brings it anyway. Before 14.0.1 a file could make it unpickle.
        "pyarrow>=17",
        # Hugging Face's weights, in and out; it unpickles nothing.
        "safetensors",
        # Student's t; jax needs it anyway.
        "scipy",
        "sentencepiece",
        "seqio",
        # tfds imports it for GSM8K's metadata and does not declare it.
        "importlib_resources",
        "tensorflow",
        "tensorflow-datasets",
        "tqdm",
    ],
    extras_require={
        # jinja2: README.md and docs/ are made from templates (docs/pages.py), and a test makes them anew.
        "test": ["jinja2", "pytest"],
        # The newest xmanager wants protobuf < 7, with which seqio does not import.
        "launch": ["kubernetes", "xmanager==0.8.1"],
    },
)
