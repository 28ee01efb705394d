"""`deepcell` and its command: options, what is refused and how, what is reported, and what is left behind."""

import functools
import json
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from tests.deepcell_inputs import lineage, npy, npz, project, request, tiff, zipped
from tests.deepcell_truth import Truth, assert_holds, read_project, truth

import atlaswriter as aw
from atlaswriter.cli.main import run
from atlaswriter.errors import BudgetError, InputError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with some inputs of one truth."""
    folder, m = tmp_path_factory.mktemp("inputs"), truth()
    contents = {
        "X.npy": npy(m.X),
        "X_y.npz": npz(X=m.X, y=m.y),
        "y.zip": zipped({"y.npy": npy(m.y)}),
        "project.zip": project(m, "CZYX"),
        "request.zip": request(m),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "project.zip"


def write(images, out, *rest, **options):
    return aw.deepcell(images, out, *rest, **{"progress": False, **options})


def refused(images, out, *rest, **options):
    """What is said against an input; nothing may be left behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(InputError) as caught:
        write(images, out, *rest, **options)
    assert sorted(out.parent.iterdir()) == before
    return caught.value.problems


# ---------------------------------------------------------------- what is said of a project


def test_report(files, out):
    report = write(files / "project.zip", out)
    assert (report.output, report.format, report.files) == (str(out), "deepcell label", 1)
    assert report.bytes_out == out.stat().st_size
    assert report.bytes_in == truth().X.nbytes + truth().y.nbytes
    assert not report.warnings
    found = report.contents
    assert found["images"].startswith(f"{files / 'project.zip'}: X.ome.tiff, axes CZYX")
    assert found["labels"].startswith(f"{files / 'project.zip'}: y.ome.tiff, axes CZYX")
    assert found["frames"] == "4 of 31 × 23 pixels"
    assert found["channels"] == ["DAPI", "CD3", "488"]
    limits = [f"{channel.min()} to {channel.max()}" for channel in np.moveaxis(truth().X, -1, 0)]
    named = ", ".join(f"{name} {limit}" for name, limit in zip(found["channels"], limits, strict=True))
    assert found["pixels"] == f"uint8, from uint16; stretched to 0 to 255: {named}"
    n_cells = len({row[0] for row in truth().cells})
    assert (found["features"], found["cells"], found["rows of cells"]) == (2, n_cells, len(truth().cells))
    assert (found["divisions"], found["cell types"], found["spots"]) == (2, 2, 5)
    phases = [phase.name for phase in report.phases]
    assert phases[:3] == ["open", "kernels", "look through"]
    assert {"X.ome.tiff", "y.ome.tiff", "tables", "publish"} <= set(phases)
    assert json.loads(report.to_json())["contents"]["channels"] == ["DAPI", "CD3", "488"]


def test_report_of_an_array(out):
    found = write(np.zeros((2, 9, 8), np.uint8), out).contents
    assert found["images"] == "images, axes TYX (assumed)"
    assert (found["labels"], found["channels"], found["cells"]) == ("none", 1, 0)
    assert found["pixels"] == "uint8, as they were given"
    assert "spots" not in found


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"cells.json": [{"cell": 1, "value": 1, "t": 0}, {"cell": 2, "value": 2, "t": 1}]}, 'have no "c"'),
        ({"cells.json": [{"cell": 1, "value": 1, "t": 0, "c": 0}]}, "1 values of labels are in no row of the cells"),
        ({"cellTypes.json": [{"id": 1, "cells": [7], "color": "#000000", "name": "", "feature": 0}]}, "[7]"),
        ({"embeddings.json": [[0.0], [1.0]]}, "none for 1 cells: 2"),
        ({"spots.csv": b"column,row\n1,2\n"}, "they are taken for x and y"),
        ({"notes.txt": b"hello"}, "'notes.txt' not used"),
        ({"z.npy": b"hello"}, "'z.npy' not used"),
        ({"a.csv": b"x,y\n", "b.csv": b"x,y\n"}, "'a.csv', 'b.csv' not used"),
    ],
)
def test_warnings(out, tmp_path, members, told):
    y = np.zeros((2, 9, 8), np.int32)
    y[0, 2, 2], y[1, 3, 3] = 1, 2
    (tmp_path / "y.zip").write_bytes(zipped({"y.npy": npy(y), **members}))
    (text,) = write(np.zeros((2, 9, 8), np.uint8), out, tmp_path / "y.zip").warnings
    assert told in text


