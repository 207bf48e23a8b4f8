"""What a figure is worth nothing without: kernel, CPU, versions, and the system's settings."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from ops.bench.peers import Peer, find
from ops.bench.processes import LOAD_CPU, PROXY_CPU

_LOADS = {"redis-server": "--version", "redis-benchmark": "--version", "ab": "-V"}


def _first(path: str, default: str = "unknown") -> str:
    try:
        return Path(path).read_text().strip() or default
    except OSError:
        return default


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", _first("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"


def describe() -> dict[str, str]:
    """Return the machine, by what each of its traits is called."""
    governor = f"/sys/devices/system/cpu/cpu{PROXY_CPU}/cpufreq/scaling_governor"
    return {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "cores used": f"proxy on {PROXY_CPU}, load and server on {LOAD_CPU}",
        "frequency governor": _first(governor, "none visible"),
        "congestion control": _first("/proc/sys/net/ipv4/tcp_congestion_control"),
        "loopback": "all connections are TCP over lo",
        "load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _version(program: str, arguments: Iterable[str]) -> str:
    place = find(program)
    if place is None:
        return "not installed"
    try:
        done = subprocess.run(
            [place, *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (done.stdout + done.stderr).replace(place, program).strip().splitlines()
    first = next((line.strip() for line in lines if re.search(r"\d", line)), "unknown")
    return re.sub(r"\s*(?:https?://\S+|<\S+>)", "", first).rstrip(" -")


def versions(peers: Iterable[Peer]) -> dict[str, str]:
    """Return what was compared, and with what."""
    found = {
        "aegis": f"{metadata.version('aegis-proxy')}, commit {_commit()}",
        "Python": platform.python_version(),
    }
    for peer in peers:
        if peer.program and peer.program not in found:
            found[peer.program] = _version(peer.program, peer.version)
    for program, argument in _LOADS.items():
        found[program] = _version(program, [argument])
    return found
