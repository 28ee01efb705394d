"""The largest resident size of whole LandscapeFiles exports stays under the budget, whatever the number of transcripts.

Bundles are written block by block; each export is a process of its own, which says what it took.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.bundles import make_bundle

MIB = 1 << 20
SIZES = 1, 4
# What two processes that load the same libraries hold may differ by some pages.
MARGIN = 4 * MIB
BLOCK = 250_000


def big_bundle(folder, *, transcripts, cells=2000, edge=2000, outlier=None, image=None, sorted_by_place=True, genes=60):
    """A bundle over a square of `edge` pixels (coordinates are pixels) with so many transcripts and cells."""
    height, width = image or (64, 64)
    truth = make_bundle(
        folder, n_cells=3, n_genes=genes, n_transcripts=5, image=(height, width), channels=1, transform="csv",
        controls=False, matrix="h5", levels=0,
    )  # fmt: skip
    (folder / "micron_to_image_transform.csv").write_text("1 0 0\n0 1 0\n0 0 1\n")
    rng = np.random.default_rng(0)
    names = pa.array(truth.features)
    texts, numbers = ("cell_id", "feature_name"), ("x_location", "y_location", "qv")
    schema = pa.schema([*((name, pa.string()) for name in texts), *((name, pa.float32()) for name in numbers)])
    with pq.ParquetWriter(folder / "transcripts.parquet", schema, use_dictionary=["feature_name", "cell_id"]) as file:
        n_blocks = -(-transcripts // BLOCK)
        for block in range(n_blocks):
            n = min(BLOCK, transcripts - block * BLOCK)
            xy = rng.uniform(0, edge, (2, n)).astype("f4")
            if sorted_by_place:
                # As of instruments: what is together in the file is near each other.
                xy[0] = (block + rng.random(n)) * edge / n_blocks
            if outlier is not None and block % 2 == 0:
                xy[:, 7] = outlier
            text = names.take(pa.array(rng.integers(0, len(names), n)))
            columns = [pa.array(["UNASSIGNED"] * n), text, *xy, rng.uniform(0, 40, n).astype("f4")]
            file.write_batch(pa.record_batch(columns, schema=schema))
    # Those of the matrix come first.
    ids = [*truth.cells, *(f"cell{k:08d}-1" for k in range(len(truth.cells), cells))][:cells]
    centers = rng.uniform(10, edge - 10, (cells, 2))
    table = pa.table({"cell_id": ids, "x_centroid": centers[:, 0], "y_centroid": centers[:, 1]})
    pq.write_table(table, folder / "cells.parquet")
    angle = np.linspace(0, 2 * np.pi, 13)
    vertices = centers[:, None] + 6 * np.column_stack([np.cos(angle), np.sin(angle)])
    rows = pa.array(np.repeat(np.arange(cells), 13))
    x, y = (vertices[..., axis].ravel() for axis in (0, 1))
    table = pa.table({"cell_id": pa.array(ids).take(rows), "vertex_x": x, "vertex_y": y})
    pq.write_table(table, folder / "cell_boundaries.parquet", row_group_size=1 << 20)
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Gives the folder of a bundle, made on first use; all are deleted at the end."""
    home, known = tmp_path_factory.mktemp("big-bundles"), {}

    def get(**recipe):
        key = json.dumps(recipe)
        if key not in known:
            known[key] = big_bundle(home / str(len(known)), **recipe)
        return known[key]

    yield get
    shutil.rmtree(home)


def landscape(export, bundle, **options):
    """What the process says of an export, and `digest` of all files."""
    found = export("landscape", bundle, options={"workers": 2, **options})
    return {**found, "digest": digest(found["out"])}


def digest(folder):
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        if path.is_file():
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def named(refusal):
    """The budget that a refusal says would do."""
    return int(re.search(r"smallest budget that works is about (\d+)MiB", refusal)[1])


def smallest_budget(export, bundle, **options):
    """What the refusal of a budget that is too small says would do, and a little more."""
    return named(landscape(export, bundle, memory_budget=1, **options)["refused"]) * MIB + MARGIN


