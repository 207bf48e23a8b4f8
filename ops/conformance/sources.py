"""Fetches the suites: sdists from PyPI, Debian's source of Redis. All of it stays in `build/`.

The versions are fixed, so that the list of explained differences stays true.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2] / "build" / "conformance"
DEBIAN_SOURCES = "deb-src http://deb.debian.org/debian {release} main\n"
TOOLS = ("redis-server", "redis-cli", "redis-benchmark")


def sdist(package: str, version: str) -> Path:
    """Return the unpacked sdist of a package."""
    place = ROOT / f"{package}-{version}"
    if not place.exists():
        ROOT.mkdir(parents=True, exist_ok=True)
        download = ["download", "--quiet", "--no-deps", "--no-binary", package]
        subprocess.run(
            [sys.executable, "-m", "pip", *download, f"{package}=={version}", "--dest", ROOT],
            check=True,
        )
        with tarfile.open(ROOT / f"{package}-{version}.tar.gz") as archive:
            archive.extractall(ROOT, filter="data")
    return place


def environment(name: str, *requirements: str) -> Path:
    """Return the python of a virtual environment with these packages, made if it is not there."""
    place = ROOT / f"{name}.venv"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        (place / "complete").touch()
    return python


def redis_tests() -> Path:
    """Return Redis' source tree as Debian has it, with the installed programs in its src/.

    Fetched with apt, but with sources and lists of our own: the machine's stay as they are.
    """
    place = ROOT / "debian"
    if not list(place.glob("redis-*/tests/test_helper.tcl")):
        _fetch_from_debian(place)
    found = sorted(place.glob("redis-*/tests/test_helper.tcl"))
    tree = found[-1].parents[1]
    for tool in TOOLS:
        program = shutil.which(tool)
        link = tree / "src" / tool
        if program is not None and not link.exists():
            link.symlink_to(program)
    return tree


def _fetch_from_debian(place: Path) -> None:
    (place / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    sources = place / "sources.list"
    sources.write_text(DEBIAN_SOURCES.format(release=_debian_release()))
    apt = [
        "apt-get", "-qq", "-o", f"Dir::Etc::SourceList={sources}",
        "-o", "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={place / 'lists'}",
        "-o", f"Dir::Cache={place / 'cache'}",
    ]  # fmt: skip
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "source", "--download-only", "redis"], check=True, cwd=place)
    (archive,) = place.glob("redis_*.orig.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(place, filter="data")


def _debian_release() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    return os.environ.get("DEBIAN_RELEASE", facts.get("VERSION_CODENAME", "stable").strip('"'))
