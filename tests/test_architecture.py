"""Who may know whom: cli calls model and pipeline, model knows pipeline, pipeline knows neither."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("pipeline", "model", "cli")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
TESTED = [path for path in MODULES if path.stem not in ("__init__", "__main__")]
LEAVES = ("layers", "losses", "metrics")
HEAVY = {"torch", "zarr", "numba", "dask", "distributed"}


def imports_of(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names.add(node.module or "")
    return names


def packages_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(path)}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def package_of(path: Path) -> str:
    """The top-level package that a file is in."""
    return path.relative_to(REPOSITORY).parts[0]


def test_there_is_something_to_check():
    assert {name_of(path) for path in MODULES} >= {"pipeline.ingest", "model.network", "cli.main"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path):
    above = {"pipeline": {"model", "cli"}, "model": {"cli"}, "cli": set()}[package_of(path)]
    assert not packages_of(path) & (above | {"tests", "benchmarks"})


@pytest.mark.parametrize("path", [path for path in MODULES if package_of(path) == "pipeline"], ids=name_of)
def test_the_pipeline_is_numpy_until_clips(path):
    assert ("torch" in packages_of(path)) == (path.stem == "clips")


@pytest.mark.parametrize("name", LEAVES)
def test_layers_losses_and_metrics_know_torch_and_model_only(name):
    foreign = packages_of(REPOSITORY / "model" / f"{name}.py") - set(sys.stdlib_module_names)
    assert foreign <= {"torch", "model"}


def test_the_command_line_starts_without_what_only_commands_need():
    code = "import sys, cli.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "cli" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", TESTED, ids=name_of)
def test_every_module_has_tests(path):
    mirrored = Path("tests", *path.relative_to(REPOSITORY).parent.parts, f"test_{path.stem}.py")
    assert (REPOSITORY / mirrored).is_file(), f"{mirrored} is missing"
