"""Tables in files of every kind, whole, wrong and damaged."""

import contextlib
import gzip
import threading

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaswriter.errors import InputError
from atlaswriter.sources import csvtable, packed, tables
from atlaswriter.sources.tables import TEXT, numbers, open_table, read_all, texts

NAMES = ["NA", "nan", "", "Zeb2", "aaa", "β-catenin", 'a "quoted", one', "NULL", "1e5", "Zeb2"]
N = 1000


def example():
    rng = np.random.default_rng(1)
    names = pa.array([NAMES[i] for i in rng.integers(0, len(NAMES), N)])
    x = rng.normal(0, 1e4, N)
    x[3] = np.nan
    return pa.table({"extra": np.arange(N), "gene": names, "x": x, "id": rng.integers(1, 2**53, N)})


def parquet(table, path, **options):
    pq.write_table(table, path, row_group_size=300, **options)


def parts(table, path):
    path.mkdir()
    (path / "_metadata").write_bytes(b"")
    for k in range(11):  # so that part.10 sorts behind part.2
        pq.write_table(table.slice(k * 100, 100), path / f"part.{k}.parquet")


def text(table, path, delimiter=",", opener=open, end="\n"):
    with opener(path, "wb") as file:
        content = pa.BufferOutputStream()
        pacsv.write_csv(table, content, pacsv.WriteOptions(delimiter=delimiter, quoting_style="needed"))
        file.write(content.getvalue().to_pybytes().replace(b"\n", end.encode()))


def stream(table, path):
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)


def dictionaries(table, path):
    kind = pa.dictionary(pa.int16(), pa.large_string())
    stream(table.set_column(1, "gene", table["gene"].cast(pa.large_string()).cast(kind)), path)


KINDS = {
    "parquet": parquet,
    "parquet, zstd": lambda table, path: parquet(table, path, compression="zstd", data_page_version="2.0"),
    "parquet, no dictionary": lambda table, path: parquet(table, path, use_dictionary=False),
    "parquet, binary": lambda table, path: parquet(table.set_column(1, "gene", table["gene"].cast(pa.binary())), path),
    "parquet, large": lambda table, path: parquet(
        table.set_column(1, "gene", table["gene"].cast(pa.large_string())), path
    ),
    "parquet, dictionary": lambda table, path: parquet(
        table.set_column(1, "gene", table["gene"].dictionary_encode()), path
    ),
    "folder": parts,
    "csv": text,
    "csv, crlf": lambda table, path: text(table, path, end="\r\n"),
    "csv.gz": lambda table, path: text(table, path, opener=gzip.open),
    "tsv": lambda table, path: text(table, path, delimiter="\t"),
    "arrow": lambda table, path: pa.feather.write_feather(table, path, chunksize=300, compression="uncompressed"),
    "arrow, lz4": lambda table, path: pa.feather.write_feather(table, path, chunksize=300),
    "stream": stream,
    "stream of dictionaries": dictionaries,
    "stream of views": lambda table, path: stream(
        table.set_column(1, "gene", table["gene"].cast(pa.string_view())), path
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("small", [False, True])
def test_every_kind_of_file_gives_the_same(tmp_path, kind, small, monkeypatch):
    if small:
        monkeypatch.setattr(tables, "BATCH_ROWS", 70)
        monkeypatch.setattr(csvtable, "_BLOCK_BYTES", 512)
        monkeypatch.setattr(csvtable, "_PART_BYTES", 5000)
    whole, path = example(), tmp_path / "table.some"
    KINDS[kind](whole, path)
    table = open_table(path, text=["id"])
    assert table.location == str(path)
    assert table.columns == whole.column_names
    assert table.n_rows in (N, None)
    assert table.n_bytes > 1000
    names, x, ids = read_all(table, ["gene", "x", "id"])
    assert names.to_pylist() == whole["gene"].to_pylist()
    np.testing.assert_allclose(numbers(x, "x", "here"), whole["x"].to_numpy(), rtol=1e-15)
    assert ids.to_pylist() == [str(value) for value in whole["id"].to_pylist()]
    for part in range(table.n_parts):
        for batch in table.batches(part, ["id", "gene"]):
            assert batch.schema.names == ["id", "gene"]
            assert batch.schema.types == [TEXT, TEXT]
            assert batch.num_rows <= tables.BATCH_ROWS
    assert 0 < table.room(["gene", "x"]) < 1 << 26


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "folder", "arrow"])
def test_threads_read_the_same_table(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(csvtable, "_PART_BYTES", 5000)
    KINDS[kind](example(), tmp_path / "table")
    table, found = open_table(tmp_path / "table"), {}

    def read(part):
        found[part] = [row for batch in table.batches(part, ["gene"]) for row in batch.column(0).to_pylist()]

    threads = [threading.Thread(target=read, args=(part,)) for part in range(table.n_parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row for part in range(table.n_parts) for row in found[part]] == example()["gene"].to_pylist()


def test_missing_names_stay_missing_and_missing_numbers_are_nan(tmp_path):
    whole = pa.table({"gene": pa.array(["a", None, "b"]), "n": pa.array([1, None, 3]), "x": pa.array([1.5, None, 2])})
    pq.write_table(whole, tmp_path / "a")
    text(whole, tmp_path / "b")
    for path, names in ((tmp_path / "a", ["a", None, "b"]), (tmp_path / "b", ["a", "", "b"])):
        gene, n, x = read_all(open_table(path), ["gene", "n", "x"])
        assert gene.to_pylist() == names
        np.testing.assert_array_equal(n.to_numpy(), [1, np.nan, 3])
        np.testing.assert_array_equal(x.to_numpy(), [1.5, np.nan, 2])


def test_a_dictionary_that_holds_nothing_among_its_values():
    found = texts(pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["a", None])))
    assert found.to_pylist() == ["a", None, "a"]
    assert found.dictionary.null_count == 0


