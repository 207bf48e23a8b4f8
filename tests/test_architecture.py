"""The structure that docs/ARCHITECTURE.md describes, held by a test: imports, sizes, rooms."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "aegis": {"aegis"},
    "control": {"aegis", "control"},
    "workers": {"aegis", "workers"},
    "ops": {"aegis", "ops"},
}
ROOMS = {"aegis", "control", "workers", "tests", "ops", "docs"}
FILES = {
    ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "Procfile",
    "README.md", "pyproject.toml",
}  # fmt: skip
MAX_MODULE_LINES = 400
MAX_TEST_MODULE_LINES = 600
MAX_FUNCTION_LINES = 70
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [Path(line) for line in listing.splitlines() if (ROOT / line).exists()]


def modules() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py"]


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its room"
            yield (node.module or "").split(".")[0]


def test_rooms_import_only_what_they_may() -> None:
    rooms = set(MAY_IMPORT) | {"tests"}
    wrong = [
        f"{path} imports {room}"
        for path in modules()
        for room in imported_rooms(path)
        if path.parts[0] in MAY_IMPORT and room in rooms - MAY_IMPORT[path.parts[0]]
    ]
    assert wrong == []


def test_framers_import_only_framers_and_facts_about_them() -> None:
    """Nothing that does I/O: a framer is given bytes and answers."""
    forbidden = {"socket", "select", "zmq", "asyncio", "workers", "control"}
    wrong = [
        f"{path} imports {name}"
        for path in modules()
        if path.parts[:2] == ("aegis", "framers")
        for name in imported_rooms(path)
        if name in forbidden
    ]
    assert wrong == []


def test_the_top_level_holds_what_the_design_names() -> None:
    top = {path.parts[0] for path in tracked_files() if len(path.parts) > 1}
    assert top <= ROOMS | {".ci"}
    assert {str(path) for path in tracked_files() if len(path.parts) == 1} <= FILES


def test_modules_are_of_readable_size_and_named_for_an_idea() -> None:
    wrong = []
    for path in modules():
        lines = len((ROOT / path).read_text().splitlines())
        limit = MAX_TEST_MODULE_LINES if path.parts[0] == "tests" else MAX_MODULE_LINES
        if lines > limit:
            wrong.append(f"{path}: {lines} lines, at most {limit}")
        if path.stem in VAGUE_NAMES:
            wrong.append(f"{path}: a name that says nothing")
    assert wrong == []


def test_functions_fit_on_a_screen() -> None:
    wrong = [
        f"{path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in modules()
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert wrong == []


@pytest.mark.parametrize("path", [p for p in modules() if p.name == "__init__.py"], ids=str)
def test_a_package_init_is_a_map_and_not_code(path: Path) -> None:
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    assert all(isinstance(n, allowed) for n in ast.parse((ROOT / path).read_text()).body)


def test_every_runtime_dependency_is_explained() -> None:
    text = (ROOT / "docs/dependencies.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    packages = re.findall(r'^ *"([a-z][a-z0-9-]*)(?:>=[0-9.]+)?",?$', project, re.MULTILINE)
    demo = re.findall(r'"([a-z]+)>=', re.search(r"^demo = .*$", project, re.MULTILINE)[0])  # type: ignore[index]
    assert [name for name in packages + demo if name not in text] == []
