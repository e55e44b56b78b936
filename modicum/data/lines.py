"""A text file as numbered lines: UTF-8, plain or gzip, every broken byte known by line and offset."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modicum.base.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"


class Lines(Iterator[str]):
    """Lines as an editor counts them, line ends included; a byte-order mark is dropped.

    number: the 1-based number of the line given last.
    broken: (line, what is wrong) of the first line that is not UTF-8; the reader sets it back to None.
    """

    def __init__(self, file: Iterable[bytes], source: str) -> None:
        self._file = iter(file)
        self._source = source
        self._offset = 0
        self.number = 0
        self.broken: tuple[int, str] | None = None

    def __next__(self) -> str:
        raw = next(self._file)
        self.number += 1
        if b"\0" in raw:
            at = self._offset + raw.index(b"\0")
            raise DataError(
                f"{self._source}, line {self.number}: a text file must hold no NUL byte, but byte {at:,} is one;"
                " is it UTF-16 or not a text? save it as UTF-8"
            )
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            at = self._offset + error.start
            self.broken = self.broken or (self.number, f"byte {at:,} (0x{raw[error.start]:02x}) is not UTF-8")
            line = raw.decode(errors="replace")
        self._offset += len(raw)
        return line.removeprefix("\ufeff") if self.number == 1 else line


@contextmanager
def opened(path: Path, source: str) -> Iterator[Lines]:
    """The lines of a file, unpacked where its content (not its name) says that it is gzip.

    Raises:
        DataError: the file cannot be opened or unpacked.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == GZIP_MAGIC
            yield Lines(gzip.GzipFile(fileobj=raw) if packed else raw, source)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source} cannot be read: {error}; is it whole, and may you read it?") from error
