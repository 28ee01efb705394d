"""`atlaswriter info`: what an export holds, or what this installation can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from atlaswriter.cli._options import FOLDER, as_json


@click.command("info")
@click.argument("export", type=FOLDER, required=False)
@click.option("--warm", is_flag=True, help="Compile every kernel now, once for all later runs (for clusters).")
@as_json
def command(export: Path | None, warm: bool, as_json: bool) -> None:
    """Summarise EXPORT, a folder or project zip; without one, this installation and machine."""
    if export is not None:
        from atlaswriter.formats.detect import as_text, summarise

        summary = summarise(export)
        click.echo(json.dumps(summary) if as_json else as_text(summary))
        return
    facts = _installation(warm)
    click.echo(json.dumps(facts) if as_json else "\n".join(f"{name:<16}  {value}" for name, value in facts.items()))


def _installation(warm: bool) -> dict[str, Any]:
    import platform
    import time

    from atlaswriter import __version__
    from atlaswriter.codecs.gzip import encoder_name
    from atlaswriter.kernels import _jit
    from atlaswriter.units import format_bytes, usable_cpus, usable_memory

    facts: dict[str, Any] = {
        "atlaswriter": __version__,
        "python": platform.python_version(),
        "usable CPUs": usable_cpus(),
        "usable memory": format_bytes(usable_memory()),
        "gzip": encoder_name(),
        "kernel cache": _jit.cache_folder() or "none can be written: kernels are compiled in every process",
    }
    if warm:
        start = time.perf_counter()
        facts["compiled"] = _jit.warm_all()
        facts["compile seconds"] = round(time.perf_counter() - start, 1)
    return facts
