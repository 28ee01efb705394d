"""`check` of DeepCell Label projects: sound ones are clean, and every planted fault is found by its rule."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import tifffile
from tests.deepcell_projects import ome_xml, tiff, write_project

from atlaswriter.formats.deepcell.check import check
from atlaswriter.formats.deepcell.convert import deepcell

CHANNELS, FEATURES, FRAMES, HEIGHT, WIDTH = 2, 2, 3, 17, 23
CELLS, TYPES, DIVISIONS = "cells.json", "cellTypes.json", "divisions.json"
IMAGES = ("X.ome.tiff", "y.ome.tiff")


def image(dtype="uint16"):
    rng = np.random.default_rng(1)
    values = rng.normal(0, 9, (CHANNELS, FRAMES, HEIGHT, WIDTH)) if dtype == "float32" else None
    return (
        rng.integers(0, 99, (CHANNELS, FRAMES, HEIGHT, WIDTH)).astype(dtype) if values is None else values.astype(dtype)
    )


def labels():
    """Cell 1 in frame 0, its daughters 2 and 3 in frames 1 and 2, where 9 is the overlap of both; in both features."""
    y = np.zeros((FEATURES, FRAMES, HEIGHT, WIDTH), np.int32)
    y[:, 0, 2:9, 3:9] = 1
    y[:, 1:, 2:9, 3:9] = 2
    y[:, 1:, 6:12, 6:15] = 3
    y[:, 1:, 6:9, 6:9] = 9
    return y


def rows():
    found = []
    for t in range(FRAMES):
        for c in range(FEATURES):
            pairs = [(1, 1)] if t == 0 else [(2, 2), (3, 3), (2, 9), (3, 9)]
            found += [{"cell": cell, "value": value, "t": t, "c": c} for cell, value in pairs]
    return found


TABLES = {
    CELLS: rows(),
    DIVISIONS: [{"parent": 1, "daughters": [2, 3], "t": 1}],
    TYPES: [{"id": 1, "cells": [1, 2], "color": "#09afAF", "name": "stem", "feature": 0}],
    "embeddings.json": [[0, 0], [1, 2.5], [3, 4], [5, 6]],
}


def described(X, names=("DAPI", "GFP"), order="XYZCT", replace=(), **options):
    """A TIFF, channels outermost; `replace`: pairs of texts of its XML."""
    xml = ome_xml(X.shape, X.dtype, names and names[: len(X)], order)
    for old, new in replace:
        assert old in xml
        xml = xml.replace(old, new)
    pages = X if order == "XYZCT" else X.swapaxes(0, 1)
    return tiff(pages.reshape(-1, *X.shape[2:]), xml, **options)


def sound():
    """Members of a project without a fault."""
    return {
        "X.ome.tiff": described(image()),
        "y.ome.tiff": described(labels(), names=None),
        "spots.csv": "x,y\n1.5,2\n22,3e0\n",
        **{name: json.dumps(table) for name, table in TABLES.items()},
    }


def written(tmp_path, members, stored=IMAGES, **options):
    return write_project(tmp_path / "project.zip", members.items(), stored=stored, **options)


def rules(result):
    return {(finding.severity, finding.rule) for finding in result.findings}


def test_a_sound_project_is_clean(tmp_path):
    path = written(tmp_path, sound())
    result = check(path)
    assert result.findings == []
    assert result.ok
    assert result.files == 7
    with zipfile.ZipFile(path) as archive:
        assert result.bytes == sum(info.compress_size for info in archive.infolist())


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_as_the_original_server_writes_it(tmp_path, dtype, workers):
    """Frames outermost, everything deflated, whole pages as strips; null for embeddings."""

    def as_zcyx(array, names):
        buffer = io.BytesIO()
        metadata = {"axes": "ZCYX", **({"Channel": {"Name": list(names)}} if names else {})}
        options = {"compression": "zlib", "photometric": "minisblack", "metadata": metadata}
        tifffile.imwrite(buffer, array.swapaxes(0, 1), ome=True, **options)
        return buffer.getvalue()

    members = sound() | {"X.ome.tiff": as_zcyx(image(dtype), ("a", "b")), "y.ome.tiff": as_zcyx(labels(), None)}
    members["embeddings.json"] = "null"
    result = check(written(tmp_path, members, stored=()), workers=workers)
    assert result.findings == []


@pytest.mark.parametrize("options", [{"predictor": True}, {"share": True}, {"rows": 1}, {"order": "XYCZT"}])
def test_other_ways_to_store_pixels_are_clean(tmp_path, options):
    members = sound() | {"X.ome.tiff": described(image(), **options)}
    members["y.ome.tiff"] = described(labels(), names=None, **options)
    assert check(written(tmp_path, members)).findings == []


def test_an_export_of_the_original_is_clean(tmp_path):
    members = sound() | {"channels.json": '["a", "b"]'}
    del members["embeddings.json"], members["spots.csv"]
    assert check(written(tmp_path, members)).findings == []


def with_table(name, change):
    """A change of one of the tables, as text again."""

    def mutate(members):
        table = json.loads(members[name])
        change(table)
        members[name] = json.dumps(table)

    return mutate


def with_row(**values):
    return with_table(CELLS, lambda table: table.append({"cell": 1, "value": 1, "t": 0, "c": 0} | values))


def with_image(**options):
    return lambda members: members.update({"X.ome.tiff": described(image(), **options)})


def with_xml(*replace):
    return with_image(replace=replace)


def with_pages(pages):
    X = image()
    return with_text("X.ome.tiff", tiff(X.reshape(-1, HEIGHT, WIDTH)[pages], ome_xml(X.shape, X.dtype)))


def with_pixels(dtype, value):
    def mutate(members):
        X = image(dtype)
        X[1, 2, 3, 4] = value
        members["X.ome.tiff"] = described(X)

    return mutate


def with_labels(change, dtype=np.int32):
    def mutate(members):
        y = labels().astype(dtype)
        changed = change(y)
        members["y.ome.tiff"] = described(y if changed is None else changed, names=None)

    return mutate


def set_at(c, t, value):
    return lambda y: y.__setitem__((c, t, slice(14, 16), slice(1, 4)), value)


def with_text(name, text):
    return lambda members: members.update({name: text})


def with_bytes(old, new, name="X.ome.tiff"):
    """Another tag in the TIFF, or another part of it."""

    def mutate(members):
        assert old in members[name]
        members[name] = members[name].replace(old, new)

    return mutate


def tag(number, kind, value):
    return struct.pack("<HHII", number, kind, 1, value)


def scattered(table):
    """Rows of value 9 in frame 1, feature 0 with those of others between."""
    place = [row for row in table if (row["t"], row["c"]) == (1, 0)]
    rest = [row for row in table if row not in place]
    table[:] = [*rest, *(place[number] for number in (2, 0, 1, 3))]


def low_code(table):
    """Value 2 of cells 2 and 3 in frame 1 of both features, below cell 3."""
    table[:] = [row for row in table if row["t"] != 1 or row["value"] != 2]
    table += [{"cell": cell, "value": 2, "t": 1, "c": c} for c in range(FEATURES) for cell in (2, 3)]


def other_meaning(table):
    """Values 2 and 3 of frame 2 are exchanged in feature 1."""
    for row in table:
        if (row["t"], row["c"]) == (2, 1) and row["value"] != 9:
            row["cell"] = 5 - row["cell"]


E, W = "error", "warning"
FAULTS = {
    "no X": (lambda m: m.pop("X.ome.tiff"), [(E, "zip.missing")]),
    "no y": (lambda m: m.pop("y.ome.tiff"), [(E, "zip.missing")]),
    "no cells": (lambda m: m.pop(CELLS), [(E, "zip.missing")]),
    "no divisions": (lambda m: m.pop(DIVISIONS), [(E, "zip.missing")]),
    "no types": (lambda m: m.pop(TYPES), [(E, "zip.missing")]),
    "another image": (lambda m: m.update({"z.ome.tiff": b"x"}), [(E, "zip.image")]),
    "an image of macOS": (lambda m: m.update({"__MACOSX/._X.ome.tiff": b"x"}), [(E, "zip.image")]),
    "something else": (lambda m: m.update({"notes.txt": "x"}), [(W, "zip.unknown")]),
    "a path": (lambda m: m.update({"../notes.txt": "x"}), [(E, "zip.member")]),
    "no TIFF": (with_text("X.ome.tiff", b"nothing"), [(E, "tiff.unreadable")]),
    "no bytes": (with_text("X.ome.tiff", b""), [(E, "tiff.unreadable")]),
    "BigTIFF": (with_image(big=True), [(W, "tiff.big")]),
    "no XML": (with_text("X.ome.tiff", tiff(image()[0], "")), [(E, "tiff.xml")]),
    "XML cut short": (with_xml(("</OME>", "")), [(E, "tiff.xml")]),
    "entities": (
        with_xml(('<?xml version="1.0" encoding="UTF-8"?>', "<!DOCTYPE a [<!ENTITY b 'c'>]>")),
        [(E, "tiff.xml")],
    ),
    "prefixes": (
        with_xml(("<OME xmlns=", "<o:OME xmlns:o="), ("</OME>", "</o:OME>")),
        [(E, "tiff.xml")],
    ),
    "two images": (
        with_xml(("</Image>", '</Image><Image ID="Image:1"><Pixels/></Image>')),
        [(E, "tiff.images")],
    ),
    "no image": (with_xml(("<Pixels ", "<Pixel "), ("</Pixels>", "</Pixel>")), [(E, "tiff.xml")]),
    "two time points": (with_xml(('SizeT="1"', 'SizeT="2"')), [(E, "tiff.time")]),
    "no order": (with_xml(('DimensionOrder="XYZCT" ', "")), [(E, "tiff.order")]),
    "unknown order": (with_xml(("XYZCT", "XYZCZ")), [(E, "tiff.xml")]),
    "no width": (with_xml(('SizeX="23"', "")), [(E, "tiff.order")]),
    "TiffData of another order": (
        with_xml(("<TiffData/>", '<TiffData IFD="0" FirstC="1"/><TiffData IFD="3" PlaneCount="3"/>')),
        [(E, "tiff.order")],
    ),
    "TiffData of another file": (
        with_xml(("<TiffData/>", '<TiffData IFD="0"><UUID FileName="a.tif">b</UUID></TiffData>')),
        [(E, "tiff.order")],
    ),
    "too few pages": (with_pages(slice(None, -1)), [(E, "tiff.pages")]),
    "too many pages": (with_pages([0, 0, 1, 2, 3, 4, 5]), [(E, "tiff.pages")]),
    "a channel too many": (with_xml(("<TiffData/>", '<Channel ID="3"/><TiffData/>')), [(E, "tiff.channels")]),
    "a channel without attributes": (
        with_xml(('<Channel ID="Channel:0:1" SamplesPerPixel="1" Name="GFP">', "<Channel>")),
        [(E, "tiff.channels")],
    ),
    "interleaved": (with_xml(("<Pixels ", '<Pixels Interleaved="true" ')), [(E, "tiff.interleaved")]),
    "another width": (with_xml(('SizeX="23"', 'SizeX="24"')), [(E, "tiff.size"), (E, "labels.size")]),
    "type of XML": (with_xml(('"uint16"', '"uint8"')), [(E, "tiff.type")]),
    "bit": (with_xml(('"uint16"', '"bit"')), [(E, "tiff.type")]),
    "zstd": (with_bytes(tag(259, 3, 8), tag(259, 3, 50000)), [(E, "tiff.compression")]),
    "fill order": (with_bytes(tag(277, 3, 1), tag(266, 3, 2)), [(E, "tiff.compression")]),
    "colours": (with_bytes(tag(277, 3, 1), tag(277, 3, 3)), [(E, "tiff.samples")]),
    "12 bit": (with_bytes(tag(258, 3, 16), tag(258, 3, 12)), [(E, "tiff.samples")]),
    "predictor": (with_bytes(tag(317, 3, 1), tag(317, 3, 3)), [(E, "tiff.predictor")]),
    "strips too few": (with_bytes(tag(278, 4, 7), tag(278, 4, 2)), [(E, "tiff.strips")]),
    "strips of no rows": (with_bytes(tag(278, 4, 7), tag(278, 4, 0)), [(E, "tiff.strips")]),
    "strips too long": (with_bytes(tag(278, 4, 7), tag(278, 4, 17)), [(E, "tiff.strips")]),
    "a strip damaged": (
        lambda m: m.update({"X.ome.tiff": m["X.ome.tiff"][:30] + b"????" + m["X.ome.tiff"][34:]}),
        [(E, "tiff.strips")],
    ),
    "pages of a bomb": (with_bytes(tag(257, 4, 17), tag(257, 4, 2**32 - 1)), [(E, "tiff.strips"), (E, "tiff.size")]),
    "negative int16": (with_pixels("int16", -1), [(W, "image.negative")]),
    "not finite": (with_pixels("float32", np.nan), [(W, "image.finite")]),
    "equal names": (with_image(names=("a", "a")), [(W, "names.unique")]),
    **{
        f"name {name!r}": (with_image(names=(name, "b")), [(W, "names.changed")])
        for name in ("a&b", "a<b", "007", "1e3", "0x1F", "1.50", "+5", "e5", "true", " a")
    },
    "labels of uint16": (with_labels(lambda y: None, np.uint16), [(E, "labels.dtype")]),
    "negative labels": (with_labels(set_at(0, 1, -7)), [(E, "labels.negative")]),
    "labels without a row": (with_labels(set_at(0, 1, 7)), [(E, "labels.unnamed")]),
    "more frames": (with_labels(lambda y: np.concatenate([y, 0 * y[:, :1]], 1)), [(E, "labels.size")]),
    "cells are no list": (with_text(CELLS, '{"a": 1}'), [(E, "cells.rows")]),
    "cells are no JSON": (with_text(CELLS, "[{]"), [(E, "cells.rows")]),
    "cells are text": (with_row(cell="1"), [(E, "cells.rows")]),
    "cell 0": (with_row(cell=0), [(E, "cells.rows")]),
    "a frame too late": (with_row(t=FRAMES), [(E, "cells.range")]),
    "a feature too many": (with_row(c=FEATURES), [(E, "cells.range")]),
    "no c": (with_table(CELLS, lambda table: table.append({"cell": 1, "value": 1, "t": 0})), [(E, "cells.feature")]),
    "a row twice": (with_row(), [(E, "cells.repeated")]),
    "a value that is not there": (with_row(value=4), [(W, "cells.absent")]),
    "rows apart": (with_table(CELLS, scattered), [(W, "cells.adjacent")]),
    "a code too low": (with_table(CELLS, low_code), [(E, "cells.code")]),
    "another meaning": (with_table(CELLS, other_meaning), [(W, "cells.mixed")]),
    "divisions are no list": (with_text(DIVISIONS, "null"), [(E, "divisions.rows")]),
    "a division in frame 0": (
        with_table(DIVISIONS, lambda table: table[0].update(t=0)),
        [(E, "divisions.wrong"), (W, "divisions.odd")],
    ),
    "a division behind the end": (
        with_table(DIVISIONS, lambda table: table[0].update(t=FRAMES)),
        [(E, "divisions.wrong")],
    ),
    "one daughter": (with_table(DIVISIONS, lambda table: table[0].update(daughters=[2])), [(W, "divisions.odd")]),
    "a type without a color": (with_table(TYPES, lambda table: table[0].pop("color")), [(E, "types.rows")]),
    "a type of no feature": (with_table(TYPES, lambda table: table[0].update(feature=5)), [(E, "types.wrong")]),
    "a type of other cells": (with_table(TYPES, lambda table: table[0].update(cells=[77])), [(W, "types.odd")]),
    "vectors of text": (with_text("embeddings.json", '[["a"]]'), [(E, "embeddings.rows")]),
    "too few vectors": (with_text("embeddings.json", "[[0], [1]]"), [(W, "embeddings.short")]),
    "a spot outside": (with_text("spots.csv", "x,y\n24,1\n"), [(E, "spots.rows")]),
    "spots without names": (with_text("spots.csv", "1,2\n3,4\n"), [(E, "spots.rows")]),
    "spots by other names": (with_text("spots.csv", "a,b\n3,4\n"), [(W, "spots.header")]),
    "spots without an end": (with_text("spots.csv", "x,y\n1,2\n3,4"), [(E, "spots.end")]),
    "spots with a blank line": (with_text("spots.csv", "x,y\n1,2\n\n"), [(W, "spots.blank")]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_by_its_rule(tmp_path, name):
    mutate, expected = FAULTS[name]
    members = sound()
    mutate(members)
    assert rules(check(written(tmp_path, members))) == {*expected}


def test_several_faults_are_found_at_once(tmp_path):
    names = [
        "equal names",
        "labels without a row",
        "a row twice",
        "one daughter",
        "spots without an end",
        "something else",
    ]
    members = sound()
    for name in names:
        FAULTS[name][0](members)
    result = check(written(tmp_path, members))
    assert rules(result) == {fault for name in names for fault in FAULTS[name][1]}
    assert [finding.severity for finding in result.findings] == sorted(finding.severity for finding in result.findings)
    assert not result.ok


@pytest.mark.parametrize("name", ["488", "-3", "1.5", "123456789", "0.25", "e", "Ünïcödé", "12a", "it's", "null"])
def test_names_that_the_client_shows_as_they_are(tmp_path, name):
    members = sound()
    with_image(names=("a>b", name), replace=[("a&gt;b", "a>b")])(members)
    assert check(written(tmp_path, members)).findings == []


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "text").write_text("nothing")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    for name in ("text", "empty", "folder", "missing", "not\x00possible"):
        assert rules(check(tmp_path / name)) == {(E, "zip.unreadable")}, name


def content_range(path, name):
    """Where in the zip the bytes of a member are."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return start, start + info.compress_size


