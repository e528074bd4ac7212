"""What is shipped and what it costs to have it: the modules an import loads, the wheel, the sdist, the repository."""

from __future__ import annotations

import ast
import email
import email.message
import importlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

import circuit_breaker

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "circuit_breaker"
CACHES = {"__pycache__", ".git", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "build", "dist"}
EXTRAS = {"bench", "docs", "mutation", "proofs", "recipes", "redis", "test"}


# Imports

# All of the standard library that the package itself imports when all its names are; what these load is theirs.
LOADED_BY_AN_IMPORT = [
    "__future__",
    "collections",
    "collections.abc",
    "contextlib",
    "contextvars",
    "copy",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "inspect",
    "itertools",
    "math",
    "operator",
    "os",
    "re",
    "reprlib",
    "sys",
    "threading",
    "time",
    "types",
    "typing",
    "weakref",
]
HEAVY = {"anyio", "asyncio", "concurrent", "email", "http", "json", "logging", "random", "socket", "ssl", "trio"}
OF_OUR_OWN = "circuit_breaker"
ALL_NAMES = "from circuit_breaker import *"
LOADED_LATER = {"_demo", "_shared", "console", "insight", "stores"}  # loaded by those alone who ask for it

USE_EACH = """
from circuit_breaker import *
@retry
@circuit_breaker
@bulkhead
def function():
    return 1
assert function() == 1
async def coroutine():
    return 1
retry(circuit_breaker(bulkhead(coroutine)))
CircuitBreakerRegistry()["api"].call(function)
"""


def loaded(code: str) -> set[str]:
    """Return the modules that a fresh interpreter, with nothing but the package in reach, has after this code."""
    program = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == OF_OUR_OWN}


def test_the_list_is_that_of_the_source() -> None:
    lazy = {PACKAGE / "testing.py", PACKAGE / "__main__.py", PACKAGE / "_terminal.py"}
    paths = {path for path in PACKAGE.rglob("*.py") if LOADED_LATER.isdisjoint(path.relative_to(PACKAGE).parts)} - lazy
    statements = [node for path in paths for node in ast.parse(path.read_bytes()).body]
    names = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in statements if isinstance(node, ast.ImportFrom) and not node.level}
    assert sorted(names) == LOADED_BY_AN_IMPORT


def test_all_names_load_of_the_standard_library_what_is_listed() -> None:
    modules = loaded(ALL_NAMES)
    assert modules - ours(modules) == loaded(f"import {', '.join(LOADED_BY_AN_IMPORT)}")
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()


def test_the_package_alone_loads_next_to_nothing() -> None:
    assert ours(loaded("import circuit_breaker")) == {"circuit_breaker"}


def test_the_exceptions_are_in_reach_though_nothing_was_asked_for() -> None:
    assert "circuit_breaker.exceptions" in loaded("import circuit_breaker; circuit_breaker.exceptions.CircuitOpenError")


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("retry", {"_retry"}),
        ("RetryPolicy", {"_retry"}),
        ("circuit_breaker", {"_breaker"}),
        ("CircuitBreakerRegistry", {"_breaker"}),
        ("bulkhead", {"_bulkhead"}),
        ("Bulkhead", {"_bulkhead"}),
        ("CircuitState", set[str]()),
    ],
)
def test_a_name_loads_its_own_pattern_only(name: str, patterns: set[str]) -> None:
    rooms = {module.split(".")[1] for module in ours(loaded(f"from circuit_breaker import {name}")) if "." in module}
    assert rooms - {"_common", "exceptions"} == patterns


def test_all_names_load_nothing_that_only_some_ask_for() -> None:
    paths = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
    paths = [path for path in paths if LOADED_LATER.isdisjoint(path.parts)]
    everything = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    lazy = {f"circuit_breaker.{name}" for name in ("testing", "__main__", "_terminal", "_common.typing")}
    assert ours(loaded(ALL_NAMES)) == everything - lazy | {"circuit_breaker"}


def test_the_types_of_decorated_functions_can_be_imported() -> None:
    assert importlib.import_module("circuit_breaker._common.typing").Protected


def test_the_errors_can_be_imported_from_their_module_first() -> None:
    assert "circuit_breaker.exceptions" in loaded("from circuit_breaker.exceptions import CircuitOpenError")


def test_recording_loads_nothing_that_replaying_needs() -> None:
    more = ours(loaded(f"{ALL_NAMES}; import circuit_breaker.insight")) - ours(loaded(ALL_NAMES))
    assert more == {"circuit_breaker.insight", "circuit_breaker.insight.call_log"}


def test_the_testing_aids_load_nothing_more() -> None:
    more = loaded("from circuit_breaker import retry, testing") - loaded("from circuit_breaker import retry")
    assert more == {"circuit_breaker.testing"}


@pytest.mark.parametrize("make", ["CircuitBreaker()", "CircuitBreakerRegistry()", "Bulkhead()"])
def test_the_first_object_loads_logging_only(make: str) -> None:
    before = f"import {', '.join(LOADED_BY_AN_IMPORT)}, logging"
    modules = loaded(f"from circuit_breaker import *\n{make}")
    assert modules - ours(modules) == loaded(before)


