"""What stands between the network and the application: one ASGI layer that refuses what no page of ours ever sends.

It knows no users. In the order of its questions: is the path plain; is the request for this host (a foreign name that
was made to point here is how DNS rebinding begins); does it come from a page of ours (another site's page can send
requests with our cookie); is its body small, shallow and quick. All answers, refusals and errors too, leave with the
same headers.

Sources: the Fetch standard (Origin, Sec-Fetch-Site); CSP level 3; OWASP's cheat sheets on CSRF and on HTTP headers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modicum.base.errors import DataError

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would make browsers send forms with the Origin `null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()",
}
SAFE = {"GET", "HEAD", "OPTIONS"}
NESTED = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Limits:
    """body, upload: bytes, upload for the paths in ``uploads``. nesting: JSON arrays and objects inside one another.

    seconds: until a whole body has arrived; upload_seconds: the same for an upload.
    """

    body: int = 1 << 18
    upload: int = 50_000_000
    uploads: tuple[str, ...] = ("/api/import",)
    nesting: int = 16
    seconds: float = 10.0
    upload_seconds: float = 120.0


class Refused(HTTPException):
    """An answer to a request that goes no further."""

    def __init__(self, status: int, error: str, hint: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(status, error, headers)
        self.hint = hint


def problem(status: int, error: str, hint: str = "", headers: dict[str, str] | None = None) -> JSONResponse:
    """The one form of all errors: ``{"error": …, "hint": …}``."""
    return JSONResponse({"error": error, "hint": hint}, status, headers)


def authorities(port: int, names: Iterable[str] = ()) -> frozenset[str]:
    """The values of Host that mean this server: the loopback names with its port, and ``names`` as they are."""
    here = {f"{name}:{port}" for name in LOOPBACK} | (set(LOOPBACK) if port == 80 else set())
    return frozenset(here | {name.lower() for name in names})


class Shield:
    """The layer. hosts: allowed values of the Host header, in lower case, with the port where it is not the scheme's.

    Requests that bring ``Authorization: Bearer`` are exempt from questions about their origin, since no other site's
    page can add that header, and the application then looks at no cookie.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], limits: Limits | None = None) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.limits = limits or Limits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _with_headers(scope, send))
        else:  # there is no WebSocket here
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            headers = Headers(scope=scope)
            _check_path(scope)
            self._check_host(headers)
            _check_origin(scope, headers)
            await self.app(scope, await self._body(scope, headers, receive), watched)
        except Refused as refused:
            if begun:
                raise
            answer = problem(refused.status_code, refused.detail, refused.hint, {"Connection": "close"})
            await answer(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        named = headers.getlist("host")
        if len(named) != 1:
            raise Refused(400, "A request names its host once.", "Leave the Host header to the browser.")
        if named[0].lower() not in self.hosts:
            raise Refused(
                403, "This server does not answer to that host name.", "Open the address that it printed at its start."
            )

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """A way to receive the body: read and looked at beforehand, but an upload, which the application reads."""
        limits, upload = self.limits, scope["path"] in self.limits.uploads
        most, seconds = (limits.upload, limits.upload_seconds) if upload else (limits.body, limits.seconds)
        if "content-encoding" in headers:
            raise Refused(415, "A request's body is taken as it is, not compressed.", "Send it without encoding.")
        length = headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 15 or int(length) > most:
            raise _too_large(most)
        if upload:
            return _metered(receive, most, seconds)
        if length == "0" and "transfer-encoding" not in headers:
            return receive
        body = await _read(_metered(receive, most, seconds))
        if _depth(body, limits.nesting) > limits.nesting:
            raise Refused(400, f"JSON may be nested {limits.nesting} deep.", "Send plainer values.")
        return _replay(body, receive)


def _with_headers(scope: Scope, send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return wrapped


def _check_path(scope: Scope) -> None:
    """No path of ours has dot segments, backslashes or control characters, encoded or not."""
    path: str = scope["path"]
    if "\\" in path or not path.isprintable() or any(part in (".", "..") for part in path.split("/")):
        raise Refused(404, "There is no such page.", "Go to the first page.")


def _check_origin(scope: Scope, headers: Headers) -> None:
    """Whether a page of ours sent what changes something, or asks for data.

    Browsers tell it by Origin with every write and every stream, and by Sec-Fetch-Site. Other ports of this machine are
    the same *site*, and get our cookie; they are not the same *origin*.
    """
    safe = scope["method"] in SAFE
    if safe and not scope["path"].startswith("/api/"):
        return
    if headers.get("authorization", "")[:7].lower() == "bearer ":
        return
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    fetched = ["same-origin", "none"] if safe else ["same-origin"]  # none: typed by a person
    own = {f"{scheme}://{headers['host'].lower()}" for scheme in {scope["scheme"], "https"}}
    strange = any(site not in fetched for site in sites) or any(origin.lower() not in own for origin in origins)
    if strange or len(origins) > 1 or not (safe or sites or origins):
        raise Refused(
            403,
            "This request does not come from a page of this server.",
            "Programs send a token instead: Authorization: Bearer …",
        )


def _too_large(most: int) -> Refused:
    return Refused(413, f"A request's body may have {most:,} bytes here.", "Send less at a time.")


def _metered(receive: Receive, most: int, seconds: float) -> Receive:
    """``receive`` that ends with an error when the body is larger than announced limits, or later."""
    taken, end = 0, asyncio.get_running_loop().time() + seconds
    done = False

    async def metered() -> Message:
        nonlocal taken, done
        if done:
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise Refused(408, f"A request's body has to arrive within {seconds:g} seconds.", "Try again.") from None
        taken += len(message.get("body", b""))
        if taken > most:
            raise _too_large(most)
        done = not message.get("more_body", False)
        return message

    return metered


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "The request ended early.")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _depth(body: bytes, enough: int) -> int:
    """How deep brackets outside of strings nest; at most one more than ``enough``."""
    depth = deepest = 0
    for match in NESTED.finditer(body):
        first = match[0][:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > enough:
                break
        elif first in b"]}":
            depth -= 1
    return deepest


# ---- uploads ---------------------------------------------------------------------------------------------------------

PACKED = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
MOST_ROWS, MOST_UNPACKED = 5_000_000, 500_000_000
MOST_NESTED = 64
KINDS = (".csv", ".tsv", ".jsonl", ".parquet")


def check_upload(path: Path, kind: str) -> None:
    """Whether a labels file is safe to read. kind: its ending, which says how it is to be read.

    A Parquet file can promise little and unpack to much: its own account of its sizes is read first, then its pages
    are decoded in small batches, each string of a dictionary once, and counted against the same limit.

    Raises:
        DataError: it is packed, of another kind than its name says, or unpacks to more than ``MOST_UNPACKED`` bytes.
    """
    if kind not in KINDS:
        raise DataError(f"a labels file ends in {', '.join(KINDS)}, got {kind or 'no ending'!r}")
    with path.open("rb") as file:
        head = file.read(8)
    packed = next((name for magic, name in PACKED.items() if head.startswith(magic)), None)
    if packed:
        raise DataError(f"a labels file is read as it is, this one is packed ({packed}): unpack it first")
    if (head[:4] == b"PAR1") != (kind == ".parquet"):
        raise DataError(f"a {kind} file was announced, but the content is something else: name it by its kind")
    if kind == ".parquet":
        _check_parquet(path)
    elif kind == ".jsonl":
        _check_lines(path)


def _check_lines(path: Path) -> None:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if _depth(line, MOST_NESTED) > MOST_NESTED:
                raise DataError(f"line {number} nests more than {MOST_NESTED} deep: labels are plain values")


def _check_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            facts = file.metadata
            groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
            if facts.num_rows > MOST_ROWS or sum(group.total_byte_size for group in groups) > MOST_UNPACKED:
                raise _bomb()
            columns = [file.schema.column(i) for i in range(facts.num_columns)]
            names = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        with pq.ParquetFile(path, memory_map=True, read_dictionary=names) as file:
            rows = total = 0
            for batch in file.iter_batches(batch_size=4_096):
                rows, total = rows + batch.num_rows, total + sum(map(_expanded, batch.columns))
                if rows > MOST_ROWS or total > MOST_UNPACKED:
                    raise _bomb()
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise DataError(f"the Parquet file cannot be read: {error}. Write it again") from None


def _expanded(column: Any) -> int:
    """Bytes that a column takes with each of its values written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0)
    if pa.types.is_struct(column.type):
        return sum(map(_expanded, column.flatten()))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return int(column.nbytes) + _expanded(column.flatten())
    return int(column.nbytes)


def _bomb() -> DataError:
    return DataError(
        f"the Parquet file unpacks to more than {MOST_UNPACKED:,} bytes or {MOST_ROWS:,} rows: "
        "send ids and labels alone, or several files"
    )
