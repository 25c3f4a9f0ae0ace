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
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
    from absl import logging

    # tensorflow-transform warns of every analyzer that has no name, several times, and says that it is safe to ignore.
    logging.set_verbosity(logging.ERROR)
