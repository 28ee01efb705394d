"""Writes README's performance table from benchmarks/results; run it after a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from atlaswriter.units import format_bytes

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- performance -->\n", "<!-- /performance -->"
# Measured exports of each atlas, and what each is called.
EXPORTS = {
    "atlas100m": {"export": "100 million cells"},
    "spill": {"unlimited": "wide, default budget", "spill": "wide, spilled", "planned": "wide, as planned"},
}
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


def rivals(report: dict[str, Any]) -> str:
    """Every program that was installed, on the same data; those that do another job without a ratio."""
    jobs, machine, arguments = report["jobs"], report["machine"], report["arguments"]
    n = arguments["repetitions"]
    lines = [
        "### Beside other programs",
        "",
        f"Whole processes with the same input, {f'medians of {n} interleaved runs' if n > 1 else 'one run of each'} on "
        f"{machine['usable_cpus']} cores of an {machine['cpu']} ({report['date']};",
        "`benchmarks/macro/rivals.py`). The baseline is a script of anndata, scipy, NumPy and",
        "gzip, in one thread, as a good Python programmer would write it.",
        "",
    ]
    for job in jobs.values():
        lines += [f"{rival_input(job['data'])}:", "", *rival_table(job["programs"]), ""]
    return "\n".join(lines)


def rival_input(data: dict[str, Any]) -> str:
    """What programs were given."""
    size = format_bytes(data["input_bytes"])
    if "genes" in data:
        return (
            f"An `.h5ad` of {data['cells']:,} cells × {data['genes']:,} genes, {data['nonzeros']:,} non-zeros ({size})"
        )
    return f"A Xenium bundle of {data['transcripts']:,} transcripts and {data['cells']:,} cells ({size})"


def rival_table(programs: dict[str, Any]) -> list[str]:
    """A line for each program."""
    lines = [
        "| program | seconds | CPU | peak memory | bytes | files | seconds over ours | CPU over ours |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    others = []
    for name, found in programs.items():
        shares = found["over_ours"]
        ratios = f"**{shares['seconds']:.1f}×** | {shares['cpu_seconds']:.1f}×" if shares else "|"
        if not shares and name != "atlaswriter":
            others.append(f"{name} does {found['does']}.")
        lines.append(
            f"| {name} | {found['seconds']:.1f} | {found['cpu_seconds']:.1f} | {format_bytes(found['peak_bytes'])} | "
            f"{format_bytes(found['output_bytes'])} | {found['files']:,} | {ratios} |"
        )
    return [*lines, *(["", *others] if others else [])]


def any_size(results: dict[str, Any]) -> str:
    """What large atlases take, as far as `any_size`, `growth` and `workers` were run; "" when none was."""
    parts = [
        write(results[name])
        for name, write in (("any_size", large), ("growth", growing), ("workers", scaling))
        if name in results
    ]
    return "\n".join(["### At any size", "", *parts]) if parts else ""


def large(report: dict[str, Any]) -> str:
    """One line for each measured export of a large atlas, and what reading alone takes."""
    results = {name: found for name, found in report["results"].items() if found["full_size"]}
    exports = {name: found for name, found in results.items() if name in EXPORTS}
    lines = []
    if exports:
        newest = max(exports.values(), key=lambda found: found["date"])
        machine = newest["machine"]
        lines = [
            f"Whole processes from .h5ad files, 8 bit, gzip level 6, {newest['workers']} threads, on "
            f"{machine['usable_cpus']} cores of an {machine['cpu']} ({newest['date']});",
            "peak memory is the largest resident size of the process (`benchmarks/macro/any_size.py`):",
            "",
            "| atlas | cells × genes | non-zeros | input | budget | peak memory | seconds | check | spilled | output |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
            *(large_row(name, way, found) for name, found in exports.items() for way in EXPORTS[name]),
            "",
        ]
    if "spill" in exports and exports["spill"]["ok"]:
        lines += ["The wide exports are the same, byte for byte.", ""]
    if "gzip200k" in results:
        found = results["gzip200k"]
        data, seconds = found["data"], found["runs"]["read_and_regroup"]["seconds"]
        lines += [
            f"Reading {TITLE.format(name='a gzip h5ad', **data)},",
            f"and bringing it in order of genes, warm, {found['workers']} threads: {seconds:.2f} s.",
            "",
        ]
    return "\n".join(lines)


def large_row(name: str, way: str, found: dict[str, Any]) -> str:
    """One export of a large atlas; its check where one was measured."""
    data, run = found["data"], found["runs"][way]
    checked = found["runs"].get("check") if way in {"export", "planned"} else None
    budget = "default" if run["budget_bytes"] is None else format_bytes(run["budget_bytes"])
    cells = [
        EXPORTS[name][way],
        f"{data['cells']:,} × {data['genes']:,}",
        f"{data['nonzeros']:,}",
        format_bytes(data["input_bytes"]),
        budget,
        *(["failed", "", "", "", ""] if run["exit_code"] else measured(run, checked)),
    ]
    return f"| {' | '.join(cells)} |"


def measured(run: dict[str, Any], checked: dict[str, Any] | None) -> list[str]:
    """Peak memory, seconds, seconds of check, bytes spilled and written."""
    return [
        format_bytes(run["peak_bytes"]),
        f"{run['seconds']:.1f}",
        "" if checked is None else f"{checked['seconds']:.1f}",
        format_bytes(run["spill_bytes"]) if run.get("spill_bytes") else "none",
        format_bytes(run["output_bytes"]),
    ]


def growing(report: dict[str, Any]) -> str:
    """How costs grow, in a sentence, and where that is drawn."""
    cells = [size["data"]["cells"] for size in report["sizes"]]
    ways = {"unlimited": "with the default budget", "budget": f"in {report['budget']}"}
    slopes = [
        f"{report['exponents'][way]['cpu_seconds_of_largest']:.2f} {label}"
        for way, label in ways.items()
        if report["exponents"][way]["cpu_seconds_of_largest"] is not None
    ]
    return (
        f"From {min(cells):,} to {max(cells):,} cells, CPU time grows with this power of non-zeros + cells at the "
        f"largest sizes:\n{', '.join(slopes)} (1 is linear;\n[plot](benchmarks/results/growth.svg), "
        "`benchmarks/macro/growth.py`).\n"
    )


def scaling(report: dict[str, Any]) -> str:
    """How threads help, in a sentence."""
    gains = {
        way: ", ".join(f"{found['speedup']:.2f}× with {width}" for width, found in runs.items() if width != "1")
        for way, runs in report["results"].items()
    }
    data, cpus = report["data"], report["machine"]["usable_cpus"]
    return (
        f"Threads, {data['cells']:,} cells × {data['genes']:,} genes on {cpus} cores: `prepare` in process "
        f"{gains['prepare']}; whole process {gains['process']}\n(`benchmarks/macro/workers.py`).\n"
    )


def in_tasks(results: dict[str, Any]) -> str:
    """How exports in tasks scale: measured and predicted here, predicted for clusters; "" when it was not run."""
    if "scaling" not in results:
        return ""
    measured, prediction = results["scaling"]["measured"], results["scaling"]["prediction"]
    cluster, atlas = prediction["cluster"], prediction["atlas"]
    largest = measured["runs"][-1]["data"]
    stages = prediction["stages"]
    planned = ", ".join(f"{found['tasks']} tasks of {name}" for name, found in stages.items())
    lines = [
        "### In tasks, on a cluster",
        "",
        "A model (`benchmarks/macro/scaling_model.py` says it in full) takes the cost of tasks, opening and `finish`",
        "from smaller runs here, and the tasks from the plan. Seconds predicted and real, stage after stage, of",
        f"{largest['cells']:,} cells × {largest['genes']:,} genes, {largest['nonzeros']:,} non-zeros, in tasks of one "
        f"thread on {results['scaling']['machine']['usable_cpus']} cores:",
        "",
        "| processes | tables | regroup | genes | finish | all |",
        "|--:|--:|--:|--:|--:|--:|",
        *(compared(found) for found in measured["comparisons"]),
        "",
        f"For {atlas['cells']:,} cells × {atlas['genes']:,} genes with {atlas['density']:.0%} non-zeros "
        f"({sum(found['bytes_in'] for found in stages.values()) / 1e12:.1f} TB read, "
        f"{sum(found['bytes_out'] for found in stages.values()) / 1e12:.1f} TB written, temporary files included;",
        f"the plan has {planned}), on nodes of {cluster['cores']} cores",
        f"with {cluster['node_disk'] / 1e9:g} GB/s each to a shared disk of {cluster['disk'] / 1e9:g} GB/s and "
        f"{cluster['metadata']:,.0f} files a second, tasks of {prediction['task_size']}, "
        f"{prediction['threads']} threads and at most",
        f"{format_bytes(max(found['memory'] for found in stages.values()))} a process "
        f"(here, tasks took at most {prediction['largest_peak_of_memory']:.0%} of what their plan said):",
        "",
        "| nodes | seconds | what bounds each step |",
        "|--:|--:|---|",
        *(predicted(count, found) for count, found in prediction["nodes"].items()),
        "",
        "([plot](benchmarks/results/scaling.svg), `benchmarks/macro/scaling.py`; not run on such a cluster).",
        "",
    ]
    return "\n".join(lines)


def compared(found: dict[str, Any]) -> str:
    """One line of prediction and reality."""
    known = {name: stage["seconds"] for name, stage in found["predicted"]["stages"].items()}
    pairs = [(known[name], found["real"][name]) for name in ("tables", "regroup", "genes", "finish")]
    pairs.append((sum(known.values()), sum(found["real"].values())))
    return f"| {found['processes']} | {' | '.join(f'{guess:.1f} / {real:.1f}' for guess, real in pairs)} |"


def predicted(nodes: str, found: dict[str, Any]) -> str:
    """One line of the prediction for clusters."""
    bounds = ", ".join(
        f"{name} {stage['seconds']:,.0f} s ({stage['bound']})" for name, stage in found["stages"].items()
    )
    return f"| {nodes} | {found['seconds']:,.0f} | {bounds} |"


def landscapes(results: dict[str, Any]) -> str:
    """LandscapeFiles: beside the original writer, and of 400 million transcripts."""
    parts = []
    if "landscape_vs_celldega" in results:
        parts.append(versus_celldega(results["landscape_vs_celldega"]))
    if "landscape_large" in results:
        parts.append(many_transcripts(results["landscape_large"]["results"]))
    return "\n".join(["### LandscapeFiles\n", *parts]) if parts else ""


def versus_celldega(report: dict[str, Any]) -> str:
    """Whole processes and the transcript stage, beside celldega 0.27.0's own writer."""
    ours, theirs, data, machine = report["atlaswriter"], report["celldega"], report["data"], report["machine"]
    alone = report["transcripts"]
    rows = [
        ("whole process", ours, theirs, report["speedup"]),
        ("transcripts alone", alone["atlaswriter"], alone["celldega"], alone["speedup"]),
    ]
    lines = [
        f"Whole processes on one Xenium bundle of {data['transcripts']:,} transcripts, {data['cells']:,} cells and "
        "4 channels of 4096 × 4096 pixels,",
        f"against celldega 0.27.0's own writer: medians of {report['arguments']['repetitions']} interleaved runs with "
        f"{report['arguments']['workers']} threads on {machine['usable_cpus']} cores of an {machine['cpu']}",
        f"({report['date']}; `benchmarks/macro/landscape_vs_celldega.py`):",
        "",
        "| | celldega 0.27.0 | CPU | atlaswriter | CPU | ratio | of CPU time |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {name} | {two['seconds']:.1f} s | {two['cpu_seconds']:.1f} s | {one['seconds']:.2f} s | "
            f"{one['cpu_seconds']:.2f} s | **{ratio['seconds']:.1f}×** | {ratio['cpu_seconds']:.1f}× |"
            for name, one, two, ratio in rows
        ),
        "",
        f"Peak memory {format_bytes(ours['peak_bytes'])} against {format_bytes(theirs['peak_bytes'])}. "
        "Bytes, ours over theirs: "
        + ", ".join(f"{name.replace('_', ' ')} {share:.2f}" for name, share in report["relative_bytes"].items())
        + f", all {report['relative_size']['output_bytes']:.2f}.",
        "",
    ]
    return "\n".join(lines)


