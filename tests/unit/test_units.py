"""Sizes, and what the process may use."""

import os
import resource

import pytest

from atlaswriter import units
from atlaswriter.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GiB", 4 * 2**30),
        ("4 gib", 4 * 2**30),
        ("4Gi", 4 * 2**30),
        ("500MB", 500_000_000),
        ("500 M", 500_000_000),
        (" 1.5 KiB ", 1536),
        ("2k", 2000),
        ("3TiB", 3 * 2**40),
        ("1PB", 10**15),
        ("1024", 1024),
        ("7B", 7),
        (1024, 1024),
    ],
)
def test_parse_bytes(text, expected):
    assert units.parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "1e9", "4 XiB", "4GiB!", 0, -5, "0", "0.0GiB", True, 1.5, None, b"4"]
)
def test_parse_bytes_refuses(text):
    with pytest.raises(InputError) as caught:
        units.parse_bytes(text, "--max-memory")
    assert caught.value.problems[0].where == "--max-memory"
    assert repr(text) in str(caught.value)
    assert "4GiB" in caught.value.problems[0].remedy


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (200 * 2**20, "200 MiB"), (5 * 2**50, "5 PiB")],
)
def test_format_bytes(size, text):
    assert units.format_bytes(size) == text


@pytest.mark.parametrize("power", range(50))
def test_format_bytes_is_right_to_three_digits(power):
    size = 1234567 * 2**power // 2**20 + 1
    assert units.parse_bytes(units.format_bytes(size)) == pytest.approx(size, rel=5e-3)


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine of 64 GiB and 16 CPUs without any limit."""
    monkeypatch.setattr(units, "_CGROUP", tmp_path)
    monkeypatch.setattr(units, "_physical_memory", lambda: 64 * 2**30)
    monkeypatch.setattr(units, "_rlimits", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_nothing_limits(bare):
    assert units.usable_memory() == 64 * 2**30
    assert units.usable_cpus() == 16


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("memory.max", "1073741824\n", 2**30),
        ("memory.max", "max\n", 64 * 2**30),
        ("memory/memory.limit_in_bytes", "2147483648\n", 2 * 2**30),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", 64 * 2**30),
        ("memory.max", "garbage", 64 * 2**30),
    ],
)
def test_cgroup_memory(bare, file, text, expected):
    (bare / file).parent.mkdir(exist_ok=True)
    (bare / file).write_text(text)
    assert units.usable_memory() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("max 100000", 16),
        ("9900000 100000", 16),
        ("", 16),
    ],
)
def test_cgroup_cpus(bare, text, expected):
    (bare / "cpu.max").write_text(text)
    assert units.usable_cpus() == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4 * 2**30),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "3"}, 3 * 2**30),
        ({"SLURM_MEM_PER_CPU": "1024"}, 2**30),
        ({"SLURM_MEM_PER_NODE": "lots"}, 64 * 2**30),
        ({"SLURM_MEM_PER_NODE": "0"}, 64 * 2**30),  # Slurm writes 0 for "all of the node"
    ],
)
def test_slurm(bare, monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert units.usable_memory() == expected


def test_rlimit(monkeypatch, bare):
    monkeypatch.undo()
    monkeypatch.setattr(units, "_physical_memory", lambda: 64 * 2**30)
    real = resource.getrlimit
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (2**28, 2**29) if kind == resource.RLIMIT_AS else real(kind)
    )
    assert units.usable_memory() == 2**28


def test_the_smallest_limit_holds(bare, monkeypatch):
    (bare / "memory.max").write_text(str(8 * 2**30))
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert units.usable_memory() == 2 * 2**30


def test_resident_memory_grows_with_use_and_peak_keeps_it():
    before = units.resident_memory()
    block = b"x" * (64 * 2**20)
    grown = units.resident_memory() - before
    del block
    assert 50 * 2**20 < grown < 100 * 2**20
    assert units.peak_memory() >= before + 50 * 2**20
