"""Facts about the machine and the software, without which a figure means little."""

import datetime
import importlib
import importlib.metadata
import os
import platform
import sys
from typing import Any

PACKAGES = (
    "numpy",
    "scipy",
    "pyarrow",
    "apache-beam",
    "tensorflow",
    "tensorflow-transform",
    "keras",
    "opencv-python-headless",
    "av",
    "scikit-learn",
    "faiss-cpu",
    "implicit",
)
# What changes the speed of libraries; OPENBLAS_CORETYPE can halve numpy's matrix product.
PREFIXES = ("OPENBLAS_", "OMP_", "MKL_", "GOTO_", "TF_NUM_", "CUDA_VISIBLE_DEVICES", "MALLOC_", "LD_PRELOAD")


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts() -> dict[str, Any]:
    """Cores, processor, memory, versions, and the settings and load that bear on speed."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": num_cores(),
        "cpu": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in PACKAGES},
        "settings": {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES)},
        "blas": _blas(),
        "load": list(os.getloadavg()),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _blas() -> str:
    """The BLAS that numpy was built with (by numpy's own account) and, where it can be asked, the kernels it chose."""
    import numpy as np

    built: Any = np.show_config(mode="dicts")
    blas = built["Build Dependencies"]["blas"]
    text = f"{blas['name']} {blas['version']}"
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return text
    kernels = {entry.get("architecture") for entry in threadpoolctl.threadpool_info()} - {None}
    return f"{text}, kernels {', '.join(sorted(kernels))}" if kernels else text


def _line(path: str, name: str) -> str:
    try:
        with open(path) as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(name)), "")
    except OSError:
        return ""