def many_transcripts(results: dict[str, Any]) -> str:
    """400 million transcripts in 4 GiB, and how the cost grows."""
    parts = []
    if results.get("large", {}).get("full_size"):
        large, run = results["large"], results["large"]["run"]
        phases = ", ".join(
            f"{name} {run['phases'][name]:.0f} s" for name in ("transcripts", "outlines", "genes", "image")
        )
        data = large["data"]
        parts.append(
            f"{data['transcripts']:,} transcripts, {data['cells']:,} cells, one channel of 2 gigapixels "
            f"({format_bytes(data['input_bytes'])}) with `-M {large['budget']}`: "
            f"{run['seconds']:.0f} s ({phases}),\npeak memory {format_bytes(run['peak_bytes'])}, "
            f"{format_bytes(run['output_bytes'])} in {run['files']:,} files (`benchmarks/macro/landscape_large.py`).\n"
        )
    if "growth" in results:
        sizes = [(size["data"]["transcripts"], size["cpu_seconds"]) for size in results["growth"]["sizes"]]
        each = ", ".join(f"{count / 1e6:.0f} million {seconds / count * 1e9:.0f} ns" for count, seconds in sizes)
        parts.append(f"CPU time of a transcript, from the file to its tile: {each}.\n")
    return "\n".join(parts)


