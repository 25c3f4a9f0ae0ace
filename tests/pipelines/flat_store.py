"""An object store in memory, flat://BUCKET/KEY, as Beam's file systems see one: keys, no directories, no renames."""

import io
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

_clock = itertools.count(1_700_000_000)


class FlatStore(FileSystem):
    """Objects are whole or not there: one appears when it is closed."""

    objects: ClassVar[dict[str, tuple[bytes, float]]] = {}

    @classmethod
    def scheme(cls) -> str:
        return "flat"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        raise BeamIOError("there are no directories")

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path in sorted(self.objects):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def create(self, path: str, mime_type: str = "", compression_type: str = "") -> Any:
        class Sink(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    FlatStore.objects[path] = (self.getvalue(), float(next(_clock)))
                super().close()

        return Sink()

    def open(self, path: str, mime_type: str = "", compression_type: str = "") -> Any:
        return io.BytesIO(self._object(path)[0])

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            self.objects[target] = (self._object(source)[0], float(next(_clock)))

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        self.copy(source_file_names, destination_file_names)
        self.delete(source_file_names)

    def exists(self, path: str) -> bool:
        return path in self.objects

    def size(self, path: str) -> int:
        return len(self._object(path)[0])

    def last_updated(self, path: str) -> float:
        return self._object(path)[1]

    def checksum(self, path: str) -> str:
        return str(hash(self._object(path)[0]))

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, self.size(path), self.last_updated(path))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            self._object(path)
            del self.objects[path]

    def _object(self, path: str) -> tuple[bytes, float]:
        if path not in self.objects:
            raise BeamIOError(f"no such object: {path}")
        return self.objects[path]