CASES = {
    "loose": {},
    "row groups": {"row_groups": True},
    "compat, one worker": {"compat": True, "workers": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_peak_stays_under_the_budget(case, process, bundles, record_property):
    """The smallest budget does for four times the transcripts too, which would not fit into it: they are spilled."""
    options = CASES[case]
    folders = {size: bundles(transcripts=3_000_000 * size, cells=4000 * size) for size in SIZES}
    with process() as export:
        budget = smallest_budget(export, folders[4], **options)
        large = landscape(export, folders[4], memory_budget=budget, **options)
        roomy = landscape(export, folders[4], memory_budget="6GiB", **options)
    with process() as export:
        found = {1: landscape(export, folders[1], memory_budget=budget, **options), 4: large}
    assert not [one["refused"] for one in found.values() if "refused" in one]
    record_property("peaks", {"budget": budget // MIB, **{size: one["peak"] // MIB for size, one in found.items()}})
    assert max(one["peak"] for one in found.values()) <= budget
    # Below the budget, as above; the smaller one may leave some of it unused (1.00 to 1.103 were seen).
    assert found[4]["peak"] <= 1.15 * found[1]["peak"]
    assert found[4]["spilled"] > 12_000_000
    assert found[4]["contents"]["transcripts"] == 12_000_000
    assert roomy["spilled"] == 0
    assert roomy["digest"] == found[4]["digest"]
    assert abs(found[4]["said"] - found[4]["peak"]) < MIB


def test_transcripts_in_no_order(process, bundles):
    """Every part of the source touches every tile: keys of parts in temporary files are memory too."""
    folders = {size: bundles(transcripts=1_000_000 * size, edge=6000, sorted_by_place=False) for size in SIZES}
    options = {"strategy": "spill", "tile_size": 60, "row_groups": True}
    with process() as export:
        budget = smallest_budget(export, folders[4], **options)
        large = landscape(export, folders[4], memory_budget=budget, **options)
    with process() as export:
        found = {1: landscape(export, folders[1], memory_budget=budget, **options), 4: large}
    assert not [one["refused"] for one in found.values() if "refused" in one]
    assert max(one["peak"] for one in found.values()) <= budget


def test_an_outlier_costs_no_memory(process, bundles):
    """A transcript far away makes the box of tiles huge, not the memory."""
    folder = bundles(transcripts=1_000_000, outlier=900_000.0)
    with process() as export:
        budget = smallest_budget(export, folder)
        found = landscape(export, folder, memory_budget=budget)
    assert found["peak"] <= budget
    assert found["contents"]["transcripts"] == 1_000_000


@pytest.mark.parametrize("compat", [False, True])
def test_all_transcripts_in_one_tile(compat, process, bundles):
    """A tile is written as a whole: it fits in the budget, or the refusal says what would do, and that does."""
    folder = bundles(transcripts=12_000_000, cells=16_000)
    options = {"tile_size": 1 << 20, "compat": compat}
    with process() as export:
        budget = smallest_budget(export, folder, **options)
        found = landscape(export, folder, memory_budget=budget, **options)
    with process() as export:
        if "refused" in found:
            assert "smallest budget that works is about" in found["refused"], found["refused"]
            budget = named(found["refused"]) * MIB + MARGIN
            found = landscape(export, folder, memory_budget=budget, **options)
        roomy = landscape(export, folder, memory_budget="8GiB", **options)
    assert "refused" not in found, found["refused"]
    assert found["peak"] <= budget
    assert roomy["digest"] == found["digest"]
    assert roomy["peak"] <= 8 << 30


def test_many_cells(process, bundles):
    """Outlines are spilled too."""
    folder = bundles(transcripts=1000, cells=200_000, edge=6000)
    with process() as export:
        budget = smallest_budget(export, folder)
        found = landscape(export, folder, memory_budget=budget)
        roomy = landscape(export, folder, memory_budget="6GiB")
    assert found["peak"] <= budget
    assert found["contents"]["outlines"] == 200_000
    assert (roomy["spilled"], roomy["digest"]) == (0, found["digest"])


def test_a_large_image(process, bundles):
    folder = bundles(transcripts=1000, image=(7000, 7000), edge=7000)
    with process() as export:
        budget = smallest_budget(export, folder)
        found = landscape(export, folder, memory_budget=budget)
    assert found["peak"] <= budget
    assert budget < 500 * MIB


@pytest.mark.parametrize(("strategy", "workers"), [("auto", 2), ("memory", 1), ("spill", 2)])
def test_too_small_a_budget_names_one_that_works(strategy, workers, process, bundles):
    folder = bundles(transcripts=1_000_000, cells=4000)
    options = {"strategy": strategy, "workers": workers}
    with process() as export:
        refusal = landscape(export, folder, memory_budget="64MiB", **options)
        assert refusal["digest"] == digest(Path("/nowhere"))
        budget = named(refusal["refused"]) * MIB
        again = landscape(export, folder, memory_budget=budget - 40 * MIB, **options)
        assert "refused" in again
    with process() as export:
        found = landscape(export, folder, memory_budget=budget + MARGIN, **options)
    assert "refused" not in found
    assert found["peak"] <= budget + MARGIN
