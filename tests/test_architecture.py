"""The shape of the code: what is loaded when, which library is known where, what packages show,
where prompts are. Which way imports point is import-linter's (pyproject.toml)."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "rules_store", "benchmarks")


def sources(*packages: str) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), path


def imported(path: Path, *, at_import: bool = False) -> set[str]:
    """Modules that a file imports; `at_import`: only those that its own import runs."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            # `from app.api import chat` imports a module too.
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if not (at_import and inside):
            pending += ast.iter_child_nodes(node)
    return found


def area(module: str) -> str | None:
    """`app.loop.steer.mmr` as `loop`; None outside app, and for app itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "app" and len(parts) > 1 else None


MODULES = dict(sources(*PACKAGES))
APP = {name: path for name, path in MODULES.items() if area(name) not in (None, "__version__")}


def test_no_package_needs_the_tests() -> None:
    for module, path in MODULES.items():
        assert "tests" not in {name.split(".")[0] for name in imported(path)}, module


def test_no_package_imports_the_benchmarks_by_name() -> None:
    # `ttcl bench` mounts itself by an entry point.
    for module, path in sources("app", "rules_store"):
        assert "benchmarks" not in {name.split(".")[0] for name in imported(path)}, module


def test_no_module_needs_itself() -> None:
    graph = {
        # Its own packages have begun before it.
        name: {
            each
            for each in imported(path, at_import=True)
            if each in MODULES and each != name and not name.startswith(f"{each}.")
        }
        for name, path in MODULES.items()
    }
    for name in ("app", "rules_store"):
        graph.pop(name, None)
    for each in graph.values():
        each.difference_update({"app", "rules_store", "benchmarks"})
    graphlib.TopologicalSorter(graph).prepare()


LIBRARIES = {
    # library -> areas of app that may know it
    "fastapi": {"api", "console", "main"},
    "starlette": {"api"},
    "uvicorn": {"cli"},
    "typer": {"cli"},
    "sqlalchemy": set(),
    "opentelemetry": {"observability"},
    "procrastinate": {"learning"},
    "psycopg": {"learning"},
    "aiosqlite": set(),
    "faiss": set(),
    "aiohttp": {"upstream"},
    "httpx": {"upstream", "engine", "cli"},
    "jinja2": {"console", "prompt_library"},
    "prometheus_client": {"observability"},
    "sentence_transformers": {"upstream"},
    "math_verify": {"loop"},
}


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_is_known_in_its_place_only(library: str) -> None:
    users = {
        area(module)
        for module, path in APP.items()
        if any(name.split(".")[0] == library for name in imported(path))
    }
    assert users <= LIBRARIES[library]


@pytest.mark.parametrize("module", ["app.main", "app.cli.root", "rules_store.store"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = {"torch", "transformers", "sentence_transformers", "sympy", "math_verify"}
    code = f"import sys, {module}; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", ["app", "rules_store"])
def test_every_module_says_what_it_is_for(package: str) -> None:
    silent = [
        name
        for name, path in sources(package)
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


@pytest.mark.parametrize(
    "package", [name for name, path in MODULES.items() if path.name == "__init__.py"]
)
def test_a_package_has_what_it_shows(package: str) -> None:
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name, None) is not None, name


def _texts(path: Path) -> Iterator[str]:
    """Every text of a module but for its docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            alone = isinstance(node, ast.Expr)
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and not alone:
                yield child.value


ADDRESSED = ("you are", "you will", "your task", "your answer", "step by step", "reply with")


def test_no_prompt_is_written_in_python() -> None:
    found = {
        (name, text)
        for name, path in APP.items()
        if area(name) not in {"cli", "engine"}
        for text in _texts(path)
        if any(phrase in text.casefold() for phrase in ADDRESSED) and len(text.split()) > 5
    }
    assert found == set()
