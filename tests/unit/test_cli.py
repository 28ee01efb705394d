"""The command line: exit codes, what goes to stdout and stderr, and how options map."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from atlaswriter.cli.main import run
from atlaswriter.formats.cellucid import convert

PROGRAM = Path(sys.executable).with_name("atlaswriter")
N = 60


@pytest.fixture(scope="module")
def h5ad(tmp_path_factory):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": pd.Categorical(["a", "b"] * 30), "x y": rng.random(N)}, [f"c{i}" for i in range(N)])
    adata = anndata.AnnData(sp.random(N, 5, 0.4, "csr", np.float32, rng=rng), obs, pd.DataFrame(index=list("ABCDE")))
    adata.obsm = {"X_umap": rng.random((N, 2)), "X_pca": rng.random((N, 4)), "X_3": rng.random((N, 3))}
    path = tmp_path_factory.mktemp("cli") / "a.h5ad"
    adata.write_h5ad(path)
    return str(path)


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


@pytest.fixture
def call(capsys):
    """Run a command in this process; exit code, stdout and stderr."""

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def one_object(text):
    """stdout with --json: one line, one object."""
    assert text.endswith("\n")
    parsed = json.loads(text)
    assert isinstance(parsed, dict)
    return parsed


# ---------------------------------------------------------------- exit codes, stdout, stderr


def test_success(call, h5ad, out):
    code, stdout, stderr = call("cellucid", h5ad, out)
    assert (code, stdout) == (0, "")
    for part in ("output", "X_umap (2D)", "X_pca", "peak memory"):
        assert part in stderr


def test_success_as_json(call, h5ad, out):
    code, stdout, stderr = call("cellucid", h5ad, out, "--json")
    assert code == 0
    assert one_object(stdout)["contents"]["genes"] == 5
    assert "peak memory" in stderr


def test_quiet(call, h5ad, out):
    assert call("-q", "cellucid", h5ad, out) == (0, "", "")
    code, stdout, stderr = call("-q", "cellucid", h5ad, out, "--force", "--json")
    assert (code, stderr) == (0, "")
    assert one_object(stdout)["files"] > 5


FAILURES = {
    "check found problems": (1, ["check", "{nowhere}"]),
    "unknown option": (2, ["cellucid", "{h5ad}", "{out}", "--nonsense"]),
    "unknown verb": (2, ["nonsense"]),
    "missing argument": (2, ["cellucid", "{h5ad}"]),
    "wrong value": (2, ["cellucid", "{h5ad}", "{out}", "--quantize", "7"]),
    "wrong choice": (2, ["cellucid", "{h5ad}", "{out}", "--quantizer", "floor"]),
    "wrong number": (2, ["cellucid", "{h5ad}", "{out}", "--compression", "10"]),
    "no workers": (2, ["cellucid", "{h5ad}", "{out}", "-j", "0"]),
    "list file missing": (2, ["cellucid", "{h5ad}", "{out}", "--genes", "@{nowhere}"]),
    "no source": (3, ["cellucid", "{nowhere}", "{out}"]),
    "unknown key": (3, ["cellucid", "{h5ad}", "{out}", "--latent", "nope"]),
    "wrong size": (3, ["cellucid", "{h5ad}", "{out}", "-M", "lots"]),
    "bad target": (3, ["cellucid", "{h5ad}", "/"]),
    "not an export": (3, ["info", "{nowhere}"]),
    "no budget": (4, ["cellucid", "{h5ad}", "{out}", "-M", "1MiB"]),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures(call, h5ad, out, tmp_path, case):
    expected, words = FAILURES[case]
    places = {"h5ad": h5ad, "out": out, "nowhere": tmp_path / "nowhere"}
    arguments = [word.format(**places) for word in words]
    code, stdout, stderr = call(*arguments)
    assert code == expected
    assert stdout == "" or expected == 1
    assert stderr or expected == 1
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", [case for case in FAILURES if case != "unknown verb"])
def test_failures_as_json(call, h5ad, out, tmp_path, case):
    expected, words = FAILURES[case]
    places = {"h5ad": h5ad, "out": out, "nowhere": tmp_path / "nowhere"}
    code, stdout, _ = call(*[word.format(**places) for word in words], "--json")
    assert code == expected
    parsed = one_object(stdout)
    assert parsed["ok"] is False
    if expected == 3:
        assert parsed["error"]
    if case == "unknown key":
        assert parsed["problems"] == [{"where": "latent", **parsed["problems"][0]}]
        assert set(parsed["problems"][0]) == {"where", "found", "remedy"}


def test_output_errors_are_5(call, h5ad, out, monkeypatch):
    from atlaswriter.sinks import fs

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fs, "write_file", full)
    code, stdout, stderr = call("cellucid", h5ad, out, "--json")
    assert code == 5
    assert "No space left" in one_object(stdout)["error"]
    assert "free space" in stderr
    assert not os.path.exists(out)


def test_errors_of_the_system_are_5(call, h5ad, out, monkeypatch):
    def broken(*arguments, **options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(convert, "open_source", broken)
    code, stdout, stderr = call("cellucid", h5ad, out)
    assert (code, stdout) == (5, "")
    assert "Input/output error" in stderr


def test_interruption_is_130(call, h5ad, out, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "open_source", interrupted)
    code, stdout, stderr = call("cellucid", h5ad, out)
    assert (code, stdout) == (130, "")
    assert "interrupted" in stderr


def test_existing_export_needs_force(call, h5ad, out):
    assert call("cellucid", h5ad, out)[0] == 0
    code, _, stderr = call("cellucid", h5ad, out)
    assert code == 3
    assert "--force" in stderr
    assert call("cellucid", h5ad, out, "--force")[0] == 0


def test_check_info_and_diff(call, h5ad, out, tmp_path):
    call("cellucid", h5ad, out)
    for verb in ("check", "info"):
        code, stdout, stderr = call(verb, out)
        assert (code, stderr) == (0, "")
        assert stdout
        assert one_object(call(verb, out, "--json")[1])
    call("cellucid", h5ad, tmp_path / "b", "--genes", "A")
    assert call("diff", out, out)[0] == 0
    assert call("diff", out, tmp_path / "b")[0] == 1
    code, stdout, _ = call("diff", out, tmp_path / "b", "--json")
    assert code == 1
    one_object(stdout)
    next((tmp_path / "out" / "var").iterdir()).write_bytes(b"")
    code, stdout, _ = call("check", out, "--json")
    assert code == 1
    assert one_object(stdout)["ok"] is False


def test_datasets(call, h5ad, tmp_path):
    for name in ("one", "two"):
        call("cellucid", h5ad, tmp_path / "all" / name)
    code, stdout, _ = call("datasets", tmp_path / "all", "--default", "two", "--json")
    assert code == 0
    assert one_object(stdout)["default"] == "two"
    assert len(json.loads((tmp_path / "all" / "datasets.json").read_text())["datasets"]) == 2
    assert "2 datasets" in call("datasets", tmp_path / "all")[1]


def test_info_of_this_installation(call):
    code, stdout, _ = call("info")
    assert code == 0
    assert "usable memory" in stdout
    assert "kernel cache" in one_object(call("info", "--json")[1])


def test_help_and_version(call):
    code, stdout, stderr = call("--help")
    assert (code, stderr) == (0, "")
    for verb in ("cellucid", "check", "info", "diff", "datasets", "demo"):
        assert verb in stdout
    assert call("--version")[0] == 0
    assert call()[0] == 2


# ---------------------------------------------------------------- options


@pytest.fixture
def given(call, monkeypatch, h5ad, out):
    """What the Python function is called with."""

    def given(*arguments, code=0):
        seen = {}

        def cellucid(source, out, **options):
            from atlaswriter.report import Report

            seen.update(options, source=source, out=out)
            return Report(str(out), "x")

        monkeypatch.setattr(convert, "cellucid", cellucid)
        assert call("cellucid", h5ad, out, *arguments)[0] == code
        return seen

    return given


def test_defaults_are_those_of_the_function(given, h5ad, out):
    from inspect import signature

    defaults = {
        name: parameter.default
        for name, parameter in signature(convert.cellucid).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    seen = given()
    assert (str(seen.pop("source")), str(seen.pop("out"))) == (h5ad, out)
    assert {name: list(v) if isinstance(v, tuple) else v for name, v in defaults.items()} == seen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--quantize 16", {"var_quantization": 16, "obs_continuous_quantization": 16}),
        ("--quantize none", {"var_quantization": None, "obs_continuous_quantization": None}),
        ("--quantize-obs 16", {"var_quantization": 8, "obs_continuous_quantization": 16}),
        ("--quantize 16 --quantize-obs none", {"var_quantization": 16, "obs_continuous_quantization": None}),
        ("--compression 0", {"compression": 0}),
        ("--layer counts --raw", {"layer": "counts", "use_raw": True}),
        ("--genes A,C", {"genes": ["A", "C"]}),
        ("--genes none", {"genes": False}),
        ("--gene-names symbol", {"gene_names": "symbol"}),
        ("--obs a,b --exclude-obs c", {"obs": ["a", "b"], "exclude_obs": ["c"]}),
        ("--embedding X_umap", {"embeddings": ["X_umap"]}),
        ("--embedding X_umap --embedding X_3", {"embeddings": ["X_umap", "X_3"]}),
        ("--embedding 2d=X_umap --embedding 3=X_3", {"embeddings": {"2d": "X_umap", "3": "X_3"}}),
        ("--latent none --vectors none --graph none", {"latent": False, "vector_fields": False, "graph": False}),
        ("--latent X_pca --vectors v,w --graph g", {"latent": "X_pca", "vector_fields": ["v", "w"], "graph": "g"}),
        (
            "--quantizer truncate --categorical-dtype uint16",
            {"quantizer": "truncate", "obs_categorical_dtype": "uint16"},
        ),
        (
            "--centroid-quantile 0.9 --centroid-min-points 5",
            {"centroid_outlier_quantile": 0.9, "centroid_min_points": 5},
        ),
        ("--make-unique --merge-equal-categories", {"make_unique": True, "merge_equal_categories": True}),
        ("--name n --id i --description d", {"dataset_name": "n", "dataset_id": "i", "dataset_description": "d"}),
        ("--source-name s --source-url u --source-citation c", {"source_name": "s", "source_url": "u"}),
        ("--created-at then --force", {"created_at": "then", "force": True}),
        ("-M 4GiB -j 3", {"memory_budget": "4GiB", "workers": 3}),
        ("--max-memory 4GiB --workers 3 --no-progress", {"memory_budget": "4GiB", "workers": 3, "progress": False}),
        ("--progress", {"progress": True}),
    ],
)
def test_options(given, words, expected):
    seen = given(*words.split())
    assert {name: seen[name] for name in expected} == expected


def test_lists_from_files(given, tmp_path):
    (tmp_path / "genes.txt").write_text("A\n\n  B,2 \nβ\n", encoding="utf-8")
    assert given("--genes", f"@{tmp_path / 'genes.txt'}")["genes"] == ["A", "B,2", "β"]
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfA\r\nB\r\n")
    assert given("--obs", f"@{tmp_path / 'windows.txt'}")["obs"] == ["A", "B"]
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    given("--genes", f"@{tmp_path / 'binary'}", code=2)


def test_resources_from_the_environment(given, monkeypatch):
    monkeypatch.setenv("ATLASWRITER_MEMORY_BUDGET", "3GiB")
    monkeypatch.setenv("ATLASWRITER_WORKERS", "2")
    seen = given()
    assert (seen["memory_budget"], seen["workers"]) == ("3GiB", 2)


@pytest.mark.parametrize(
    "words",
    [
        ["--embedding", "2d=X_umap", "--embedding", "X_3"],
        ["--embedding", "2d=X_umap", "--embedding", "2d=X_pca"],
        ["--embedding", "2d=X_umap", "--embedding", "2=X_umap"],
        ["--embedding", "9d=X_umap"],
        ["--embedding", "=X_umap"],
        ["--embedding", "2d="],
    ],
)
def test_wrong_embeddings(call, h5ad, out, words):
    code, _, stderr = call("cellucid", h5ad, out, *words)
    assert code in (2, 3)
    assert "embedding" in stderr
    assert not os.path.exists(out)


def test_embedding_forms_end_to_end(call, h5ad, tmp_path):
    from atlaswriter import open_export

    for number, words in enumerate((["X_3", "X_umap"], ["3d=X_3", "2d=X_umap"])):
        target = tmp_path / str(number)
        arguments = [word for key in words for word in ("--embedding", key)]
        assert call("cellucid", h5ad, target, *arguments)[0] == 0
        assert list(open_export(target).dimensions) == [2, 3]


# ---------------------------------------------------------------- true processes


def process(*arguments, **environment):
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


def test_as_a_program(h5ad, out):
    done = process("cellucid", h5ad, out, "--json", "-j", "2")
    assert done.returncode == 0, done.stderr
    assert one_object(done.stdout)["output"] == out
    assert "peak memory" in done.stderr
    checked = process("check", out, "--json")
    assert checked.returncode == 0
    assert one_object(checked.stdout)["ok"] is True


def test_refusal_as_a_program(h5ad, out, tmp_path):
    """On a new machine nobody waits for kernels to be told of a typing error."""
    cache = tmp_path / "cache"
    done = process("cellucid", h5ad, out, "--latent", "nope", "--json", NUMBA_CACHE_DIR=str(cache))
    assert done.returncode == 3
    assert one_object(done.stdout)["ok"] is False
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert len(list(cache.rglob("*.nbc"))) < 8  # of about 20 that the export would need
    assert not os.path.exists(out)


def test_ctrl_c_as_a_program(h5ad, tmp_path):
    """Interrupted while it waits for its source, a pipe that nobody fills."""
    import signal
    import time

    pipe = tmp_path / "pipe.h5ad"
    os.mkfifo(pipe)
    running = subprocess.Popen(
        [PROGRAM, "cellucid", pipe, tmp_path / "out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(2)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stdout == ""
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.h5ad"]
