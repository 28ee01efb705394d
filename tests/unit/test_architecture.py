"""The arrows of DESIGN.md, and the house rules that a program can check."""

import ast
from pathlib import Path

import pytest

import atlaswriter

ROOT = Path(atlaswriter.__file__).parent
LEAVES = {"errors", "findings", "names", "units", "report", "progress"}
# What each part may import from the package, itself included.
ARROWS = {
    **dict.fromkeys(LEAVES, LEAVES),
    "__init__": {"formats"},
    "demo": {"formats", "sources"} | LEAVES,
    "kernels": {"kernels"},
    "codecs": {"codecs", "kernels", "errors"},
    "sources": {"sources", "codecs", "kernels"} | LEAVES,
    "sinks": {"sinks", "codecs", "kernels"} | LEAVES,
    "engine": {"engine", "sources", "sinks", "codecs", "kernels"} | LEAVES,
    "formats": {"formats", "engine", "sources", "sinks", "codecs", "kernels", "__init__"} | LEAVES,
    "bench": {"bench", "formats", "engine", "sources", "sinks", "codecs", "kernels", "__init__"} | LEAVES,
    "cli": {"cli", "bench", "demo", "formats", "engine", "sources", "sinks", "codecs", "kernels", "__init__"} | LEAVES,
}
OUTSIDE = {
    "kernels": {"numpy", "numba"},
    "codecs": {"numpy", "isal", "zstandard", "imagecodecs"},
    **{leaf: {"tqdm"} if leaf == "progress" else set() for leaf in LEAVES},
}
# What numba is made of: one file spells out instructions that numba has no words for.
BENEATH = {"kernels/bits.py": {"llvmlite"}}
FILES = sorted(ROOT.rglob("*.py"))
files = pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in FILES])


def part_of(path):
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path):
    """Full names of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_rules_cover_every_part():
    assert {part_of(path) for path in FILES} <= set(ARROWS)
    assert len(FILES) > 40


@files
def test_arrows(path):
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "atlaswriter":
            target = rest.split(".")[0]
            target = target if (ROOT / target).is_dir() or (ROOT / f"{target}.py").is_file() else "__init__"
            assert target in ARROWS[part_of(path)], f"{part_of(path)} must not import {name}"


@files
def test_low_parts_use_few_libraries(path):
    import sys

    allowed = OUTSIDE.get(part_of(path))
    if allowed is not None:
        allowed = allowed | BENEATH.get(path.relative_to(ROOT).as_posix(), set())
        used = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - {"atlaswriter"}
        assert used <= allowed


@files
def test_formats_do_not_import_each_other(path):
    """But all may be exported by Dask."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "formats" and len(parts) == 3:
        for name in imports(path):
            if name.startswith("atlaswriter.formats."):
                assert name.split(".")[2] in (parts[1], "on_dask")


@files
def test_only_the_command_line_prints(path):
    tree = ast.parse(path.read_text())
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    printed = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert part_of(path) == "cli" or not printed


@files
def test_modules_are_short(path):
    assert len(path.read_text().splitlines()) <= 450


@files
def test_functions_are_short(path):
    """Without their docstrings and signatures: `prepare` has forty documented arguments."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 80, f"{node.name} has {lines} lines"


@files
def test_everything_public_is_described(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "module"
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    places = [tree.body, *(node.body for node in classes)]
    functions = [node for body in places for node in body if isinstance(node, ast.FunctionDef)]
    for node in [*classes, *functions]:
        if not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@files
def test_file_names_of_the_format_are_spelled_once(path):
    """`layout.py` is the only place that knows them."""
    if path.name == "layout.py" or part_of(path) != "formats":
        return
    known = {"dataset_identity.json", "obs_manifest.json", "var_manifest.json", "connectivity_manifest.json"}
    docstrings = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            docstrings.add(id(node.body[0].value))
    spelled = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]
    assert not known & set(spelled)
