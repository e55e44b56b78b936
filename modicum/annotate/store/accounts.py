"""Users and sessions as the store keeps them; who may do what is decided elsewhere."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from modicum.annotate.store.database import Database
from modicum.annotate.store.records import MODICUM
from modicum.base.errors import SpecError

COLUMNS = "user, name, role, password, created, closed"


class User(NamedTuple):
    """password: its hash; None where the account cannot log in with one. closed: when it was closed, else None."""

    user: int
    name: str
    role: str
    password: str | None
    created: float
    closed: float | None


class Session(NamedTuple):
    """kind: ``page`` (a browser's) or ``api`` (a program's). seen: when it was last used, as far as it was noted."""

    user: int
    kind: str
    created: float
    seen: float


def plain(what: str, text: str, most: int) -> str:
    """A string as the database can hold it.

    Raises:
        SpecError: it is empty, longer than ``most`` characters, or no Unicode text.
    """
    if not isinstance(text, str) or not 0 < len(text) <= most or "\0" in text:
        raise SpecError(f"{what} must have 1 to {most} characters and no NUL, got {text!r:.80}; choose another")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise SpecError(f"{what} must be Unicode text, but holds {half!a}, half of a surrogate pair") from None
    return text


class Accounts(Database):
    """The users of a project and their sessions. Tokens come in hashed, passwords as well."""

    def add_user(self, name: str, role: str, password_hash: str | None, now: float) -> int:
        """A new account; returns its number.

        Raises:
            SpecError: the name is taken, whatever its case, or cannot be used.
        """
        plain("a user name", name, 100)

        def job(db: sqlite3.Connection) -> int:
            if db.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone():
                raise SpecError(f"there is a user {name!r} already; choose another name")
            (user,) = db.execute("SELECT max(user) + 1 FROM users").fetchone()
            db.execute(
                f"INSERT INTO users ({COLUMNS}) VALUES (?, ?, ?, ?, ?, NULL)", (user, name, role, password_hash, now)
            )
            return int(user)

        return self._write(job)

    def user(self, user: int) -> User | None:
        """The account of this number."""
        found = self._read(f"SELECT {COLUMNS} FROM users WHERE user = ?", user)
        return User(*found[0]) if found else None

    def user_by_name(self, name: str) -> User | None:
        """The account of this name, whatever its case."""
        found = self._read(f"SELECT {COLUMNS} FROM users WHERE name = ?", name)
        return User(*found[0]) if found else None

    def users(self) -> list[User]:
        """All accounts by number, closed ones and the project's own included."""
        return [User(*row) for row in self._read(f"SELECT {COLUMNS} FROM users ORDER BY user")]

    def set_password(self, user: int, password_hash: str | None) -> None:
        """Give an account another password, and end its sessions.

        Raises:
            SpecError: there is no such account, or it is the project's own.
        """
        self._change_user(user, "password", password_hash)

    def set_role(self, user: int, role: str) -> None:
        """Give an account another role.

        Raises:
            SpecError: there is no such account, or it is the project's own.
        """
        self._change_user(user, "role", role)

    def close_user(self, user: int, now: float) -> None:
        """Close an account: its sessions end, its leases come back, its answers stay.

        Raises:
            SpecError: there is no such account, or it is the project's own.
        """
        self._change_user(user, "closed", now)

    def reopen_user(self, user: int) -> None:
        """Open a closed account again.

        Raises:
            SpecError: there is no such account, or it is the project's own.
        """
        self._change_user(user, "closed", None)

    def _change_user(self, user: int, column: str, value: str | float | None) -> None:
        def job(db: sqlite3.Connection) -> None:
            changed = db.execute(f"UPDATE users SET {column} = ? WHERE user = ?", (value, user)).rowcount
            if not changed or user == MODICUM:
                raise SpecError(f"there is no user number {user} whose account can be changed")
            if column in ("password", "closed"):
                db.execute("DELETE FROM sessions WHERE user = ?", (user,))
            if column == "closed" and value is not None:
                db.execute("DELETE FROM leases WHERE user = ?", (user,))

        self._write(job)

    def add_session(self, token_hash: str, user: int, kind: str, now: float) -> None:
        """Begin a session."""
        row = (token_hash, user, kind, now, now)
        self._write(lambda db: db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", row).close())

    def session(self, token_hash: str) -> Session | None:
        """The session of a token."""
        found = self._read("SELECT user, kind, created, seen FROM sessions WHERE token = ?", token_hash)
        return Session(*found[0]) if found else None

    def touch_session(self, token_hash: str, now: float) -> None:
        """Note that a session is in use; a crash may forget it."""
        row = (now, token_hash)
        self._write(lambda db: db.execute("UPDATE sessions SET seen = ? WHERE token = ?", row).close(), "soft")

    def end_session(self, token_hash: str) -> None:
        """End a session."""
        self._write(lambda db: db.execute("DELETE FROM sessions WHERE token = ?", (token_hash,)).close())

    def end_sessions(self, user: int, kind: str | None = None) -> None:
        """End a user's sessions, all or those of one kind."""
        row = (user, kind, kind)
        self._write(
            lambda db: db.execute("DELETE FROM sessions WHERE user = ? AND (? IS NULL OR kind = ?)", row).close()
        )