def test_a_lineage_wins_over_divisions(out, tmp_path):
    m, other = truth(), [{"parent": 2, "daughters": [5, 6], "t": 3}]
    members = {"y.npy": npy(m.y), "lineage.json": lineage(), "divisions.json": other}
    (tmp_path / "y.zip").write_bytes(zipped(members))
    report = write(m.X, out, tmp_path / "y.zip", image_dtype="keep")
    assert_holds(out, m.only("divisions"))
    assert any("divisions.json" in text and "is followed" in text for text in report.warnings)


# ---------------------------------------------------------------- what is taken


def test_paths_may_be_texts(files, out, monkeypatch):
    monkeypatch.chdir(files)
    write("X.npy", str(out), "y.zip", image_dtype="keep")
    assert_holds(out, truth().only())


def test_a_list_is_frames(out, tmp_path):
    m = truth()
    paths = [tmp_path / f"{name}.tif" for name in "dbca"]
    for path, frame in zip(paths, m.X, strict=True):
        path.write_bytes(tiff(frame[..., 0]))
    write(paths, out, list(m.y[..., 0]), image_dtype="keep")
    assert_holds(out, m.only(channels=slice(1), features=slice(1)))


def test_addresses(files, out):
    handler = functools.partial(_Quiet, directory=str(files))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        try:
            write(f"{base}/X.npy?a=b", out, f"{base}/y.zip", image_dtype="keep")
            assert_holds(out, truth().only())
            (problem,) = refused(f"{base}/none.npy", out, force=True)
            assert "404" in problem.found
            (problem,) = refused(f"{base}/X.npy", out, force=True, download_limit="1KiB")
            assert "KiB" in str(problem)
        finally:
            server.shutdown()
    assert [path.name for path in out.parent.iterdir()] == [out.name]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_labels_given_replace_those_of_the_images(files, out):
    """With everything that is about their cells; spots and names stay."""
    y = np.zeros(truth().y.shape[:3], np.uint16)
    y[:, 3:8, 3:8] = 77
    report = write(files / "project.zip", out, y, image_dtype="keep")
    expected = truth().only("spots", "names")
    assert_holds(out, Truth(**{**vars(expected), "y": y[..., None]}))
    assert any("about another segmentation" in text for text in report.warnings)


def test_names_of_channels(files, out):
    write(files / "project.zip", out, channel_names=np.array(["a", " b\n", "ctrl\x01"]))
    assert read_project(out).names == ["a", "b", "ctrl"]


def test_numpy_scalars_are_options(files, out):
    write(
        files / "X.npy",
        out,
        workers=np.int64(1),
        force=np.True_,
        timeout=np.float32(3),
        memory_budget=np.int64(4 << 30),
    )
    assert read_project(out).X.dtype == np.uint8


# ---------------------------------------------------------------- what is refused


def test_wrong_options_are_told_at_once(out):
    wrong = {
        "axes": "TYX!",
        "label_axes": 3,
        "channel_names": "DAPI",
        "image_dtype": "uint16",
        "preview": 1,
        "force": "yes",
        "download_limit": "much",
        "timeout": 0,
        "workers": 0,
        "memory_budget": "some",
        "spill_dir": out.parent / "nowhere",
        "progress": "bar",
    }
    problems = refused(np.zeros((9, 8)), out, **wrong)
    assert {problem.where for problem in problems} == set(wrong)
    assert len(problems) == len(wrong)


