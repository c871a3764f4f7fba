"""Python and the packages that the program requires, without importing them."""

import platform
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from pipeline.checkup.finding import Finding, note, ok, problem

DISTRIBUTION = "spike-deblur"
_PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_SHOWN = ("torch", "numpy", "zarr", "numcodecs", "numba")
_EXTRAS = {"s3": "stores in s3://", "video": "reading videos", "export": "exporting networks"}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?\s*([^;]*)")
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|<|>)\s*([0-9.]+)\s*")


def check_python(required: str | None = None, version: str | None = None) -> Iterator[Finding]:
    """Python's version.

    Args:
        required: as `requires-python` has it; the project's by default.
        version: this one by default.
    """
    version = version or platform.python_version()
    required = required or _python_required()
    if satisfies(version, required):
        yield ok("Python", version)
    else:
        yield problem(
            "Python", f"{version}, wanted {required}", "make an environment with it: uv venv --python 3.12"
        )


def check_requirements(
    required: Sequence[str] | None = None, installed: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Every package that is required: whether it is there, at a version that will do.

    Args:
        required: requirements, as `numpy>=2.0`; the project's by default.
        installed: versions by name; those of this environment by default.
    """
    requirements = [_split(text) for text in (_dependencies() if required is None else required)]
    found = {name: _version(name, installed) for name, _ in requirements}
    fine = True
    for name, wanted in requirements:
        version = found[name]
        if version is None or not satisfies(version, wanted):
            fine = False
            state = "not installed" if version is None else version
            yield problem(name, f"{state}, wanted {wanted}", f"pip install {shlex.quote(name + wanted)}")
    if fine:
        versions = ", ".join(f"{name} {found[name]}" for name in _SHOWN if found.get(name))
        yield ok("packages", f"all {len(requirements)} as required: {versions}".rstrip(": "))


def check_extras(
    extras: Mapping[str, Sequence[str]] | None = None, installed: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """What only some commands need."""
    for extra, requirements in (_extras() if extras is None else extras).items():
        if extra not in _EXTRAS:
            continue
        pairs = [_split(text) for text in requirements]
        versions = [(name, _version(name, installed), wanted) for name, wanted in pairs]
        missing = [f"{name}{wanted}" for name, v, wanted in versions if v is None or not satisfies(v, wanted)]
        if missing:
            found = f"{', '.join(missing)} not installed: no {_EXTRAS[extra]}"
            yield note(f"extra {extra}", found, f"pip install {shlex.join(missing)}")
        else:
            yield ok(f"extra {extra}", ", ".join(f"{name} {v}" for name, v, _ in versions))


def satisfies(version: str, wanted: str) -> bool:
    """Whether the release of a version fulfils all clauses, as ">=3.1,<4"; what is not a number there counts as met."""
    release = _release(version)
    for operator, text in _CLAUSE.findall(wanted):
        bound = _release(text)
        width = max(len(release), len(bound))
        ours, theirs = (part + (0,) * (width - len(part)) for part in (release, bound))
        met = {
            ">=": ours >= theirs,
            "<=": ours <= theirs,
            "==": ours == theirs,
            "!=": ours != theirs,
            "<": ours < theirs,
            ">": ours > theirs,
        }
        if not met[operator]:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _split(requirement: str) -> tuple[str, str]:
    found = _REQUIREMENT.match(requirement)
    assert found, requirement
    return found[1], found[2].strip()


def _version(name: str, installed: Mapping[str, str] | None) -> str | None:
    if installed is not None:
        return installed.get(name)
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _project() -> Mapping[str, object] | None:
    """The project's own description, where the program runs from its repository."""
    return tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"] if _PROJECT.is_file() else None


def _python_required() -> str:
    project = _project()
    return str(project["requires-python"]) if project else metadata.metadata(DISTRIBUTION)["Requires-Python"]


def _dependencies() -> list[str]:
    if project := _project():
        return list(project["dependencies"])  # type: ignore[call-overload]
    return [text for text in metadata.requires(DISTRIBUTION) or [] if "extra ==" not in text]


def _extras() -> dict[str, list[str]]:
    if project := _project():
        return dict(project["optional-dependencies"])  # type: ignore[call-overload]
    extras: dict[str, list[str]] = {}
    for text in metadata.requires(DISTRIBUTION) or []:
        if named := re.search(r"extra == ['\"](\w+)['\"]", text):
            extras.setdefault(named[1], []).append(text.partition(";")[0])
    return extras
