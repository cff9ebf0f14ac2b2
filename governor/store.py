"""Where profiles are kept: one SQLite file by default, a PostgreSQL server for a fleet.

A store serves any number of threads, processes and machines at once: each write is one
statement, in force as a whole or not at all. What is wrong with it is a :class:`StoreError`, and
never a reason to cease governing.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    and_,
    case,
    create_engine,
    delete,
    event,
    func,
    inspect,
    make_url,
    not_,
    or_,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from governor.errors import GovernorError, InputError, MissingExtraError
from governor.profile import (
    EMULATED,
    KEY_FIELDS,
    Entry,
    Profile,
    ProfileKey,
    profile_from_json,
    profile_to_json,
)

PATIENCE_S = 5.0
"""So long a statement waits for other writers, or for a server."""
MOST_SIMILAR = 12
MOST_BYTES = 1_000_000
"""A stored profile above this size was not written by this program."""

logger = logging.getLogger("governor")


class StoreError(GovernorError):
    """The store cannot be used now; what was committed stays."""


_METADATA = MetaData()
_VERSION = Table("governor_schema", _METADATA, Column("version", Integer, nullable=False))
_PROFILES = Table(
    "governor_profiles",
    _METADATA,
    Column("id", String(12), primary_key=True),
    *(Column(name, String(200), nullable=False) for name in KEY_FIELDS),
    Column("profile", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("updated_s", Float, nullable=False),
    Column("runs", Integer, nullable=False),
    Index("governor_profiles_board", "board", "updated_s"),
    Index("governor_profiles_workload", "workload", "updated_s"),
)


def _first_tables(connection: Connection) -> None:
    _METADATA.create_all(connection)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first_tables,)
"""From each version of the schema to the next; the first one makes version 1."""
VERSION = len(MIGRATIONS)
_LOCK = 0x656E6572  # of PostgreSQL, so that one client at a time migrates


class ProfileStore:
    """Profiles by their keys.

    Every method may raise :class:`StoreError`: the file is locked, corrupt or read-only, the
    server is gone, or its tables are of a newer version. The next call tries again.
    """

    def __init__(self, url: str | os.PathLike[str] | None = None) -> None:
        """Opened at the first use.

        Args:
            url: ``postgresql://user@host/database``, the path of an SQLite file, or None: the
                user's own file, :func:`default_path`.

        Raises:
            InputError: it is neither.
            MissingExtraError: PostgreSQL's driver is not installed.
        """
        self._url = _parse(default_path() if url is None else url)
        self._engine: Engine | None = None

    def __str__(self) -> str:
        """For people: without the password."""
        if self._url.get_backend_name() == "sqlite":
            return str(self._url.database)
        return self._url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)

    def __enter__(self) -> ProfileStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its connections; it opens again when it is used."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    # What is asked -----------------------------------------------------------------------

    def lookup(self, key: ProfileKey) -> Profile | None:
        """The profile of exactly this; None: there is none."""
        found = self._read(select(_PROFILES).where(_PROFILES.c.id == key.id))
        return found[0].profile if found else None

    def similar(self, key: ProfileKey, most: int = MOST_SIMILAR) -> list[Entry]:
        """What may teach something of ``key``, nearest first, without its own profile.

        First the same workload on the same board within another bound, in another power mode or
        with other knobs; then other workloads of the board; then the workload on other boards.
        Of equals the latest comes first. An emulated board teaches nothing of real ones, nor
        they of it.
        """
        c = _PROFILES.c
        emulated = c.board.startswith(EMULATED, autoescape=True)
        board, workload = c.board == key.board, c.workload == key.workload
        same_space = c.space == key.space
        nearness = case(
            (and_(board, workload, same_space), 0),
            (and_(board, workload), 1),
            (and_(board, same_space), 2),
            (board, 3),
            else_=4,
        )
        return self._read(
            select(_PROFILES)
            .where(or_(board, workload), c.id != key.id)
            .where(emulated if key.board.startswith(EMULATED) else not_(emulated))
            .order_by(nearness, c.updated_s.desc(), c.id)
            .limit(most)
        )

    def entries(self) -> list[Entry]:
        """Every profile, by board and workload."""
        c = _PROFILES.c
        return self._read(select(_PROFILES).order_by(c.board, c.workload, c.slo, c.id))

    # What is written ---------------------------------------------------------------------

    def save(self, key: ProfileKey, profile: Profile) -> None:
        """Keep a profile, in the place of the one that was there: the last writer's counts.

        Its times and number of runs are the store's own.
        """
        self._write([Entry(key, profile)])

    def save_all(self, entries: Sequence[Entry]) -> None:
        """Keep several: all of them, or none."""
        self._write(entries)

    def forget(self, ids: Sequence[str]) -> int:
        """Drop the profiles with these :attr:`ProfileKey.id`; returns how many there were."""
        if not ids:
            return 0
        with self._transaction() as connection:
            return connection.execute(delete(_PROFILES).where(_PROFILES.c.id.in_(ids))).rowcount

    # How ---------------------------------------------------------------------------------

    def _read(self, statement: Any) -> list[Entry]:
        with self._reporting():
            if self._absent():
                return []
            engine = self._open()
            with engine.connect() as connection:
                rows = connection.execute(statement).all()
        return [entry for entry in map(_entry, rows) if entry is not None]

    def _write(self, entries: Sequence[Entry]) -> None:
        now_s = time.time()
        rows = [
            {
                "id": key.id,
                **asdict(key),
                "profile": profile_to_json(profile),
                "created_s": now_s,
                "updated_s": now_s,
                "runs": 1,
            }
            # in one order, so that two writers do not wait for each other
            for key, profile in sorted(entries, key=lambda entry: entry.key.id)
        ]
        if not rows:
            return
        dialect = postgresql if self._url.get_backend_name() == "postgresql" else sqlite
        insert = dialect.insert(_PROFILES)
        statement = insert.on_conflict_do_update(
            index_elements=["id"],
            set_={
                "profile": insert.excluded.profile,
                "updated_s": insert.excluded.updated_s,
                "runs": _PROFILES.c.runs + 1,
            },
        )
        with self._transaction() as connection:
            connection.execute(statement, rows)

    def _absent(self) -> bool:
        """Whether there is no such file yet; to look for something makes none."""
        if self._engine is not None or self._url.get_backend_name() != "sqlite":
            return False
        try:
            return Path(str(self._url.database)).stat().st_size == 0
        except FileNotFoundError:
            return True

    @contextmanager
    def _transaction(self) -> Generator[Connection]:
        with self._reporting(), self._open().begin() as connection:
            yield connection

    @contextmanager
    def _reporting(self) -> Generator[None]:
        """Every failure as one line that holds no password."""
        try:
            yield
        except SQLAlchemyError as error:
            # not chained: a traceback of the driver's may show the URL
            raise StoreError(f"the profile store {self}: {self._problem(error)}") from None
        except OSError as error:
            raise StoreError(f"the profile store {self}: {error.strerror or error}") from None

    def _problem(self, error: SQLAlchemyError) -> str:
        cause = error.orig if isinstance(error, DBAPIError) else error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        problem = lines[0] if lines else type(cause).__name__
        if problem == "file is not a database":
            problem += ", and is left as it is: give another path, or move it away"
        for secret in _secrets(self._url):
            problem = problem.replace(secret, "***")
        return problem

    def _open(self) -> Engine:
        if self._engine is None:
            engine = _engine(self._url)
            try:
                self._migrate(engine)
            except BaseException:
                engine.dispose()
                raise
            self._engine = engine
        return self._engine

    def _migrate(self, engine: Engine) -> None:
        """Bring the tables to this version; only who changes them takes the lock."""
        with engine.connect() as connection:
            version = _version(connection)
        self._check(version)
        if version == VERSION:
            return
        with _alone(engine) as connection:
            version = _version(connection)  # another one may have been quicker
            self._check(version)
            for migrate in MIGRATIONS[version:]:
                migrate(connection)
            connection.execute(delete(_VERSION))
            connection.execute(_VERSION.insert().values(version=VERSION))

    def _check(self, version: int) -> None:
        if version > VERSION:
            raise StoreError(
                f"the profile store {self}: has schema version {version}, and this program knows "
                f"up to {VERSION}; upgrade energy-governor"
            )


def default_path() -> Path:
    """The user's own store: in ``$XDG_STATE_HOME``, or ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "energy-governor" / "profiles.db"


