"""Training history as TensorBoard logs (`tensorboard --logdir ...`); TensorBoard need not be installed here."""

import os

import keras
import tensorflow as tf


class EventLog(keras.callbacks.Callback):
    """Writes every epoch's values below a directory: train/ and validation/, under the same names.

    keras.callbacks.TensorBoard needs the tensorboard package, a web server with a dozen dependencies, only to write.
    """

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._writers = {
            kind: tf.summary.create_file_writer(os.path.join(directory, kind)) for kind in ("train", "validation")
        }

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            kind = "validation" if name.startswith("val_") else "train"
            point = tf.compat.v1.Summary.Value(tag=name.removeprefix("val_"), simple_value=float(value))
            summary = tf.compat.v1.Summary(value=[point])
            with self._writers[kind].as_default(step=epoch + 1):
                tf.summary.experimental.write_raw_pb(summary.SerializeToString())
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