@pytest.mark.parametrize("stored", [IMAGES, ()])
def test_every_altered_byte_of_a_member_is_found(tmp_path, stored):
    path = written(tmp_path, sound() | {"channels.json": "[]", "other.bin": b"12345"}, stored=stored)
    content, rng = path.read_bytes(), np.random.default_rng(2)
    for name in zipfile.ZipFile(path).namelist():
        for place in rng.integers(*content_range(path, name), 4):
            damaged = bytearray(content)
            damaged[place] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            found = [finding for finding in check(path, workers=1).findings if finding.severity == E]
            assert [(finding.rule, finding.file) for finding in found] == [("zip.crc", name)], (name, place)
        path.write_bytes(content)


def test_truncation_anywhere_is_found(tmp_path):
    path = written(tmp_path, sound())
    content = path.read_bytes()
    for size in [*range(0, len(content), len(content) // 40), *range(len(content) - 25, len(content))]:
        path.write_bytes(content[:size])
        assert rules(check(path, workers=1)) == {(E, "zip.unreadable")}, size


def test_random_bytes_anywhere_never_raise(tmp_path):
    path = written(tmp_path, sound())
    content, rng = path.read_bytes(), np.random.default_rng(3)
    for _ in range(60):
        damaged = bytearray(content)
        # Half of them in what ends the file, the list of members.
        first = len(content) - 700 if rng.integers(2) else 0
        damaged[rng.integers(first, len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        check(path, workers=1)


def test_random_bytes_of_a_tiff_never_raise(tmp_path):
    """The CRC is right, as whoever means harm makes it."""
    rng, members = np.random.default_rng(4), sound()
    whole = dict(members)
    for number in range(120):
        name = IMAGES[number % 2]
        damaged = bytearray(whole[name])
        # Pages and XML are at the end.
        for place in rng.integers(len(damaged) - 2200, len(damaged), 2):
            damaged[place] = rng.integers(256)
        check(written(tmp_path, whole | {name: bytes(damaged)}), workers=1)


def test_pages_that_lead_in_a_circle_end(tmp_path):
    members = sound()
    content = bytearray(members["X.ome.tiff"])
    (first,) = struct.unpack_from("<I", content, 4)
    (n,) = struct.unpack_from("<H", content, first)
    struct.pack_into("<I", content, first + 2 + 12 * n, first)
    members["X.ome.tiff"] = bytes(content)
    assert (E, "tiff.pages") in rules(check(written(tmp_path, members)))


def test_hostile_zips(tmp_path):
    path = written(tmp_path, sound())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(CELLS, "[]")
    assert rules(check(path)) == {(E, "zip.member")}
    written(tmp_path, sound())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("more.txt", "x")
    assert rules(check(path)) == {(E, "zip.member")}


def test_a_bomb_among_the_members_is_not_unpacked_whole(tmp_path):
    """Zeros without end behind a small declared size, and a table that is larger than can be."""
    path = written(tmp_path, sound() | {"other.bin": bytes(1 << 22)})
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2")
    struct.pack_into("<I", content, at + 24, 1000)
    path.write_bytes(content)
    assert (E, "zip.crc") in rules(check(path))


def test_strips_that_claim_more_than_they_hold_take_no_memory(tmp_path):
    """A strip of a few bytes that inflates to 4 MB, where 400 MB are declared."""
    X = np.zeros((1, 1, 2048, 2048), np.uint8)
    written_small = tiff(X[0], ome_xml((1, 1, 20480, 20480), "uint8"), rows=2048)
    large = written_small.replace(tag(257, 4, 2048), tag(257, 4, 20480)).replace(tag(256, 4, 2048), tag(256, 4, 20480))
    large = large.replace(tag(278, 4, 2048), tag(278, 4, 20480))
    assert large != written_small
    result = check(written(tmp_path, sound() | {"X.ome.tiff": large}))
    assert (E, "tiff.strips") in rules(result)


def test_limits_of_what_is_read(tmp_path, monkeypatch):
    path = written(tmp_path, sound(), stored=())
    with monkeypatch.context() as patch:
        patch.setattr("atlaswriter.formats.deepcell.layout.MOST_TABLE_BYTES", 100)
        assert rules(check(path)) == {(E, "zip.size")}
    with monkeypatch.context() as patch:
        patch.setattr("atlaswriter.formats.deepcell.rules_members.LIMIT", 500)
        assert rules(check(path)) == {(W, "zip.large")}
    with monkeypatch.context() as patch:
        patch.setattr("atlaswriter.sources.unpacked.shutil.disk_usage", lambda _: type("Disk", (), {"free": 9}))
        assert rules(check(path)) == {(E, "zip.room")}
    assert rules(check(path)) == set()


def test_an_image_in_place_of_labels(tmp_path, monkeypatch):
    monkeypatch.setattr("atlaswriter.formats.deepcell.values._FEWEST_SLOTS", 8)
    monkeypatch.setattr("atlaswriter.formats.deepcell.values._MOST_VALUES", 16)
    members = sound() | {"y.ome.tiff": described(image("int32"), names=None)}
    assert rules(check(written(tmp_path, members))) == {(E, "labels.values")}


def test_temporary_files_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = written(tmp_path, sound(), stored=())
    assert check(path).findings == []
    FAULTS["no XML"][0](members := sound())
    check(written(tmp_path, members, stored=()))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def submitted():
    """Labels of two features with overlaps, as they are given."""
    y = np.moveaxis(labels(), 0, -1)
    return {name: json.dumps(table) for name, table in TABLES.items()} | {"y.npy": y, "spots.csv": "x,y\n1,2"}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("image_dtype", ["uint8", "keep"])
@pytest.mark.parametrize("with_labels", [False, True])
def test_what_we_write_is_clean(tmp_path, dtype, image_dtype, with_labels):
    given = None
    if with_labels:
        given = tmp_path / "labels.zip"
        members = submitted()
        buffer = io.BytesIO()
        np.save(buffer, members["y.npy"])
        write_project(given, (members | {"y.npy": buffer.getvalue()}).items())
    options = {"axes": "CTYX", "image_dtype": image_dtype, "channel_names": ["DAPI", "GFP"]}
    deepcell(image(dtype), tmp_path / "out.zip", given, label_axes="TYXC" if given else None, **options)
    result = check(tmp_path / "out.zip")
    assert result.findings == []
    assert result.files == (7 if with_labels else 6)