def _parse(given: str | os.PathLike[str]) -> URL:
    """What SQLAlchemy connects to. No message holds a password."""
    where = os.fspath(given)
    if not isinstance(where, str) or not where:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"a profile store is a path or a URL, got {given!r}")
    if "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser().absolute()))
    scheme, _, rest = where.partition("://")
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise InputError(
            f"the profile store's URL {scheme}://... cannot be read; write it like "
            "postgresql://user@host/database"
        ) from None
    backend = url.get_backend_name()
    if backend == "sqlite" and rest.strip("/"):
        return URL.create("sqlite", database=url.database)
    if backend not in ("postgresql", "postgres") or not url.database:
        raise InputError(
            f"the profile store's URL {scheme}://... is not one of PostgreSQL with a database; "
            "write postgresql://user@host/database, or the path of an SQLite file"
        )
    try:
        import psycopg as _psycopg  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise MissingExtraError("psycopg", "postgres") from None
    return url.set(drivername="postgresql+psycopg")


def _secrets(url: URL) -> list[str]:
    """What of the URL must not be shown."""
    given = (url.password, url.query.get("password"), url.query.get("sslpassword"))
    return [str(secret) for secret in given if secret]


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_engine(url, connect_args={"timeout": PATIENCE_S})
        event.listen(engine, "connect", _set_up_sqlite)
        return engine
    patience = round(PATIENCE_S)
    options = f"-c statement_timeout={patience}s -c lock_timeout={patience}s"
    given = url.query.get("options")
    return create_engine(
        url,
        pool_pre_ping=True,  # the server may have been started anew
        pool_timeout=PATIENCE_S,
        connect_args={
            "connect_timeout": patience,
            "tcp_user_timeout": 1000 * patience,
            "application_name": "energy-governor",
            "options": f"{given} {options}" if given else options,
        },
    )


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Readers and a writer at once; a commit is on the disk."""
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # a file that may not be written can still be read
        if "readonly" not in str(error):
            raise
    connection.execute("PRAGMA synchronous = FULL")


@contextmanager
def _alone(engine: Engine) -> Generator[Connection]:
    """A transaction in which nobody else migrates."""
    if engine.dialect.name == "sqlite":
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            # the driver would begin no transaction before a CREATE TABLE
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
        return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection


def _version(connection: Connection) -> int:
    """0: there are no tables yet."""
    if not inspect(connection).has_table(_VERSION.name):
        return 0
    return int(connection.execute(select(func.max(_VERSION.c.version))).scalar_one() or 0)


def _entry(row: Row[Any]) -> Entry | None:
    """None where it is no profile: passed over, and said."""
    try:
        if len(row.profile) > MOST_BYTES:
            raise ValueError("it is too large")
        key = ProfileKey(**{name: getattr(row, name) for name in KEY_FIELDS})
        profile = profile_from_json(row.profile)
    except ValueError as error:
        problem = " ".join(str(error).split())
        logger.warning("profile %s in the store is damaged and not used: %s", row.id, problem)
        return None
    times = {"created_s": row.created_s, "updated_s": row.updated_s, "runs": row.runs}
    return Entry(key, replace(profile, **times))
