"""Writes README's performance table from benchmarks/results; run it after a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
START, END = "<!-- performance -->\n", "<!-- /performance -->"
TITLE = "{name}: {cells:,} cells × {genes:,} genes, {nonzeros:,} non-zeros"


def row(name: str, result: dict[str, Any]) -> str:
    """One line of the table."""
    ours, theirs = result["atlaswriter"], result["cellucid"]
    title = TITLE.format(name=name, **result["data"])
    cells = [
        title,
        f"{theirs['seconds']:.2f} s",
        f"{ours['seconds']:.2f} s",
        f"**{theirs['seconds'] / ours['seconds']:.1f}×**",
        f"{theirs['cpu_seconds'] / ours['cpu_seconds']:.1f}×",
        f"{ours['var_bytes'] / theirs['var_bytes']:.2f}",
        f"{ours['bytes'] / theirs['bytes']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(results: dict[str, Any]) -> str:
    """The whole section."""
    machine, arguments = results["machine"], results["arguments"]
    lines = [
        f"`prepare` in process, warm kernels, {arguments['workers']} threads, gzip level {arguments['compression']},",
        "with graph and outlier quantiles, against cellucid 0.0.9 with the same arguments: medians of "
        f"{arguments['repetitions']} interleaved",
        "runs "
        f"on {machine['usable_cpus']} cores of an {machine['cpu']} ({results['date']}, exports in "
        f"`{machine['exports_in']}`). Bytes are ours over theirs.",
        "",
        "| data | cellucid 0.0.9 | atlaswriter | ratio | of CPU time | gene bytes | all bytes |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(row(name, result) for name, result in results["results"].items()),
        "",
        "Made by `benchmarks/macro/prepare_vs_cellucid.py` and `benchmarks/readme.py`.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Put the table between its marks."""
    results = json.loads((ROOT / "benchmarks/results/prepare_vs_cellucid.json").read_text(encoding="utf-8"))
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}{table(results)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