@pytest.mark.parametrize(
    ("images", "labels", "options", "told"),
    [
        (np.zeros((5, 9, 8, 3, 2)), None, {}, "has 5 dimensions"),
        (np.zeros((20, 30, 3)), None, {}, "may be one image of"),
        (np.zeros((2, 9, 8)), None, {"axes": "TCYX"}, "fit in several ways"),
        (np.zeros((2, 9, 8)), None, {"axes": "TYY"}, "twice"),
        (np.zeros((2, 9, 8)), None, {"axes": "TY"}, "lack X or Y"),
        (np.zeros((2, 0, 8)), None, {}, "is empty"),
        (np.zeros((2, 9, 8), complex), None, {}, "complex"),
        (np.full((2, 9, 8), "x"), None, {}, "<U1"),
        (np.zeros((2, 9, 8)), np.zeros((2, 9, 8)), {}, "is float64"),
        (np.zeros((2, 9, 8)), np.zeros((3, 9, 8), int), {}, "3 frames of 9 × 8"),
        (np.zeros((2, 9, 8)), np.zeros((2, 8, 9), int), {}, "2 frames of 8 × 9"),
        (np.zeros((2, 9, 8)), -np.ones((2, 9, 8), int), {}, "negative"),
        (np.zeros((2, 9, 8)), np.full((2, 9, 8), 2**31), {}, "does not fit in 32 bits"),
        (np.zeros((2, 9, 8)), np.full((2, 9, 8), 2**64 - 1, np.uint64), {}, "does not fit in 32 bits"),
        (np.zeros((2, 9, 8)), np.full((2, 9, 8), -(2**63)), {}, "does not fit in 32 bits"),
        (np.zeros((2, 9, 8), np.int64), None, {"image_dtype": "keep"}, "which the client cannot read"),
        (np.zeros((2, 9, 8), np.float16), None, {"image_dtype": "keep"}, "which the client cannot read"),
        (np.zeros((2, 9, 8), bool), None, {"image_dtype": "keep"}, "which the client cannot read"),
        (np.zeros((2, 9, 8, 2)), None, {"channel_names": ["a"]}, "1 names for 2 channels"),
        ([], None, {}, "is an empty list"),
        (None, None, {}, "NoneType"),
        (3.5, None, {}, "float"),
        ("ftp://example.invalid/x.tif", None, {}, "ftp"),
        ("nowhere.tif", None, {}, "nowhere.tif"),
        ("nowhere.tif", "nothing.zip", {}, "nothing.zip"),
    ],
)
def test_refused(out, images, labels, options, told):
    assert any(told in str(problem) for problem in refused(images, out, labels, **options))


CELL = {"cell": 1, "value": 1, "t": 0, "c": 0}
TYPE = {"id": 1, "cells": [], "color": "#123456", "name": "a", "feature": 0}


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"cells.json": [CELL, CELL]}, "are there already"),
        ({"cells.json": [{**CELL, "value": 9}]}, "name a value that no pixel"),
        ({"cells.json": [{**CELL, "t": 2}]}, "have a t that is not there"),
        ({"cells.json": [{**CELL, "c": 1}]}, "have a c that is not there"),
        ({"cells.json": [{**CELL, "cell": 0}]}, "have a cell below 1"),
        ({"cells.json": [{**CELL, "cell": 2**31}]}, "have a cell above"),
        ({"cells.json": [{**CELL, "value": 1.5}]}, "no whole ones"),
        ({"cells.json": {"a": 1}}, "cells.json"),
        ({"cells.json": b"[{"}, "cells.json"),
        ({"divisions.json": [{"parent": 1, "daughters": [2, 3], "t": 0}]}, "have a t outside 1 to 1"),
        ({"divisions.json": [{"parent": 1, "daughters": [1, 3], "t": 1}]}, "have their parent as a daughter"),
        ({"divisions.json": [{"parent": 1, "daughters": [2, 9], "t": 1}]}, "have a daughter that is in no frame"),
        ({"divisions.json": [{"parent": 2, "daughters": [3], "t": 1}]}, "have a parent that is in no frame before t"),
        ({"lineage.json": {"1": {"label": 1, "frames": [0], "daughters": [2], "frame_div": 1}}}, "has no entry"),
        ({"lineage.json": {"1": {"label": 2, "frames": [0]}}}, "have another label than key"),
        ({"cellTypes.json": [TYPE, TYPE]}, "have the id of another"),
        ({"cellTypes.json": [{**TYPE, "color": "red"}]}, "#rrggbb"),
        ({"embeddings.json": [[1.0], [1.0, 2.0]]}, "are not as long as the first"),
        ({"spots.csv": b"x,y\n8.5,1\n"}, "are outside of the image"),
        ({"spots.csv": b"1,1\n2,2\n"}, "begins with numbers"),
        ({"../y.npy": b"1"}, "lead elsewhere"),
    ],
)
def test_refused_members(out, tmp_path, members, told):
    y = np.zeros((2, 9, 8), np.int32)
    y[0, 2, 2], y[1, 3, 3], y[1, 4, 4] = 1, 2, 3
    source = tmp_path / "given" / "y.zip"
    source.parent.mkdir()
    source.write_bytes(zipped({"y.npy": npy(y), **members}))
    problems = refused(np.zeros((2, 9, 8), np.uint8), out, source)
    assert any(told in str(problem) for problem in problems)