def projects(report: dict[str, Any]) -> str:
    """DeepCell Label projects, beside the original backend."""
    data, results, machine = report["data"], report["results"], report["machine"]
    n = report["arguments"]["repetitions"]
    names = {
        "load": "submission to project, 8 bit",
        "load, kept": "submission to project, 16 bit kept",
        "export": "export request to project",
    }
    lines = [
        "### DeepCell Label projects\n",
        f"Whole processes on {data['frames']} frames of {data['width']} × {data['height']} pixels, {data['channels']} "
        "channels of 16 bit and labels of one feature, against",
        "DeepCell Label's own backend (which keeps 16 bit, and whose imports are not counted): "
        + (f"medians of {n} interleaved runs with" if n > 1 else "one run of each, with"),
        f"{report['arguments']['workers']} threads and `-M {report['arguments']['memory_budget']}` on "
        f"{machine['usable_cpus']} cores of an {machine['cpu']} ({report['date']}; "
        "`benchmarks/macro/deepcell_vs_original.py`):",
        "",
        "| | original | CPU | peak | atlaswriter | CPU | peak | ratio | of CPU time | bytes |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {names[name]} | {two['seconds']:.1f} s | {two['cpu_seconds']:.1f} s "
            f"| {format_bytes(two['peak_bytes'])} "
            f"| {one['seconds']:.2f} s | {one['cpu_seconds']:.2f} s | {format_bytes(one['peak_bytes'])} "
            f"| **{found['speedup']['seconds']:.1f}×** | {found['speedup']['cpu_seconds']:.1f}× "
            f"| {found['relative_size']['output_bytes']:.2f} |"
            for name, found in results.items()
            for one, two in [(found["atlaswriter"], found["original"])]
        ),
        "",
    ]
    if large := report.get("large"):
        lines += [
            f"{large['frames']} frames of 4096 × 4096 pixels ({format_bytes(large['input_bytes'])}) with `-M 1GiB`: "
            f"{large['seconds']:.1f} s, peak memory {format_bytes(large['peak_bytes'])}.",
            "",
        ]
    return "\n".join(lines)


def section(folder: Path = RESULTS) -> str:
    """All that stands between the marks, as far as its results are in a folder."""
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    alone = {
        "prepare_vs_cellucid": table,
        "whole_process": whole_process,
        "encode_genes": encoding,
        "rivals": rivals,
    }
    parts = [
        *(write(results[name]) for name, write in alone.items() if name in results),
        any_size(results),
        in_tasks(results),
        landscapes(results),
        projects(results["deepcell_vs_original"]) if "deepcell_vs_original" in results else "",
    ]
    return "\n".join(part for part in parts if part)


def main() -> None:
    """Put the section between its marks."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}{section()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