def test_a_budget_loads_nothing() -> None:
    assert loaded("from circuit_breaker import *\nRetryBudget()") == loaded(ALL_NAMES)


def test_a_policy_loads_random_too_and_calls_load_nothing() -> None:
    before = f"import {', '.join(LOADED_BY_AN_IMPORT)}, logging, random"
    modules = loaded(USE_EACH)
    assert modules - ours(modules) == loaded(before)
    assert ours(modules) == ours(loaded(ALL_NAMES))


# Distributions


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist, and the wheel that is built from it."""
    for module in ("build", "hatchling"):
        pytest.importorskip(module, reason="needs the extra test")
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


@pytest.fixture(scope="session")
def sdist(built: Path) -> dict[str, int]:
    """Return what the sdist holds, below its one folder, and the size of each."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as file:
        members = {PurePosixPath(member.name): member.size for member in file if member.isfile()}
    assert {name.parts[0] for name in members} == {path.name.removesuffix(".tar.gz")}
    return {str(PurePosixPath(*name.parts[1:])): size for name, size in members.items()}


@pytest.fixture(scope="session")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def files_below(folder: Path) -> set[str]:
    """Return the files of a folder of the repository, caches left out, as paths from its root."""
    paths = (path.relative_to(ROOT) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if CACHES.isdisjoint(path.parts)}


def tracked() -> set[str]:
    """Return what git knows; an unpacked sdist has no git, and is what it was made of."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no clone: there is no git to ask")
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split("\0")) - {""}


def test_the_wheel_holds_the_package_its_page_its_marker_of_types_and_its_licence(wheel: zipfile.ZipFile) -> None:
    modules = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py")}
    page = {path.relative_to(PACKAGE.parent).as_posix() for path in (PACKAGE / "console" / "static").iterdir()}
    about = f"circuit_breaker_stdlib-{circuit_breaker.__version__}.dist-info"
    facts = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    assert set(wheel.namelist()) == modules | page | {"circuit_breaker/py.typed"} | facts
    assert wheel.read("circuit_breaker/py.typed") == b""


def test_the_wheel_holds_no_file_that_git_does_not_know(wheel: zipfile.ZipFile) -> None:
    files = {f"src/{name}" for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == {name for name in tracked() if name.startswith("src/")}


def test_the_wheel_is_for_every_system(built: Path) -> None:
    version = circuit_breaker.__version__
    assert [path.name for path in built.glob("*.whl")] == [f"circuit_breaker_stdlib-{version}-py3-none-any.whl"]


def test_the_sdist_holds_what_the_tests_need_and_nothing_else(sdist: dict[str, int]) -> None:
    single = {"CHANGELOG.md", "LICENSE", "README.md", "py.typed", "pyproject.toml"}
    single |= {
        ".ci/run",
        ".github/CONTRIBUTING.md",
        ".github/workflows/check.yml",
        ".gitignore",
        ".pre-commit-config.yaml",
    }
    below = files_below(ROOT / "src") | files_below(ROOT / "tests") | files_below(ROOT / "docs")
    assert sdist.keys() == single | below | {"PKG-INFO"}


def test_the_sdist_holds_all_that_git_knows_and_nothing_else(sdist: dict[str, int]) -> None:
    assert sdist.keys() - {"PKG-INFO"} == tracked()


def test_the_metadata_says_what_it_is_and_where_it_runs(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "circuit-breaker-stdlib"
    assert metadata["Version"] == circuit_breaker.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True) == (ROOT / "README.md").read_bytes()


def test_the_package_requires_nothing_unless_an_extra_is_asked_for(metadata: email.message.Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS
    for requirement in metadata.get_all("Requires-Dist", []):
        marker = requirement.partition("; ")[2]
        assert any(marker.endswith(f"extra == '{extra}'") and " or " not in marker for extra in EXTRAS), requirement


def test_the_installed_wheel_is_imported_and_run_from_anywhere(built: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (path,) = built.glob("*.whl")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*command, "--disable-pip-version-check", str(path)], check=True, timeout=120)
    program = f"""
import runpy, sys
sys.path.insert(0, {str(target)!r})
import circuit_breaker.testing
print(circuit_breaker.__file__)
sys.argv = ["circuit_breaker", "--help"]
runpy.run_module("circuit_breaker", run_name="__main__")
"""
    run = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == str(target / "circuit_breaker" / "__init__.py")
    assert "--async" in done.stdout


# The repository


def test_the_top_of_the_repository_holds_these_and_files_with_a_dot() -> None:
    names = {name.partition("/")[0] for name in tracked()}
    assert {name for name in names if not name.startswith(".")} == {
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "docs",
        "py.typed",
        "pyproject.toml",
        "src",
        "tests",
    }


def test_no_cache_and_nothing_built_is_in_the_repository() -> None:
    assert [name for name in tracked() if not CACHES.isdisjoint(name.split("/"))] == []
