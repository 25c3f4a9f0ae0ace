"""Fused vectors from Parquet shards, distributed over bucket files by a hash of their ids.

Content and order of the buckets depend only on the rows, not on the number of shards, row groups or batches they
came in. That makes training repeatable, and lets it shuffle any number of rows in bounded memory.
"""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.layout import Layout

COLUMNS = ("post_id", "fused", "mask")
# A bucket is sorted in memory, and a few of them at a time are what training shuffles.
MAX_BUCKET_ROWS = 65_536
MAX_BUCKET_BYTES = 32 << 20
_HASH_KEY = b"fusefeed.training"
_VALIDATION = "validation.rows"


def open_local(path: str) -> BinaryIO:
    """Opens a local file for reading."""
    return open(path, "rb")


@dataclasses.dataclass(frozen=True)
class Spool:
    """Rows on local disk: [n, D + M] float32, the fused vector and then the mask.

    Attributes:
      directory: where the files are.
      row_width: numbers of a row, D + M.
      bucket_rows: training rows of each bucket.
      num_validation: validation rows.
      num_empty: rows dropped because no modality is present.
      fingerprint: a hash of all that is in the buckets, in order.
    """

    directory: str
    row_width: int
    bucket_rows: tuple[int, ...]
    num_validation: int
    num_empty: int
    fingerprint: str

    @property
    def num_train(self) -> int:
        """Rows to train on."""
        return sum(self.bucket_rows)

    def bucket(self, index: int) -> np.ndarray:
        """The training rows of a bucket, mapped from disk: [bucket_rows[index], D + M] float32."""
        return self._map(_bucket_file(index), self.bucket_rows[index])

    def validation(self) -> np.ndarray:
        """The validation rows, memory-mapped: [num_validation, D + M] float32."""
        return self._map(_VALIDATION, self.num_validation)

    def _map(self, name: str, num_rows: int) -> np.ndarray:
        if num_rows == 0:
            return np.empty((0, self.row_width), np.float32)
        return np.memmap(os.path.join(self.directory, name), np.float32, "r", shape=(num_rows, self.row_width))


def write_spool(
    files: Sequence[str],
    layout: Layout,
    directory: str,
    validation_fraction: float,
    open_file: Callable[[str], BinaryIO] = open_local,
    columns: int | None = None,
) -> Spool:
    """Distributes the rows of Parquet shards over buckets; deletes the directory's earlier contents.

    Args:
      files: Parquet files with the columns post_id (distinct), fused and mask.
      layout: the blocks of the fused vector.
      directory: local; takes the size of the rows as plain float32, temporarily one bucket more.
      validation_fraction: share of validation rows, selected by a hash of their ids. If it is above 0 and there are two
        rows or more, there is at least one validation row, and at least one training row remains.
      open_file: opens a path of `files`.
      columns: number of leading columns of the fused vector to use, D; default all.

    Raises:
      ValueError: a shard lacks these columns or has an invalid value; the message names the shard.
    """
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    columns = layout.width if columns is None else columns
    record = _record(columns + len(layout.modalities))
    num_buckets = _num_buckets(_count_rows(files, open_file), record.itemsize)
    splits = _Splits()
    num_empty = 0
    for path in files:
        for records in _read_records(path, layout, record, open_file):
            present = records["row"][:, columns:].any(axis=1)
            num_empty += int(len(records) - present.sum())
            records = records[present]
            splits.add(records["split"], validation_fraction)
            _append_to_buckets(directory, records, num_buckets)
    threshold = splits.threshold(validation_fraction)
    bucket_rows, num_validation, fingerprint = _sort_buckets(directory, record, num_buckets, threshold)
    return Spool(directory, record["row"].shape[0], bucket_rows, num_validation, num_empty, fingerprint)


def id_hashes(ids: pa.Array) -> np.ndarray:
    """Three independent hashes of every id: [n, 3] uint64, the same on every run and machine (BLAKE2b)."""
    values = ids.cast(pa.binary()).to_pylist()
    digests = b"".join(hashlib.blake2b(value, digest_size=24, key=_HASH_KEY).digest() for value in values)
    return np.frombuffer(digests, "<u8").reshape(-1, 3)


class _Splits:
    """Chooses the hash threshold of validation rows, so that neither split is empty if possible."""

    def __init__(self) -> None:
        self.num_rows = self.num_below = 0
        self.lowest, self.highest = 2**64, -1

    def add(self, hashes: np.ndarray, fraction: float) -> None:
        if len(hashes):
            self.num_rows += len(hashes)
            self.num_below += int((hashes < np.uint64(fraction * 2.0**64)).sum())
            self.lowest = min(self.lowest, int(hashes.min()))
            self.highest = max(self.highest, int(hashes.max()))

    def threshold(self, fraction: float) -> int:
        if fraction == 0 or self.num_rows < 2:
            return 0
        if self.num_below == 0:
            return self.lowest + 1
        return self.highest if self.num_below == self.num_rows else int(fraction * 2.0**64)


