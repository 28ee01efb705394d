"""Every kernel and every codec is timed by some benchmark in benchmarks/micro."""

import ast
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import atlaswriter.codecs
from atlaswriter.kernels import _jit

ROOT = Path(__file__).parents[2]
MICRO = ROOT / "benchmarks" / "micro"
# Functions of codecs that pass no content on.
NOT_TIMED = {
    "gzip.encoder_name",
    "sparse_gzip.longest",
    "sparse_gzip.takes",
    "sparse_gzip.wanted_by_repeats",
    "sparse_gzip.wanted_kernels",
}

sys.path.insert(0, str(ROOT))


def timed_in(path):
    """What the benchmarks of a module time: all that is named in the work they measure, here or in a function of theirs."""
    module = importlib.import_module(f"benchmarks.micro.{path.stem}")
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        inner = {one.name: one for one in ast.walk(function) if isinstance(one, ast.FunctionDef)}
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in {"measure", "measure_fresh"}:
                work = call.args[1]
                work = inner.get(work.id, work) if isinstance(work, ast.Name) else work
                yield from named_in(work, module)


def named_in(work, module):
    """Attributes of modules, such as ``gzip.compress``."""
    for node in ast.walk(work):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield getattr(getattr(module, node.value.id, None), node.attr, None)


def timed():
    # Not in a set: not all that benchmarks name can be hashed.
    return [one for path in sorted(MICRO.glob("test_*.py")) for one in timed_in(path)]


def test_every_kernel_is_timed():
    found = {id(one) for one in timed()}
    assert {kernel.name for kernel in _jit._load_all() if id(kernel) not in found} == set()


def test_every_codec_is_timed():
    found, missing = {id(one) for one in timed()}, set()
    for info in pkgutil.iter_modules(atlaswriter.codecs.__path__):
        module = importlib.import_module(f"atlaswriter.codecs.{info.name}")
        for name, function in vars(module).items():
            public = (
                not name.startswith("_") and inspect.isfunction(function) and function.__module__ == module.__name__
            )
            if public and id(function) not in found:
                missing.add(f"{info.name}.{name}")
    assert missing == NOT_TIMED
