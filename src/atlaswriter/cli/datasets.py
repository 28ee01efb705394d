"""`atlaswriter datasets`: the list of exports that a viewer offers."""

from __future__ import annotations

import json
from pathlib import Path

import click

from atlaswriter.cli._options import FOLDER, as_json


@click.command("datasets")
@click.argument("directory", type=FOLDER)
@click.option("--default", "default_dataset", metavar="ID", help="Dataset shown first.  [default: the first]")
@as_json
def command(directory: Path, default_dataset: str | None, as_json: bool) -> None:
    """Write DIRECTORY/datasets.json from the exports in DIRECTORY."""
    from atlaswriter.formats.cellucid.datasets import generate_datasets_manifest

    path = generate_datasets_manifest(directory, default_dataset=default_dataset)
    content = json.loads(path.read_text(encoding="utf-8"))
    if as_json:
        click.echo(json.dumps({"path": str(path), **content}))
    else:
        click.echo(f"{path}: {len(content['datasets'])} datasets, first {content['default']}")
