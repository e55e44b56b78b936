"""The data sets that contestants read: those of ``--data``, or small copies of them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def data_for(options: argparse.Namespace, sizes: Mapping[str, int]) -> Iterator[Path]:
    """The folder of data sets; with ``--quick`` one of random rows of ``SET/FILE``, as many as ``sizes`` says."""
    if not options.quick:
        yield options.data.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in sizes.items():
            table = pq.read_table(options.data / f"{name}.parquet")
            keep = np.sort(np.random.default_rng(0).permutation(len(table))[:rows])
            write(table.take(pa.array(keep)), Path(folder) / f"{name}.parquet")
        yield Path(folder)


def write(table: pa.Table, path: Path) -> None:
    """A Parquet file, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
