"""Who is asking: accounts, one-time links, sessions, tokens, and limits of guessing. The store keeps what this decides.

Secrets are made here, at random, and leave once: the store holds Argon2 hashes of passwords and SHA-256 of tokens.
Nothing tells a name that exists from one that does not, neither the words, nor the time, nor the limits.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from modicum.annotate.store.project import ProjectStore
from modicum.base.errors import ModicumError, SpecError

Role = Literal["annotator", "lead"]
ROLES: tuple[Role, ...] = ("annotator", "lead")
PASSWORD = (10, 200)
"""Characters of a password: at least, at most."""
NAME = 80
HOUR, DAY = 3600.0, 86400.0
IDLE, OLDEST = 14 * DAY, 90 * DAY
"""A session ends when it was not used for so long, or is so old. A token for programs ends when it is taken back."""
LINK = DAY
KEPT = 10_000
"""Names and addresses whose failures are remembered."""


class Denied(ModicumError):
    """Not let in. wait: seconds until the next attempt is looked at."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class User:
    """Who is asking, as a request's session says. token: the session's, None for a program's."""

    user: int
    name: str
    role: str
    token: str | None = None

    @property
    def lead(self) -> bool:
        """Whether they may see and do what leads may."""
        return self.role == "lead"


class Guesses:
    """Failures by name or address, with delays that double from one to the next. free: failures without a delay.

    An attempt counts as a failure when it begins, so that many at once gain nothing, and is forgiven when it succeeds.
    """

    def __init__(self, free: int, longest: float) -> None:
        self.free, self.longest = free, longest
        self._found: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._lock = Lock()

    def begin(self, key: str, now: float) -> float:
        """Seconds to wait before an attempt is looked at; 0 counts one."""
        with self._lock:
            count, last = self._found.get(key, (0, now))
            if now - last > HOUR:
                count = 0
            wait = last + min(2.0 ** (count - self.free), self.longest) - now if count >= self.free else 0.0
            if wait > 0:
                return wait
            self._found[key] = count + 1, now
            self._found.move_to_end(key)
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
            return 0.0

    def forgive(self, key: str, all_: bool = False) -> None:
        """Take one failure back, or all."""
        with self._lock:
            count, last = self._found.pop(key, (0, 0.0))
            if count > 1 and not all_:
                self._found[key] = count - 1, last


