"""TensorFlow import without the log lines that its libraries write while loading."""

import importlib
import os
import sys


def import_tensorflow() -> None:
    """Imports TensorFlow; discards output to file descriptor 2 meanwhile.

    The lines are written before TensorFlow's own setting (TF_CPP_MIN_LOG_LEVEL) is read. Errors are exceptions, not
    lines.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)
    from absl import logging

    # tensorflow-transform warns several times about each unnamed analyzer and says that this is safe to ignore.
    logging.set_verbosity(logging.ERROR)
