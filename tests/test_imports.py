"""Imports point one way, and a paper's name stays where papers are followed (architecture.md)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("mskjax", "tfds_builders", "experiments")

# From the bottom up; a module knows only those of lower lines and those of its own package.
LAYERS = (
    "errors roles",
    "config extensions preemption progress writers",
    "experiment",
    "history locks tables",
    "imaging",
    "tfds_builders",
    "data models",
    "inputs",
    "metrics",
    "cases baselines subgroups",
    "training",
    "evaluation random_weights watch",
    "workdir",
    "calibration_fit",
    "calibration",
    "manifest",
    "stages reporting results",
    "two_stage",
    "systems",
    "fields",
    "overrides",
    "again",
    "applied going_on predictions profile replicas comparing",
    "portable ensemble quality reading shift",
    "description",
    "prediction",
    "opening plan setting",
    "fold_training held_out",
    "fold_ensemble parts",
    "study external",
    "validation verification",
    "sweeps",
    "usage",
    "commands",
    "next_steps",
    "main prepare predict evaluate report sweep status export",
    "cli",
    "experiments",
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms.split()}

# First authors of the papers that the systems follow or compare themselves with, and what their
# papers are cited by.  Networks and gradings that go by a name (SpineNet, Goutallier, Pfirrmann,
# Modic) are the field's terms.
PAPERS = re.compile(
    r"\b(Ding|Saavedra|Cina|Yeh|Rodrigues|Niemeyer|Gao)\b"
    r"|PMC9764339|fmed\.2024\.1416169|1070499|102738|106325|105862"
)


def modules() -> dict[str, Path]:
    """Module name -> file."""
    files = [f for folder in FOLDERS for f in sorted((ROOT / folder).glob("**/*.py"))]
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return dict(zip((n.removesuffix(".__init__") for n in names), files, strict=True))


MODULES = modules()


def imported(tree: ast.AST) -> Iterator[str]:
    """What a module imports, wherever it does: at the top, inside functions, for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) in IMPORTERS
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value


IMPORTERS = ("__import__", "import_module")
ARROWS = {
    name: {m for m in imported(ast.parse(file.read_text())) if m in MODULES and m != name}
    for name, file in MODULES.items()
}


def room(module: str) -> str:
    """What stands in `LAYERS`: a package or a module of mskjax, or another folder as a whole."""
    folder, *inner = module.split(".")
    return inner[0] if folder == "mskjax" and inner else folder


def test_every_room_has_its_level():
    rooms = {room(name) for name in MODULES} - {"mskjax"}
    assert rooms <= set(LEVEL), "say in LAYERS what it may know"


def test_imports_point_down():
    up = [
        f"{name} -> {other}"
        for name, others in ARROWS.items()
        for other in sorted(others - {"mskjax"})
        if room(name) != room(other) and LEVEL[room(other)] >= LEVEL.get(room(name), len(LAYERS))
    ]
    assert not up


def test_no_system_knows_another():
    def system(module: str) -> str:
        """The system that a module is of; empty of others."""
        return module.split(".")[2] if module in own else ""

    own = {name for name in ARROWS if name.startswith("mskjax.systems.")}
    assert own
    assert not {(a, b) for a in own for b in ARROWS[a] if system(b) not in ("", system(a))}


def test_no_module_imports_itself_by_a_detour():
    cycles = []
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            cycles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for other in sorted(ARROWS[name]):
                follow(other, (*path, name))
            done.add(name)

    for name in MODULES:
        follow(name, ())
    assert not cycles


@pytest.mark.parametrize("package", ["imaging", "metrics", "models", "data", "training", "results"])
def test_a_package_below_the_systems_names_none(package):
    systems = {name.split(".")[2] for name in MODULES if name.startswith("mskjax.systems.")}
    assert systems
    named = {
        f"{name}: {system}"
        for name, file in MODULES.items()
        if name.startswith(f"mskjax.{package}.")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
        for system in systems
        if system == node.value
    }
    assert not named


def test_papers_are_named_by_systems_alone():
    own = "mskjax.systems."
    assert any(PAPERS.search(f.read_text()) for n, f in MODULES.items() if n.startswith(own))
    named = {
        f"{file.relative_to(ROOT)}: {found[0]}"
        for pattern in ("*.py", "*.html", "*.css")
        for file in (ROOT / "mskjax").rglob(pattern)
        if "systems" not in file.parts and (found := PAPERS.search(file.read_text()))
    }
    assert not named
