"""Packaging of fusefeed; also what Beam stages to its workers (`--setup_file=./setup.py`).

The dependencies stand here and nowhere else, with floors; caps only where there is a reason beside them. The exact
versions that are tested are in constraints.txt.
"""

from setuptools import find_packages, setup

REQUIRES = [
    # The pipelines. Below 2.70 the in-process runner has no pyarrow 20+; 3.0 may change the runner's interface.
    "apache-beam>=2.70,<3",
    # The autoencoder's engine, and log-mel spectrograms (tf.signal).
    "tensorflow>=2.20,<2.22",  # tensorflow-transform 1.21 is built against 2.21
    "keras>=3.10,<4",
    # Text and scaling are fitted once and applied alike to posts and users, in every run.
    "tensorflow-transform>=1.21,<1.22",  # its SavedModel layout changes between minor versions
    # Blocks, Parquet, vectorized parsing and hashing.
    "pyarrow>=20",
    # Pictures. The headless wheel: the same library, without the need of libGL on servers.
    "opencv-python-headless>=4.12",  # 4.10 and 4.11 fill truncated JPEGs with earlier pictures' pixels
    # Sizes and orientation of pictures before they are decoded, and every format but JPEG and HEIC.
    "pillow>=11.3",  # its first version with AVIF
    # Clips, sounds and HEIC: FFmpeg in a wheel.
    "av>=15",
    # Sparse matrices of terms and interactions.
    "scipy>=1.13",
    "numpy>=2.0",
    # One thread for many products of small matrices.
    "threadpoolctl>=3.5",
    # The lock on a local output.
    "fasteners>=0.19",
    # The progress bar at a terminal.
    "rich>=13.7",
    # Rows that the block parser refuses, one by one; strict about UTF-8 and the grammar.
    "orjson>=3.10",
]

TEST = ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6"]
LINT = ["ruff>=0.8", "mypy>=1.13"]
# Profiles of all threads: the in-process runner works in threads, of which cProfile sees one.
PROFILE = ["yappi>=1.6"]
BENCH = ["scikit-learn>=1.5", "faiss-cpu>=1.9"]

setup(
    name="fusefeed",
    version="0.1.0",
    description="Batch multimodal recommendation for social posts, on Apache Beam and TensorFlow",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",  # tensorflow 2.21 has no wheels beyond 3.13
    packages=find_packages(
        include=[f"{name}{rest}" for name in ("pipelines", "transforms", "model") for rest in ("", ".*")]
    ),
    install_requires=REQUIRES,
    extras_require={"dev": TEST + LINT + PROFILE, "bench": BENCH},
    entry_points={"console_scripts": ["fusefeed = pipelines.cli:main"]},
)
