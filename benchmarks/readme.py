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


def whole_process(result: dict[str, Any]) -> str:
    """What a whole run takes, in a sentence."""
    data, ours, theirs = result["data"], result["atlaswriter"], result["cellucid"]
    return (
        f"Whole processes, start-up and reading included, from an uncompressed h5ad of {data['cells']:,} cells × "
        f"{data['genes']:,} genes\n({data['input_bytes'] / 2**30:.1f} GiB) in 8 bit: cellucid 0.0.9 "
        f"{theirs['seconds']:.0f} s, `atlaswriter cellucid` {ours['seconds']:.1f} s, "
        f"**{result['speedup']:.1f}×** (`benchmarks/macro/whole_process.py`).\n"
    )


def encoding(results: dict[str, Any]) -> str:
    """The encode path alone."""
    lines = [
        "Encoding alone (bounds, quantisation, gzip with CRC) on one core; bytes over those of zlib 6 and of ISA-L "
        "(`benchmarks/macro/encode_genes.py`):",
        "",
        "| genes | ns per non-zero | µs per gene | of zlib 6 | of ISA-L | of ISA-L, worst gene |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, found in results["results"].items():
        cells = [
            name.replace("none", "float32"),
            f"{found['ns_per_nonzero']:.1f}",
            f"{found['us_per_gene']:.0f}",
            *(f"{found[key]:.3f}" for key in ("of_zlib_6", "of_isal", "largest_of_isal_in_one_gene")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def section() -> str:
    """All that stands between the marks."""
    folder = ROOT / "benchmarks" / "results"
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    return "\n".join(
        [
            table(results["prepare_vs_cellucid"]),
            whole_process(results["whole_process"]),
            encoding(results["encode_genes"]),
        ]
    )


def main() -> None:
    """Put the section between its marks."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}{section()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
