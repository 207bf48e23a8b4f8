"""Real databases for tests: started as anybody would, on loopback, ended with the test."""

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.harness import wait_until
from tests.proxy import needs, refuses, reserve_port

POSTGRES_USER = "postgres"


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a redis-server that keeps nothing; gives its address."""
    (program,) = needs("redis-server")
    with contextlib.ExitStack() as own:
        directory = own.enter_context(TemporaryDirectory(prefix="redis-"))
        port = reserve_port(own)
        child = own.enter_context(
            subprocess.Popen(
                [
                    program,
                    *("--bind", "127.0.0.1", "--port", str(port), "--dir", directory),
                    *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
                ],
                stdout=subprocess.DEVNULL,
            )
        )
        own.callback(child.kill)
        wait_until(lambda: not refuses(f"127.0.0.1:{port}"), "redis listens")
        yield f"127.0.0.1:{port}"


class Postgres:
    """A cluster in a temporary directory, on loopback and a unix socket; nobody has a password."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.unix_address = f"unix:{directory}/.s.PGSQL.{port}"


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Run PostgreSQL, as another user if we are root, which it refuses to be."""
    initdb, program, _ = needs("initdb", "postgres", "psql")
    user = POSTGRES_USER if not os.geteuid() else None
    with contextlib.ExitStack() as own:
        directory = Path(own.enter_context(TemporaryDirectory(prefix="pg-")))
        if user:
            account = pwd.getpwnam(user)
            os.chown(directory, account.pw_uid, account.pw_gid)
        data, port = directory / "data", reserve_port(own)
        log = own.enter_context((directory / "log").open("wb"))
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"],
            user=user, stdout=log, stderr=log, check=True, cwd="/",
        )  # fmt: skip
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(directory),
            "fsync": "off",
        }
        child = own.enter_context(
            subprocess.Popen(
                [program, "-D", data, *(f"--{key}={value}" for key, value in options.items())],
                user=user,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        )
        own.callback(child.send_signal, signal.SIGINT)  # cuts clients, ends its children too
        made = Postgres(directory, port)
        wait_until(lambda: _answers(made), "PostgreSQL answers")
        yield made


def _answers(server: Postgres) -> bool:
    return psql(server.port, "select 1", check=False).returncode == 0


def psql(
    port: int, sql: str, *, check: bool = True, **options: object
) -> "subprocess.CompletedProcess[bytes]":
    """Run one command over TCP."""
    (program,) = needs("psql")
    return subprocess.run(  # type: ignore[no-any-return, call-overload]
        [program, "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql, url(port)],
        capture_output="stdout" not in options,
        check=check,
        timeout=500,
        **options,
    )


def url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"
