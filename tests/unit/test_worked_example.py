"""The worked example of docs/clusters.md, as a reader would type it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import atlaswriter as aw

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "clusters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- worked example -->\n```bash\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Folder in which all of it has run, and what each block said."""
    folder = tmp_path_factory.mktemp("example")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    said = []
    for block in BLOCKS:
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout + done.stderr)
    return folder, said


def test_every_block_is_found():
    assert GUIDE.count("<!-- worked example -->") == len(BLOCKS) > 8
    words = " ".join(BLOCKS)
    assert all(f"atlaswriter {verb} " in words for verb in ("demo", "plan", "run", "finish", "check", "cellucid"))
    assert all(f"--stage {stage}" in words for stage in ("tables", "regroup", "genes"))


def test_the_exports_are_there_and_sound(ran):
    folder, _ = ran
    for name in ("atlas", "by-dask", "resumed"):
        assert aw.check(folder / "exports" / name).ok
        assert aw.open_export(folder / "exports" / name).n_cells == 3000
    assert not (folder / "exports" / "by-slurm").exists()  # only submitted, on a cluster
    assert sorted(path.name for path in (folder / "exports").iterdir()) == ["atlas", "by-dask", "resumed"]
    assert {path.name for path in (folder / "tasks").iterdir()} == {"plan.json", "journal", "finished.json"}


def test_it_says_what_the_guide_says(ran):
    _, said = ran
    planned = next(text for block, text in zip(BLOCKS, said, strict=True) if "--plan tasks" in block)
    shown = re.search(r"```\n(stage tables.*?)```", GUIDE, re.DOTALL)
    stages = re.compile(r"stage (\w+) +(\d+) tasks(?:, after \w+)?: read ")
    assert stages.findall(shown[1]) == stages.findall(planned) != []
    missing = next(text for block, text in zip(BLOCKS, said, strict=True) if "|| test $? -eq 1" in block)
    assert "--stage regroup --tasks" in missing
    assert "--stage tables" not in missing


def test_the_lines_of_the_slurm_script_are_as_shown(ran):
    folder, _ = ran
    script = (folder / "submit.sh").read_text()
    shown = re.search(r"```bash\n(genes=\$\(.*?)```", GUIDE, re.DOTALL)[1]

    def numberless(text):
        return re.sub(r"\d+", "0", text)

    assert numberless(shown) in numberless(script)


def test_links_lead_somewhere():
    anchors = {re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-") for line in headings()}
    assert {"slurm", "dask"} < anchors
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith("https://"):
            assert (DOCS / target).is_file()


def headings():
    return [line.lstrip("# ") for line in GUIDE.splitlines() if line.startswith("## ")]


def test_what_the_snakefile_reads_of_a_plan_is_there(ran):
    folder, _ = ran
    plan = json.loads((folder / "tasks" / "plan.json").read_text())
    known = {"PLAN": plan, "stage": plan["stages"][0], "task": plan["stages"][0]["tasks"][0]}
    used = re.findall(r"\b(PLAN|stage|task)\[[\"'](\w+)[\"']\]", (DOCS / "Snakefile").read_text())
    assert {name for name, _ in used} == set(known)
    assert all(key in known[name] for name, key in used)
