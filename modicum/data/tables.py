"""Rows of Arrow tables: parquet files, and data sets of the Hugging Face hub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modicum.base.errors import DataError
from modicum.data.columns import Columns, Sample
from modicum.data.findings import BadRows, Column, Unit
from modicum.data.ids import BLOCK
from modicum.data.rows import Rows, joined

SAMPLED = 1_000


class TableReader(ABC):
    """Typed columns, read in batches; rows are numbered from 1."""

    unit: ClassVar[Unit] = "row"

    def __init__(self, source: str, schema: pa.Schema) -> None:
        self.source = source
        self.notes: list[str] = []
        self._schema = schema

    @abstractmethod
    def batches(self, names: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """The named columns, at most ``size`` rows at a time."""

    def sample(self) -> Sample:
        """The columns, and the mean length of those that hold strings over the first rows."""
        strings = [field.name for field in self._schema if _is_text(field.type)]
        strings = [name for name in strings if self._schema.names.count(name) == 1]
        first = next(islice(self.batches(strings, SAMPLED), 1), None) if strings else None
        lengths = {name: _mean_length(first.column(name)) if first else 0.0 for name in strings}
        return Sample(tuple(self._schema.names), lengths)

    def rows(self, columns: Columns, bad: BadRows) -> Rows:
        """The chosen columns of all rows; rows with broken UTF-8 go to ``bad``.

        Raises:
            DataError: a column's type does not suit its role.
        """
        for column in columns.chosen:
            self._check_type(column)
        blocks: list[list[pa.Array]] = []
        numbers: list[np.ndarray] = [np.empty(0, np.int64)]
        read = 0
        for batch in self.batches(columns.names, BLOCK):
            places = np.arange(read + 1, read + 1 + len(batch))
            read += len(batch)
            plain = [_plain(batch.column(name)) for name in columns.names]
            broken = _broken(zip(columns.chosen, plain, strict=True))
            for at, why in broken.items():
                bad.add(int(places[at]), why, "write the column as UTF-8 strings")
            whole = np.ones(len(batch), bool)
            whole[list(broken)] = False
            numbers.append(places[whole])
            blocks.append([part.filter(pa.array(whole)).cast(pa.large_string()) for part in plain])
        joint = {role: joined([block[at] for block in blocks]) for at, role in enumerate(columns.roles)}
        places = np.concatenate(numbers)
        return Rows(joint, places, places, read)

    def _check_type(self, column: Column) -> None:
        kind = _value_type(self._schema.field(column.name).type)
        if column.role in ("text", "pair") and not _is_text(kind):
            strings = [field.name for field in self._schema if _is_text(field.type)]
            raise DataError(
                f"{self.source}: the {column.role} column {column.name!r} must hold strings, but holds {kind};"
                f" columns of strings: {', '.join(map(repr, strings)) or 'none'}"
            )
        if pa.types.is_nested(kind):
            raise DataError(
                f"{self.source}: the {column.role} column {column.name!r} must hold strings or numbers,"
                f" but holds {kind}; keep one value a row"
            )


class ParquetReader(TableReader):
    """A parquet file."""

    def __init__(self, path: Path, source: str) -> None:
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{source} is not a parquet file that can be read ({error}); is it whole?") from error
        super().__init__(source, self._file.schema_arrow)

    def batches(self, names: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """See ``TableReader``."""
        try:
            yield from self._file.iter_batches(size, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.source} is damaged ({error}); write or fetch it again") from error


class HubReader(TableReader):
    """``NAME[:SPLIT]`` on the Hugging Face hub: ``imdb``, ``SetFit/trec:test``, ``nyu-mll/glue/sst2:validation``.

    A third part of the name is the configuration; the split is ``train`` unless said. Class labels come by name, and
    those that the hub hides (-1) are no labels.
    """

    def __init__(self, name: str, source: str) -> None:
        try:
            import datasets  # an extra, and seconds to import
        except ImportError as error:
            raise DataError(f"{source} needs Hugging Face datasets; get it with pip install 'modicum[hub]'") from error
        name, _, split = name.partition(":")
        parts = name.split("/")
        path, configuration = "/".join(parts[:2]), "/".join(parts[2:]) or None
        try:
            self._data: Any = datasets.load_dataset(path, configuration, split=split or "train")
        except Exception as error:  # the hub's errors have no common root
            said = str(error).strip() or type(error).__name__
            form = "hub:NAME[/CONFIG][:SPLIT]"
            raise DataError(f"{source} cannot be loaded from the hub: {said}; give it as {form}") from error
        super().__init__(source, self._data.features.arrow_schema)
        self._class_names = {k: f.names for k, f in self._data.features.items() if hasattr(f, "names")}

    def batches(self, names: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """See ``TableReader``."""
        for table in self._data.select_columns(names).with_format("arrow").iter(size):
            for name in set(names) & set(self._class_names):
                at = table.schema.get_field_index(name)
                table = table.set_column(at, name, _by_name(table.column(name), self._class_names[name]))
            yield from table.combine_chunks().to_batches()


def _by_name(codes: pa.ChunkedArray, names: list[str]) -> pa.ChunkedArray:
    known = pc.if_else(pc.less(codes, 0), pa.scalar(None, codes.type), codes)
    return pc.take(pa.array(names, pa.large_string()), known)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    kind, types = _value_type(kind), pa.types
    return any(is_a(kind) for is_a in (types.is_string, types.is_large_string, types.is_string_view)) or any(
        is_a(kind) for is_a in (types.is_binary, types.is_large_binary, types.is_binary_view)
    )


def _mean_length(column: pa.Array) -> float:
    return float(pc.mean(pc.binary_length(_plain(column))).as_py() or 0.0)


def _plain(column: pa.Array) -> pa.Array:
    """Text as bytes, checked later; numbers and truth values as the strings that label_text makes of them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        return column.cast(pa.large_binary())
    if pa.types.is_boolean(column.type):
        return pc.if_else(column, pa.scalar("True", pa.large_string()), pa.scalar("False", pa.large_string()))
    return column.cast(pa.large_string())


def _broken(columns: Iterable[tuple[Column, pa.Array]]) -> dict[int, str]:
    """The positions of values that are not UTF-8, each with what is wrong."""
    found: dict[int, str] = {}
    for column, values in columns:
        try:
            values.cast(pa.large_string())
        except pa.ArrowInvalid:
            for at, value in enumerate(values.to_pylist()):
                try:
                    (value or b"").decode()
                except UnicodeDecodeError as error:
                    byte = value[error.start]
                    found[at] = f"byte {error.start:,} (0x{byte:02x}) of the {column.role} is not UTF-8"
    return found