def _record(row_width: int) -> np.dtype[Any]:
    """Dtype of an unsorted row: `order` and `tie` sort it inside its bucket, `split` selects validation rows."""
    return np.dtype([("order", "<u8"), ("tie", "<u8"), ("split", "<u8"), ("row", "<f4", (row_width,))])


def _num_buckets(num_rows: int, row_bytes: int) -> int:
    bucket_rows = min(MAX_BUCKET_ROWS, max(1024, MAX_BUCKET_BYTES // row_bytes))
    return max(1, -(-num_rows // bucket_rows))


def _bucket_file(index: int) -> str:
    return f"bucket-{index:05d}.rows"


def _open_shard(path: str, file: BinaryIO) -> pq.ParquetFile:
    try:
        shard = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from None
    missing = [name for name in COLUMNS if name not in shard.schema_arrow.names]
    if missing:
        raise ValueError(f"{path} must have the columns {', '.join(COLUMNS)}, got no {missing[0]}")
    return shard


def _count_rows(files: Sequence[str], open_file: Callable[[str], BinaryIO]) -> int:
    num_rows = 0
    for path in files:
        with open_file(path) as file:
            num_rows += _open_shard(path, file).metadata.num_rows
    return num_rows


def _read_records(
    path: str, layout: Layout, record: np.dtype[Any], open_file: Callable[[str], BinaryIO]
) -> Iterator[np.ndarray]:
    batch_rows = max(1024, MAX_BUCKET_BYTES // record.itemsize)
    with open_file(path) as file:
        for batch in _open_shard(path, file).iter_batches(batch_rows, columns=list(COLUMNS)):
            records = np.empty(batch.num_rows, record)
            hashes = id_hashes(batch.column("post_id"))
            records["order"], records["tie"], records["split"] = hashes.T
            columns = record["row"].shape[0] - len(layout.modalities)
            records["row"][:, :columns] = _matrix(path, batch, "fused", layout.width)[:, :columns]
            mask = _matrix(path, batch, "mask", len(layout.modalities))
            if not ((mask == 0) | (mask == 1)).all():
                raise ValueError(f"mask must be 0 or 1, got other values in {path}")
            records["row"][:, columns:] = mask
            yield records


def _matrix(path: str, batch: pa.RecordBatch, name: str, width: int) -> np.ndarray:
    column = batch.column(name)
    expected = pa.list_(pa.float32(), width)
    if column.type != expected:
        raise ValueError(f"{name} must be {expected}, got {column.type} in {path}")
    if column.null_count:
        raise ValueError(f"{name} must not be null, got {column.null_count} nulls in {path}")
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity in {path}")
    return values


def _append_to_buckets(directory: str, records: np.ndarray, num_buckets: int) -> None:
    buckets = (records["order"] % np.uint64(num_buckets)).astype(np.int64)
    by_bucket = np.argsort(buckets, kind="stable")
    bounds = np.searchsorted(buckets[by_bucket], np.arange(num_buckets + 1))
    for index in np.flatnonzero(np.diff(bounds)).tolist():
        # Opened for each piece: some systems allow no more than 256 open files.
        with open(os.path.join(directory, f"{_bucket_file(index)}.unsorted"), "ab") as out:
            out.write(records[by_bucket[bounds[index] : bounds[index + 1]]].tobytes())


def _sort_buckets(
    directory: str, record: np.dtype[Any], num_buckets: int, threshold: int
) -> tuple[tuple[int, ...], int, str]:
    """Sorts each bucket and moves out its validation rows: (training rows per bucket, validation rows, fingerprint)."""
    bucket_rows, num_validation, digest = [], 0, hashlib.blake2b(digest_size=16)
    with open(os.path.join(directory, _VALIDATION), "wb") as held_out:
        for index in range(num_buckets):
            path = os.path.join(directory, _bucket_file(index))
            records = np.empty(0, record)
            if os.path.exists(f"{path}.unsorted"):
                records = np.fromfile(f"{path}.unsorted", record)
                os.remove(f"{path}.unsorted")
            records = records[np.lexsort((records["tie"], records["order"]))]
            digest.update(records.tobytes())
            below = records["split"] < np.uint64(threshold)
            held_out.write(records["row"][below].tobytes())
            with open(path, "wb") as bucket:
                bucket.write(records["row"][~below].tobytes())
            bucket_rows.append(int((~below).sum()))
            num_validation += int(below.sum())
    return tuple(bucket_rows), num_validation, digest.hexdigest()
