"""Row-group mode: few Parquet files whose row groups are what loose files would be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from atlaswriter.formats.landscape import layout
from atlaswriter.sinks.files import Files


class Stream:
    """A file of the sink, as pyarrow writes to files."""

    closed = False

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write, self._position = write, 0

    def write(self, content: Any) -> int:
        """Add some bytes."""
        self._write(content)
        size = memoryview(content).nbytes
        self._position += size
        return size

    def tell(self) -> int:
        """Bytes written."""
        return self._position

    def flush(self) -> None:
        """Nothing is kept back."""

    def writable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """The sink closes the file."""
        self.closed = True


class Chunk:
    """One file, written row group by row group; a context.

    Parameters
    ----------
    sink
        Where it goes.
    path
        Its name there.
    schema
        Of all its tables.
    options
        Arguments of `pyarrow.parquet.ParquetWriter`.
    """

    def __init__(self, sink: Files, path: str, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        self._context = (sink, path, schema, options)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        sink, path, schema, options = self._context
        with ExitStack() as stack:
            stream = Stream(stack.enter_context(sink.create(path)))
            self._writer = stack.enter_context(pq.ParquetWriter(pa.PythonFile(stream, mode="w"), schema, **options))
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def add(self, table: pa.Table) -> None:
        """Write one row group, which may be empty."""
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))


class ChunkSeries:
    """Numbered tables in order, from several threads, into files of a fixed number of row groups; a context.

    Parameters
    ----------
    sink, schema, options
        As of `Chunk`.
    directory
        Folder of the files.
    each
        Row groups in a file.

    Attributes
    ----------
    files
        Names of the files.
    groups
        Row group of each number that was written.
    """

    def __init__(self, sink: Files, directory: str, each: int, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        self.files: list[str] = []
        self.groups: dict[int, int] = {}
        self._sink, self._directory, self._each, self._schema, self._options = sink, directory, each, schema, options
        self._next = 0
        self._turn = threading.Condition()
        self._failed = False
        self._chunk: Chunk | None = None

    def __enter__(self) -> Self:
        self._sink.make_dir(self._directory)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(kind, error, trace)

    def _close(self, *error: Any) -> None:
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            chunk.__exit__(*error)

    def add(self, number: int, tables: Sequence[pa.Table | None]) -> None:
        """Write tables `number` and following, None for none; waits until those before them are written.

        Whoever adds does so inside of `giving_up`, and sees to it that lower numbers are under way in other threads.
        """
        with self._turn:
            self._turn.wait_for(lambda: self._next == number or self._failed)
            for table in tables if not self._failed else ():
                if table is not None:
                    self._write(table)
                self._next += 1
            self._turn.notify_all()

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        """When this context fails, nobody waits any more for what it would have added."""
        try:
            yield
        except BaseException:
            with self._turn:
                self._failed = True
                self._turn.notify_all()
            raise

    def _write(self, table: pa.Table) -> None:
        if len(self.groups) % self._each == 0:
            self._close(None, None, None)
            self.files.append(layout.chunk_name(len(self.files)))
            path = f"{self._directory}/{self.files[-1]}"
            self._chunk = Chunk(self._sink, path, self._schema, self._options).__enter__()
        assert self._chunk is not None  # noqa: S101 - opened with the first one
        self._chunk.add(table)
        self.groups[self._next] = len(self.groups)
