"""The memory budget waits where it can and refuses, with numbers, where it must."""

import re
import threading
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from atlaswriter import prepare
from atlaswriter.engine import budget
from atlaswriter.engine.budget import Budget
from atlaswriter.errors import BudgetError, InputError


@contextmanager
def drawn(one, size, what):
    """Hold some bytes for a while."""
    one.take(size, what)
    try:
        yield
    finally:
        one.give_back(size)


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """A process that holds 1 GiB on a machine that lets it have 9 GiB."""
    monkeypatch.setattr(budget, "resident_memory", lambda: 2**30)
    monkeypatch.setattr(budget, "usable_memory", lambda: 9 * 2**30)
    monkeypatch.setattr(budget, "_OVERHEAD", 0)


def test_half_of_what_is_free_by_default():
    assert Budget().limit == 5 * 2**30
    assert Budget().free == 4 * 2**30


def test_limit_is_of_the_whole_process():
    assert Budget("3GiB").free == 2 * 2**30
    assert Budget(2**31).free == 2**30
    assert Budget("1MB").free == 0


def test_machine_that_is_full(monkeypatch):
    monkeypatch.setattr(budget, "usable_memory", lambda: 2**20)
    assert Budget().free == 0


def test_nonsense_is_refused():
    with pytest.raises(InputError):
        Budget("lots")


def test_drawing_and_giving_back():
    one = Budget(2**30 + 100)
    with drawn(one, 60, "a"), drawn(one, 40, "b"):
        pass
    with pytest.raises(KeyError), drawn(one, 100, "a"):
        raise KeyError
    with drawn(one, 100, "again"):
        pass


def test_waits_until_enough_is_given_back():
    one = Budget(2**30 + 100)
    one.take(80, "first")
    got = threading.Event()
    waiter = threading.Thread(target=lambda: (one.take(50, "second"), got.set()), daemon=True)
    waiter.start()
    assert not got.wait(0.1)
    one.give_back(40)
    assert got.wait(5)
    waiter.join()


def test_never_more_than_free_is_out():
    one = Budget(2**30 + 100)
    lock, out, most = threading.Lock(), [0], [0]

    def draw(size):
        for _ in range(20):
            with drawn(one, size, "x"):
                with lock:
                    out[0] += size
                    most[0] = max(most[0], out[0])
                time.sleep(0.0005)
                with lock:
                    out[0] -= size

    threads = [threading.Thread(target=draw, args=(size,), daemon=True) for size in (30, 45, 60, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert most[0] == 100  # whoever wants all of it had it, and nobody more
    assert out[0] == 0


def test_refusal_says_what_for_and_how_much():
    with pytest.raises(BudgetError) as caught:
        Budget("2GiB").take(3 * 2**30, "writing genes")
    text = str(caught.value)
    for part in (
        "writing genes needs 3 GiB",
        "budget of 2 GiB",
        "only 1 GiB",
        "the 1 GiB the process",
        "memory_budget=",
    ):
        assert part in text


@pytest.mark.parametrize("size", [1, 1023, 5000, 1_234_567, 2**30 + 4_567_890, 3_333_333_333])
def test_the_number_in_a_refusal_works(size):
    with pytest.raises(BudgetError) as caught:
        Budget(2**30).require(size, "x")
    named = re.search(r"that works is about ([\d.]+ ?\w+)", str(caught.value))[1]
    Budget(named).require(size, "x")


def test_threads_and_the_allocator_need_something_too(monkeypatch):
    monkeypatch.setattr(budget, "_OVERHEAD", 2**20)
    assert Budget("2GiB").free == 2**30 - 2**20
    with pytest.raises(BudgetError, match=r"works is about 1026MiB"):
        Budget("1GiB").require(2**20, "x")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [1, 2])
def test_an_export_that_copies_its_coordinates_ends(tmp_path, workers):
    """Copies are kept for the whole run: genes must not wait for the memory they take."""
    rng = np.random.default_rng(0)
    n_cells, n_genes = 20_000, 60
    points = np.asfortranarray(rng.normal(size=(n_cells, 3)))
    arguments = {
        "latent_space": points,
        "obs": pd.DataFrame({"score": np.zeros(n_cells)}),
        "var": pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]),
        "gene_expression": sp.random_array((n_cells, n_genes), density=0.5, format="csr", dtype=np.float32, rng=rng),
        "X_umap_3d": points,
        "var_quantization": 8,
        "workers": workers,
    }
    with pytest.raises(BudgetError) as caught:
        prepare(**arguments, out_dir=tmp_path / "small", memory_budget=2**30)
    smallest = re.search(r"(\d+MiB) \(memory_budget", str(caught.value))[1]
    report = prepare(**arguments, out_dir=tmp_path / "out", memory_budget=smallest)
    assert report.contents["genes"] == n_genes