def test_what_looks_like_numbers_in_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "id,long,ratio,code,entity,negative\n1,123456789012345678901234567890123456789,0.5,007,3110883424764611924,0\n"
        "2,5,,8,5,-9223372036854775808\n"
    )
    table = open_table(path, text=["code"])
    assert read_all(table, ["long"])[0].to_pylist() == ["123456789012345678901234567890123456789", "5"]
    assert read_all(table, ["code"])[0].to_pylist() == ["007", "8"]
    assert read_all(table, ["entity"])[0].to_pylist() == ["3110883424764611924", "5"]
    assert read_all(table, ["negative"])[0].to_pylist() == ["0", "-9223372036854775808"]
    assert texts(read_all(table, ["id"])[0]).to_pylist() == ["1", "2"]
    with pytest.raises(ValueError, match="exact"):
        texts(pa.array([1e17]))
    with pytest.raises(ValueError):
        texts(pa.array([0.5]))


def test_a_byte_order_mark_and_a_nameless_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf,"gene"\r\n0,Zeb2\r\n\r\n1,NA')
    table = open_table(path)
    assert table.columns == ["", "gene"]
    assert read_all(table, ["gene"])[0].to_pylist() == ["Zeb2", "NA"]


@pytest.mark.parametrize("opener", [open, gzip.open])
def test_a_header_without_rows(tmp_path, opener):
    with opener(tmp_path / "a", "wb") as file:
        file.write(b"gene,x\n")
    table = open_table(tmp_path / "a")
    assert [list(table.batches(part, ["gene", "x"])) for part in range(table.n_parts)] == [[]]
    with pytest.raises(InputError, match="no rows"):
        read_all(table, ["gene"])


def test_parquet_without_rows(tmp_path):
    pq.write_table(example().slice(0, 0), tmp_path / "a.parquet")
    table = open_table(tmp_path / "a.parquet")
    assert table.n_rows == 0
    with pytest.raises(InputError, match="no rows"):
        read_all(table, ["gene"])


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "folder", "arrow", "stream"])
def test_columns_that_are_not_there(tmp_path, kind):
    KINDS[kind](example(), tmp_path / "table")
    with pytest.raises(InputError, match=r"here.*no columns 'y', 'z'; it has 'extra', 'gene', 'x', 'id'"):
        list(open_table(tmp_path / "table", "here").batches(0, ["x", "y", "z"]))


def test_a_column_that_is_there_twice(tmp_path):
    (tmp_path / "a.csv").write_text("x,gene,x\n1,a,2\n")
    table = open_table(tmp_path / "a.csv")
    assert read_all(table, ["gene"])[0].to_pylist() == ["a"]
    with pytest.raises(InputError, match="several columns 'x'"):
        read_all(table, ["x"])