def test_everything_wrong_is_told_at_once(out, tmp_path):
    source = tmp_path / "given" / "y.zip"
    source.parent.mkdir()
    members = {
        "cells.json": [{**CELL, "cell": -1}],
        "divisions.json": [{"parent": 1}],
        "cellTypes.json": [7],
        "embeddings.json": [["a"]],
        "spots.csv": b"x,y\n99,99\n",
        "lineage.json": [1, 2],
    }
    source.write_bytes(zipped({"y.npy": npy(np.ones((2, 9, 8))), **members}))
    problems = refused(np.zeros((2, 9, 8), np.int64), out, source, image_dtype="keep", channel_names=["a", "b"])
    told = " ".join(problem.where for problem in problems)
    assert all(name in told for name in [*members, "y.npy", "images", "channel_names"])


def test_damaged_files(files, out):
    for name in ("X.npy", "X_y.npz", "y.zip", "project.zip"):
        content = (files / name).read_bytes()
        broken = out.parent / "broken" / name
        broken.parent.mkdir(exist_ok=True)
        for at in (0, 1, len(content) // 2, len(content) - 1):
            broken.write_bytes(content[:at])
            assert refused(broken, out)
        if name != "X.npy":
            changed = bytearray(content)
            changed[len(content) // 3] ^= 0x55
            broken.write_bytes(changed)
            assert refused(broken, out)


def test_pickles_are_never_loaded(out, tmp_path):
    objects = np.array([print], dtype=object)
    for name, content in {"a.npy": npy(objects), "a.npz": npz(X=objects)}.items():
        (tmp_path / name).write_bytes(content)
        assert any("object" in str(problem) for problem in refused(tmp_path / name, out))


# ---------------------------------------------------------------- the target


def test_an_existing_file_stays(files, out):
    out.write_bytes((files / "project.zip").read_bytes())
    assert "already exists" in str(refused(files / "X.npy", out))
    refused(np.zeros(3), out, force=True)
    assert out.read_bytes() == (files / "project.zip").read_bytes()
    write(files / "X.npy", out, force=True)
    assert aw.check(out).ok
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("content", [b"my masks", b"II*\0", None])
def test_only_projects_are_replaced(files, out, content):
    """Whoever forgets --labels names the labels for the output."""
    if content is None:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("thesis.txt", "years of work")
        content = out.read_bytes()
    out.write_bytes(content)
    assert "is no DeepCell Label project, and would be lost" in str(refused(files / "X.npy", out, force=True))
    assert out.read_bytes() == content
    out.write_bytes(b"")
    write(files / "X.npy", out, force=True)


def test_doubtful_labels_are_said(out):
    image = np.zeros((1, 40, 50), np.uint8)
    mask = np.zeros((1, 40, 50), bool)
    mask[:, 3:9, 3:9] = True
    assert "one cell of all" in str(write(image, out, mask, force=True).warnings)
    assert "one cell of all" in str(write(image, out, mask * np.uint8(255), force=True).warnings)
    assert write(image, out, mask * np.uint8(7), force=True).warnings == []
    exchanged = np.arange(2000, dtype=np.uint16).reshape(1, 40, 50)
    assert "exchanged with the labels?" in str(write(image, out, exchanged, force=True).warnings)


def test_the_limits_are_numbers_too(out):
    image = np.arange(2000, dtype=np.uint16).reshape(1, 1, 40, 50) + 5
    assert write(image, out, axes="TCYX").contents["limits"] == [[5, 2004]]
    assert "limits" not in write(image, out, axes="T, C, Y, X", image_dtype="keep", force=True).contents


def test_targets_that_cannot_be(files, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.zip").symlink_to(tmp_path / "else.zip")
    copy = tmp_path / "in.zip"
    copy.write_bytes((files / "project.zip").read_bytes())
    assert "is a folder" in str(refused(copy, tmp_path / "folder"))
    assert "symbolic link" in str(refused(copy, tmp_path / "link.zip", force=True))
    assert "is, or lies inside of, the input" in str(refused(copy, copy, force=True))
    assert "is, or lies inside of, the input" in str(refused(np.zeros((9, 8)), copy, copy, force=True))
    assert copy.read_bytes() == (files / "project.zip").read_bytes()


def test_a_budget_that_cannot_work(files, out):
    with pytest.raises(BudgetError, match="smallest budget that works"):
        write(files / "X.npy", out, memory_budget="1MiB")
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("form", ["deepcell", "deepcell_export"])
def test_preview(files, out, form):
    source = files / ("project.zip" if form == "deepcell" else "request.zip")
    getattr(aw, form)(source, out, preview=True, progress=False)
    picture = out.with_name("project.preview.png")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(out.parent.iterdir()) == [picture, out]
    out.unlink()
    with pytest.raises(InputError, match=r"preview\.png.* already exists"):
        getattr(aw, form)(source, out, preview=True, progress=False)


# ---------------------------------------------------------------- the command


@pytest.fixture
def call(capsys):
    """Run a command in this process; exit code, stdout and stderr."""

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_command(files, out, call):
    names = out.with_name("names.txt")
    names.write_text("a b\nc,d\n\nµ\n")
    options = ["--labels", files / "y.zip", "--axes", "TYXC", "--label-axes", "zyxc", "--image-dtype", "keep", "-j", 1]
    code, stdout, stderr = call("deepcell", files / "X.npy", out, *options, "--channel-names", f"@{names}")
    assert (code, stdout) == (0, "")
    assert "uint16, as they were given" in stderr
    assert_holds(out, Truth(**{**vars(truth().only()), "names": ("a b", "c,d", "µ")}))
    code, stdout, stderr = call("-q", "deepcell", files / "X.npy", out, "--json", "--force", "--channel-names", "a,b,c")
    assert (code, stderr) == (0, "")
    found = json.loads(stdout)
    assert (found["output"], found["contents"]["channels"]) == (str(out), ["a", "b", "c"])
    assert found["contents"]["pixels"].startswith("uint8, from uint16")


def test_commands_that_read_projects(files, out, call):
    assert call("deepcell", files / "project.zip", out, "--image-dtype", "keep")[0] == 0
    assert call("check", out)[0] == 0
    code, stdout, _ = call("info", out, "--json")
    assert (code, json.loads(stdout)["format"]) == (0, "deepcell")
    assert call("diff", out, files / "project.zip")[0] == 0
    other = out.with_name("other.zip")
    assert call("deepcell-export", files / "request.zip", other, "--json")[0] == 0
    assert call("diff", out, other)[0] == 1
    content = bytearray(other.read_bytes())
    content[len(content) // 2] ^= 1
    other.write_bytes(content)
    assert call("check", other)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["{X}", "{out}", "--image-dtype", "uint16"], 2),
        (["{X}", "{out}", "--nothing"], 2),
        (["{X}"], 2),
        (["{X}", "{out}", "--strategy", "often"], 2),
        (["{X}", "{out}", "--axes", "TYXS", "--label-axes", "1"], 3),
        (["{X}", "{out}", "--channel-names", "a"], 3),
        (["nowhere.tif", "{out}"], 3),
        (["{X}", "{X}", "--force"], 3),
        (["{X}", "{out}", "-M", "1MiB"], 4),
    ],
)
def test_exit_codes(files, out, call, arguments, code):
    words = [word.format(X=files / "X.npy", out=out) for word in arguments]
    assert call("deepcell", *words)[0] == code
    found, stdout, stderr = call("deepcell", *words, "--json")
    assert found == code
    told = json.loads(stdout)
    assert told["ok"] is False
    assert told["error"]
    assert bool(told["problems"]) == (code == 3)
    assert stderr
    assert not out.exists()
