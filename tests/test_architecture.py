"""The shape of the code: which way imports point, how large modules are, where prompts are."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "rules_store", "benchmarks")
LONGEST = 320

LEAVES = {
    "framing",
    "exceptions",
    "ids",
    "settings",
    "trajectory",
    "templates",
    "tolerant",
    "tracing",
}
"""They know no one above; every part of the application may use them."""

ARROWS: dict[str, set[str]] = {
    # area of app -> areas that it may import, beside the leaves and rules_store
    "upstream": set(),
    "steer": {"upstream"},
    "explore": {"effort", "steer", "upstream"},
    "reflect": {"effort"},
    "effort": {"upstream"},
    "worth": {"loop", "reflect", "trace", "upstream"},
    "drafting": {"keying", "upstream"},
    "engine": set(),
    "protocol": set(),
    "metrics": {"learner", "worker"},
    "keys": set(),
    "metering": {"keys"},
    "logs": set(),
    "trace": set(),
    "rendering": {"upstream"},
    "reembed": {"keying", "upstream"},
    "loop": {"effort", "explore", "reflect", "steer", "upstream"},
    "learner": {"drafting", "effort", "loop", "trace", "upstream", "worth"},
    "worker": {"learner"},
    "learning_queue": {"learner"},
    "load": set(),
    "recorder": {"learner", "load", "worker"},
    "chat": {
        "effort",
        "explore",
        "keys",
        "loop",
        "metering",
        "metrics",
        "protocol",
        "recorder",
        "rendering",
        "steer",
        "trace",
        "upstream",
        "worth",
    },
    "state": {
        "chat",
        "keys",
        "load",
        "metering",
        "metrics",
        "steer",
        "upstream",
        "worker",
        "worth",
    },
    "api": {"chat", "keys", "protocol", "reembed", "reflect", "state", "steer", "upstream"},
    "console": {"api", "keys", "protocol", "state"},
}
"""`main` builds all, `cli` and its helpers stand on top of it: they may import what they like."""

TOP = {
    "main",
    "parts",
    "cli",
    "cli_common",
    "cli_curation",
    "cli_doctor",
    "cli_keys",
    "cli_namespaces",
    "cli_rules",
    "cli_worker",
    "working",
    "background",
    "demo",
    "doctor",
    "admin_key",
    "__init__",
    "__main__",
}

LEAF_ARROWS = {
    "framing": set(),
    "exceptions": set(),
    "ids": set(),
    "keying": set(),
    "tolerant": set(),
    "trajectory": {"exceptions"},
    "env_file": {"exceptions"},
    "settings": {"env_file", "exceptions", "trajectory"},
    "templates": {"exceptions", "trajectory"},
    "tracing": {"exceptions", "trajectory"},
}

NARROW = {
    ("explore", "effort"): {"app.loop.effort"},
    ("reflect", "effort"): {"app.loop.effort"},
    # these areas see nothing of the other but one module
    ("api", "reflect"): {"app.loop.admission.pipeline"},
    ("explore", "steer"): {"app.loop.steer.injector"},
    ("explore", "upstream"): {"app.upstream.types"},
    ("steer", "upstream"): {"app.upstream.embeddings"},
    ("loop", "upstream"): {
        "app.upstream.capabilities",
        "app.upstream.embeddings",
        "app.upstream.types",
    },
}


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
    """`app.steer.mmr` as `steer`; None outside app, and for app itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "app" and len(parts) > 1 else None


MODULES = dict(sources(*PACKAGES))
APP = {name: path for name, path in MODULES.items() if area(name) not in (None, "__version__")}


@pytest.mark.parametrize(
    ("package", "above"),
    [
        ("rules_store", {"app", "benchmarks", "prompts", "tests"}),
        ("app", {"benchmarks", "tests"}),
        ("benchmarks", {"tests"}),
    ],
)
def test_packages_point_one_way(package: str, above: set[str]) -> None:
    for module, path in sources(package):
        if module == "app.cli":
            continue  # hands `ttcl bench` over; see the next test
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & above, module


def test_the_command_line_takes_the_benchmarks_only_when_asked() -> None:
    roots = {name.split(".")[0] for name in imported(MODULES["app.cli"], at_import=True)}
    assert not roots & {"benchmarks", "tests"}


def test_every_part_of_the_application_has_its_place() -> None:
    assert {area(name) for name in APP} <= set(ARROWS) | set(LEAF_ARROWS) | TOP


@pytest.mark.parametrize("part", sorted(ARROWS | LEAF_ARROWS))
def test_arrows_within_the_application(part: str) -> None:
    allowed = LEAF_ARROWS[part] if part in LEAF_ARROWS else ARROWS[part] | LEAVES
    parts = set(ARROWS) | set(LEAF_ARROWS) | TOP
    for module, path in APP.items():
        if area(module) != part:
            continue
        others = {name for name in imported(path) if area(name) in parts - {part}}
        assert {area(name) for name in others} <= allowed, module
        for (one, other), modules in NARROW.items():
            seen = {name for name in others if one == part and area(name) == other}
            known = {n for n in seen if any(f"{n}.".startswith(f"{m}.") for m in modules)}
            assert seen - known <= {f"app.{other}"}, module


def test_explore_and_reflect_do_not_know_each_other() -> None:
    for module, path in APP.items():
        if area(module) in ("explore", "reflect"):
            other = {"explore", "reflect"} - {area(module)}
            assert not other & {area(name) for name in imported(path)}, module


def test_no_module_needs_itself() -> None:
    graph = {
        name: {each for each in imported(path, at_import=True) if each in MODULES and each != name}
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
    "typer": {
        "cli",
        "cli_common",
        "cli_curation",
        "cli_doctor",
        "cli_keys",
        "cli_namespaces",
        "cli_rules",
        "cli_worker",
    },
    "sqlalchemy": set(),
    "opentelemetry": {"tracing"},
    "procrastinate": {"learning_queue"},
    "psycopg": {"learning_queue"},
    "aiosqlite": set(),
    "faiss": set(),
    "aiohttp": {"upstream"},
    "httpx": {"upstream", "engine", "cli", "demo"},
    "jinja2": {"console", "templates"},
    "prometheus_client": {"metrics"},
    "sentence_transformers": {"upstream"},
    "math_verify": {"reflect"},
}


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_is_known_in_its_place_only(library: str) -> None:
    users = {
        area(module)
        for module, path in APP.items()
        if any(name.split(".")[0] == library for name in imported(path))
    }
    assert users <= LIBRARIES[library]


@pytest.mark.parametrize("module", ["app.main", "app.cli", "rules_store.store"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = {"torch", "transformers", "sentence_transformers", "sympy", "math_verify"}
    code = f"import sys, {module}; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_too_long(package: str) -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in sources(package)}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}


@pytest.mark.parametrize("package", ["app", "rules_store"])
def test_every_module_says_what_it_is_for(package: str) -> None:
    silent = [
        name
        for name, path in sources(package)
        if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


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
        if area(name) not in TOP | {"engine"}
        for text in _texts(path)
        if any(phrase in text.casefold() for phrase in ADDRESSED) and len(text.split()) > 5
    }
    assert found == set()