def test_text_where_numbers_are_needed(tmp_path):
    parquet(example(), tmp_path / "a")
    column = read_all(open_table(tmp_path / "a"), ["gene"])[0]
    with pytest.raises(InputError, match="here: column 'gene' holds text, not numbers"):
        numbers(column, "gene", "here")


def test_long_integers_as_positions():
    assert numbers(pa.array([2**60 + 1, 3]), "x", "here").tolist() == [2.0**60, 3.0]


def test_text_behind_numbers_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csvtable, "_LONGEST_LINE", 1000)
    (tmp_path / "a.csv").write_text("x,y\n" + "1,2\n" * 1000 + "oops,2\n")
    table = open_table(tmp_path / "a.csv", "transcripts.csv")
    with pytest.raises(InputError, match=r"transcripts.csv.*oops"):
        read_all(table, ["x"])
    assert len(read_all(table, ["y"])[0]) == 1001


@pytest.mark.parametrize("content", [b"gene\n\xff\xfe\n", b"gene,x\na,1\nb\n", b"", b"\n\n", b"gene\n" + b"a" * 3000])
def test_bad_text(tmp_path, content, monkeypatch):
    monkeypatch.setattr(csvtable, "_LONGEST_LINE", 2000)
    monkeypatch.setattr(csvtable, "_BLOCK_BYTES", 500)
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match="here"):
        read_all(open_table(tmp_path / "a.csv", "here"), ["gene"])


def test_names_that_are_not_utf8(tmp_path):
    pq.write_table(pa.table({"gene": pa.array([b"a", b"\xff"])}), tmp_path / "a")
    with pytest.raises(InputError, match="here"):
        read_all(open_table(tmp_path / "a", "here"), ["gene"])


@pytest.mark.parametrize(
    "kind", ["parquet", "parquet, no dictionary", "csv.gz", "arrow", "arrow, lz4", "stream", "folder"]
)
@pytest.mark.parametrize("kept", [0, 3, 10, 0.5, 0.98])
def test_files_that_are_cut_short(tmp_path, kind, kept):
    path = tmp_path / "table.parquet"
    KINDS[kind](example(), path)
    if kind == "folder":
        path /= "part.3.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 1 else int(len(content) * kept)])
    with pytest.raises(InputError, match=r"table\.parquet"):
        read_all(open_table(tmp_path / "table.parquet"), ["gene", "x"])


@pytest.mark.parametrize("kind", ["parquet", "parquet, zstd", "parquet, no dictionary", "csv.gz", "arrow", "stream"])
@pytest.mark.parametrize("seed", range(25))
def test_damage_is_found_or_harmless(tmp_path, kind, seed):
    KINDS[kind](example(), tmp_path / "table")
    rng = np.random.default_rng(seed)
    content = np.frombuffer((tmp_path / "table").read_bytes(), np.uint8).copy()
    content[rng.integers(0, content.size, 3)] = rng.integers(0, 256, 3)
    (tmp_path / "table").write_bytes(content.tobytes())
    with contextlib.suppress(InputError):
        table = open_table(tmp_path / "table")
        for part in range(table.n_parts):
            for batch in table.batches(part, ["gene", "x"]):
                batch.validate(full=True)


def test_nothing_and_no_folder_of_tables(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_table(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="without Parquet files"):
        open_table(tmp_path)


def test_a_damaged_tar(tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(b"no tar" * 1000)
    with pytest.raises(ValueError):
        list(packed.tar_files(tmp_path / "a.tar.gz"))


@given(
    rows=st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0")), st.floats(-1e9, 1e9)), min_size=1
    ),
    block=st.integers(1, 50),
    part=st.integers(1, 300),
)
def test_lines_are_cut_anywhere(tmp_path_factory, rows, block, part):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    text(pa.table({"name": [name for name, _ in rows], "x": [x for _, x in rows]}), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvtable, "_BLOCK_BYTES", block)
        patch.setattr(csvtable, "_PART_BYTES", part)
        names, x = read_all(open_table(path, text=["name"]), ["name", "x"])
    assert names.to_pylist() == [name for name, _ in rows]
    np.testing.assert_allclose(x.to_numpy(), [x for _, x in rows], rtol=1e-15)
