"""Start one proxy in front of one server for a measurement, and end it again.

Each is given one worker pinned to PROXY_CPU; who measures runs load and server on LOAD_CPU.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PROXY_CPU, LOAD_CPU = 0, 1


def free_port() -> int:
    """Return a TCP port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for_port(port: int, deadline_s: float = 20.0) -> None:
    """Wait until something accepts on loopback.

    Raises:
        TimeoutError: nothing did in time.
    """
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing accepts on port {port}")


def pin(process: psutil.Process, cpu: int) -> None:
    """Keep a process, its threads and its children on one core."""
    for each in [process, *process.children(recursive=True)]:
        for thread in each.threads():
            os.sched_setaffinity(thread.id, {cpu})


@contextlib.contextmanager
def aegis(directory: Path, server_port: int) -> Iterator[tuple[int, psutil.Process]]:
    """Run Aegis with one worker; yields its port and the worker's process."""
    port = free_port()
    config = directory / "aegis.toml"
    config.write_text(
        f"""
        workers = 1
        drain_timeout_s = 1
        [[listener]]
        name = "bench"
        bind = "127.0.0.1:{port}"
        backend = "bench"
        [[backend]]
        name = "bench"
        servers = ["127.0.0.1:{server_port}"]
        """
    )
    arguments = ["--config", str(config), "--runtime-dir", str(directory / "run"), "--no-exporter"]
    controller = subprocess.Popen(
        ["taskset", "-c", str(PROXY_CPU), sys.executable, "-P", "-m", "control.main", *arguments],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port)
        (worker,) = psutil.Process(controller.pid).children()
        yield port, worker
    finally:
        controller.terminate()
        controller.wait(30)


@contextlib.contextmanager
def haproxy(directory: Path, server_port: int) -> Iterator[tuple[int, psutil.Process]]:
    """Run HAProxy in tcp mode with one thread; yields its port and its process.

    Its own advice for a benchmark: no logging, nbthread 1 on a pinned core, no option that adds
    work (HAProxy Starter Guide, 3.5); splice stays off as is its default.
    """
    port = free_port()
    config = directory / "haproxy.cfg"
    config.write_text(
        f"""
global
    nbthread 1
    maxconn 9000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{port} backlog 4096
    server one 127.0.0.1:{server_port}
"""
    )
    process = subprocess.Popen(
        ["taskset", "-c", str(PROXY_CPU), "haproxy", "-db", "-f", str(config)],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


PROXIES = {"aegis": aegis, "haproxy": haproxy}


def installed() -> list[str]:
    """Return the proxies this machine can run; names the others on stderr."""
    names = []
    for name in PROXIES:
        if name == "aegis" or shutil.which(name):
            names.append(name)
        else:
            print(f"{name} is not installed: left out", file=sys.stderr)
    return names
