"""`atlaswriter demo`: the whole way once, from an atlas to a checked export."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from atlaswriter.cli._options import FOLDER, as_json, regroup_options
from atlaswriter.errors import OutputError, Problem, Problems

if TYPE_CHECKING:
    from atlaswriter.report import Report

log = logging.getLogger(__name__)

_ATLAS, _EXPORT = "demo.h5ad", "export"


@click.command("demo")
@click.argument("out", type=FOLDER, default=Path("atlaswriter-demo"))
@click.option("--cells", type=int, default=20_000, show_default=True, help="Number of cells, at least 100.")
@click.option("--genes", type=int, default=500, show_default=True, help="Number of genes, at least 20.")
@click.option("--force", is_flag=True, help="Replace an existing demo.")
@regroup_options
@as_json
@click.pass_context
def command(
    ctx: click.Context, /, out: Path, cells: int, genes: int, force: bool, as_json: bool, **resources: Any
) -> None:
    """Make up an atlas, export it to Cellucid files and check them; exit code 1 when the check fails.

    OUT (default: ./atlaswriter-demo) receives demo.h5ad and the folder export.
    """
    from atlaswriter.formats.cellucid.check import check

    report = _write(out, cells, genes, force, resources)
    result = check(out / _EXPORT, workers=resources["workers"])
    if as_json:
        content = {"ok": result.ok, "atlas": str(out / _ATLAS)}
        click.echo(json.dumps({**content, "export": report.to_dict(), "check": result.to_dict()}))
    if logging.getLogger("atlaswriter").isEnabledFor(logging.INFO):
        click.echo(f"{report}\n\n{result}\n\n{_where_to_look(out)}", err=True)
    if not result.ok:
        ctx.exit(1)


def _write(out: Path, n_cells: int, n_genes: int, force: bool, resources: dict[str, Any]) -> Report:
    """Write the atlas and its export; `out` stays as it was unless both succeed."""
    from atlaswriter.demo import demo_atlas
    from atlaswriter.formats.cellucid.convert import cellucid
    from atlaswriter.sinks import fs

    _refuse_occupied(out, force)
    with (
        _failing_as_output_error(out),
        TemporaryDirectory(prefix=".atlaswriter-demo-", dir=fs.nearest_existing(fs.located(out).parent)) as staging,
    ):
        staged = Path(staging, _ATLAS)
        log.info("making up %s cells × %s genes", f"{n_cells:,}", f"{n_genes:,}")
        demo_atlas(n_cells, n_genes).write_h5ad(staged)
        report = cellucid(
            staged,
            out / _EXPORT,
            dataset_name="atlaswriter demo",
            dataset_description="Made-up immune and epithelial cells.",
            force=force,
            **resources,
        )
        staged.replace(out / _ATLAS)
    report.contents["source"] = str(out / _ATLAS)
    return report


def _refuse_occupied(out: Path, force: bool) -> None:
    from atlaswriter.sinks.folder import check_target

    problems = Problems()
    check_target(out, force=force, foreign=_foreign, problems=problems)
    problems.raise_if_any()


def _foreign(folder: Path) -> list[str]:
    """What in a folder a demo has not made."""
    ours = {_ATLAS: Path.is_file, _EXPORT: Path.is_dir}
    return sorted(path.name for path in folder.iterdir() if path.name not in ours or not ours[path.name](path))


@contextmanager
def _failing_as_output_error(out: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(str(Problem(str(out), f"cannot be written ({error})"))) from error


def _where_to_look(out: Path) -> str:
    export = out / _EXPORT
    return f"""The atlas is {out / _ATLAS}, the export is the folder {export}.

Read it back in Python:

    from atlaswriter import open_export
    export = open_export({str(export)!r}); print(export.gene("CD3E"), export.obs("cell_type"), sep="\\n")

Look at it in a browser, with the viewer of cellucid 0.0.9 (in an environment of its own):

    pip install "cellucid==0.0.9" "pandas<3"
    cellucid serve {shlex.quote(str(export))}

or choose that folder in the viewer's local folder picker."""