class Authenticator:
    """The people of a project and how they come in. Methods that hash or touch the store block: call them in threads.

    users: whether there are accounts with passwords; else one person, let in by a one-time link.
    """

    def __init__(self, store: ProjectStore, *, users: bool, clock: Callable[[], float]) -> None:
        self.store, self.users, self.clock = store, users, clock
        self._hasher = PasswordHasher()
        self._names, self._addresses = Guesses(5, 60.0), Guesses(20, 300.0)
        self._links: dict[str, tuple[int, float]] = {}
        self._lock = Lock()

    @cached_property
    def _nobody(self) -> str:
        """What the password of a name that there is not is compared with."""
        return self._hasher.hash(secrets.token_urlsafe())

    # ---- coming in and going -------------------------------------------------------------------------------------

    def login(self, name: str, password: str, address: str) -> str:
        """A new session's token.

        Raises:
            Denied: name and password do not belong together, or there were too many attempts.
        """
        key, place, now = f"login {_plain(name).casefold()}", _place(address), self.clock()
        wait = self._addresses.begin(place, now) or self._names.begin(key, now)
        if wait > 0:
            raise Denied(f"too many attempts: try again in {_span(wait)}", wait)
        nobody = self._nobody  # made for whoever comes first, known or not
        found = self.store.user_by_name(_plain(name)) if self.users else None
        known = found if found is not None and found.closed is None else None
        right = self._matches((known and known.password) or nobody, password)
        if known is None or known.password is None or not right:
            raise Denied("name or password is wrong")
        self._names.forgive(key, all_=True)
        self._addresses.forgive(place)
        return self._begin(known.user, "page")

    def link(self, user: int) -> str:
        """A token that lets a person in once, within a day and as long as this process runs."""
        token, now = secrets.token_urlsafe(32), self.clock()
        with self._lock:
            self._links = {key: value for key, value in self._links.items() if value[1] > now}
            self._links[_hash(token)] = user, now + LINK
        return token

    def redeem(self, token: str) -> str:
        """A new session's token, for that of a link.

        Raises:
            Denied: the link was used before, or is too old.
        """
        with self._lock:
            user, until = self._links.pop(_hash(token), (None, 0.0))
        found = self.store.user(user) if user is not None and until > self.clock() else None
        if found is None or found.closed is not None:
            raise Denied("this link was used before, or is too old")
        return self._begin(found.user, "page")

    def who(self, token: str, kind: str) -> User | None:
        """Whose token this is. kind: ``page`` for a cookie's, ``api`` for a program's."""
        session, now = self.store.session(_hash(token)), self.clock()
        if session is None or session.kind != kind:
            return None
        if kind == "page" and (now - session.seen > IDLE or now - session.created > OLDEST):
            self.store.end_session(_hash(token))
            return None
        found = self.store.user(session.user)
        if found is None or found.closed is not None:
            return None
        if now - session.seen > HOUR:
            self.store.touch_session(_hash(token), now)
        return User(found.user, found.name, found.role, token if kind == "page" else None)

    def logout(self, token: str) -> None:
        """End a session; one that there is not has ended already."""
        self.store.end_session(_hash(token))

    def api_token(self, user: int) -> str:
        """A token for a user's programs. It is shown once, and kept as a hash."""
        return self._begin(user, "api")

    def _begin(self, user: int, kind: str) -> str:
        token = secrets.token_urlsafe(32)
        self.store.add_session(_hash(token), user, kind, self.clock())
        return token

    # ---- accounts ------------------------------------------------------------------------------------------------

    def add(self, name: str, role: str, password: str | None) -> int:
        """A new account. Without a password its owner comes in by a link, and sets one.

        Raises:
            SpecError: the name is taken or cannot be one, or the role or password cannot be one.
        """
        name = _plain(name)
        if not 1 <= len(name) <= NAME or not name.isprintable():
            raise SpecError(f"a name has 1 to {NAME} printable characters, got {name!r}")
        if role not in ROLES:
            raise SpecError(f"a role is annotator or lead, got {role!r}")
        if self.store.user_by_name(name) is not None:
            raise SpecError(f"there is an account {name!r} already: choose another name")
        hashed = None if password is None else self._checked(password)
        return int(self.store.add_user(name, role, hashed, self.clock()))

    def set_password(self, user: int, password: str) -> None:
        """Set a password, and end the user's sessions and tokens.

        Raises:
            SpecError: it is too short or too long.
        """
        self.store.set_password(user, self._checked(password))  # ends them

    def change_password(self, user: int, old: str, new: str) -> str:
        """Set one's own password, and end all sessions and tokens; returns a new session's token.

        Raises:
            Denied: ``old`` is not the present one, or there were too many attempts.
            SpecError: ``new`` is too short or too long.
        """
        key, found = f"password {user}", self.store.user(user)
        if found is None:
            raise Denied("there is no such account any more")
        wait = self._names.begin(key, self.clock())
        if wait > 0:
            raise Denied(f"too many attempts: try again in {_span(wait)}", wait)
        if found.password is not None and not self._matches(found.password, old):
            raise Denied("the present password is another one")
        self._names.forgive(key, all_=True)
        self.set_password(user, new)
        return self._begin(user, "page")

    def close(self, user: int) -> None:
        """Close an account: what it labelled stays, nobody comes in by it any more."""
        self.store.close_user(user, self.clock())  # ends its sessions

    def _checked(self, password: str) -> str:
        least, most = PASSWORD
        if not least <= len(password) <= most:
            raise SpecError(f"a password has {least} to {most} characters, got {len(password)}")
        return self._hasher.hash(_normal(password))

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, _normal(password[: PASSWORD[1]]))
        except (VerificationError, InvalidHashError):
            return False


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _plain(name: str) -> str:
    """A name as it is compared: composed, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).split())


def _normal(password: str) -> bytes:
    return unicodedata.normalize("NFKC", password).encode("utf-8", "replace")


def _place(address: str) -> str:
    """An address, or the network of 64 bits that one household's or machine's IPv6 addresses share."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(known), 64), strict=False))
    return address


def _span(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} second{'s' if whole != 1 else ''}"
