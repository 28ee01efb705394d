"""A plan as array jobs of Slurm that depend on each other."""

from __future__ import annotations

import shlex
from pathlib import Path

from atlaswriter.engine.plan import RunPlan, Stage

# An array has at most 1001 elements unless the cluster says otherwise (MaxArraySize).
_MOST_ELEMENTS = 1000
# Beside what a process takes itself: the shell, and what the system counts for it.
_OTHERS_MIB = 128
# Seconds after which a shared disk shows what other machines have written (acdirmax of NFS).
_PATIENCE = 60

_BEGIN = """\
#!/bin/bash
# Exports to {target}
# in tasks. Submit all of them from a login node, in an environment where `atlaswriter` works (jobs inherit it):
#     bash THIS_FILE
# Account, partition and time limit come from SBATCH_ACCOUNT, SBATCH_PARTITION and SBATCH_TIMELIMIT.
#
# Every element of an array does one slice of its stage, and leaves alone what is done already. So after a failure
# submit all of it again, or only the elements that failed: the same sbatch with, say, --array=3,7. What a dead node was
# doing Slurm repeats itself (--requeue); what waits for an array that failed it cancels (--kill-on-invalid-dep).
set -euo pipefail

plan={folder}
run={run}
publish={finish}
logs=${{plan//%/%%}}/logs  # a % in the name of a log stands for more
mkdir -p "$plan/logs"

submit() {{
    sbatch --parsable --requeue --open-mode=append --kill-on-invalid-dep=yes --cpus-per-task={workers} "$@" |
        cut -d ';' -f 1  # the name of the cluster follows where there are several
}}
"""

_ARRAY = """
# {tasks} tasks, about {seconds:,.0f} s each
{job}=$(submit --job-name=atlaswriter-{name} --array=0-{last}{after} --mem={mem}M \\
    --output="$logs/{name}-%A-%a.log" --wrap="$run --stage {name} --tasks \\$SLURM_ARRAY_TASK_ID/{count}")
"""

_END = """
finish=$(submit --job-name=atlaswriter-finish{after} --mem={mem}M \\
    --output="$logs/finish-%j.log" --wrap="$publish")
echo "submitted: {submitted}"
"""


def script(plan: RunPlan, folder: Path) -> str:
    """A shell script that submits an array for each stage, and a last job that publishes.

    Parameters
    ----------
    plan
        What was planned.
    folder
        Where it is.

    Returns
    -------
    str
        Bash. Every element does the slice of its stage that its number says, so that single elements can be submitted
        again; memory is what the plan says, and threads are those of the plan.
    """
    place = shlex.quote(str(folder.absolute()))
    begin = _BEGIN.format(
        target=plan.target if plan.target.isprintable() else ascii(plan.target),  # a line break ends a comment
        folder=place,
        run=shlex.quote(f"atlaswriter run {place} --patience {_PATIENCE}"),
        finish=shlex.quote(f"atlaswriter finish {place} --patience {_PATIENCE}"),
        workers=plan.workers,
    )
    stages = [stage for stage in plan.stages if stage.tasks]
    names = [stage.name for stage in stages]
    arrays = [_array(stage, [name for name in stage.after if name in names]) for stage in stages]
    end = _END.format(
        after=_after(names),
        mem=max((_mib(stage.memory) for stage in stages), default=_OTHERS_MIB),
        submitted=", ".join(f"{name} ${_job(name)}" for name in [*names, "finish"]),
    )
    return "".join([begin, *arrays, end])


def _array(stage: Stage, after: list[str]) -> str:
    count = min(len(stage.tasks), _MOST_ELEMENTS)
    return _ARRAY.format(
        name=stage.name,
        job=_job(stage.name),
        tasks=len(stage.tasks),
        seconds=max(1, *(task.seconds for task in stage.tasks)),
        last=count - 1,
        count=count,
        after=_after(after),
        mem=_mib(stage.memory),
    )


def _after(names: list[str]) -> str:
    return f' --dependency="afterok{"".join(f":${_job(name)}" for name in names)}"' if names else ""


def _job(name: str) -> str:
    """Variable with the number of a job."""
    return name.replace("-", "_")


def _mib(size: int) -> int:
    return -(-size // 2**20) + _OTHERS_MIB
