"""A plan as array jobs of Slurm that depend on each other."""

from __future__ import annotations

import shlex
from pathlib import Path

from atlaswriter.engine.plan import RunPlan, Stage

# Slurm's own limit of array elements is 1001 unless the cluster says otherwise (MaxArraySize).
_MOST_ELEMENTS = 1000
# Beside what a process takes itself: the shell, and what the system counts for it.
_OTHERS_MIB = 128


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
    where = shlex.quote(str(folder.absolute()))
    lines = [
        "#!/bin/bash",
        f"# Exports {shlex.quote(plan.target)} in tasks: submit it with `bash THIS_FILE` on a login node.",
        "# Account, partition and time limit are those of your environment (SBATCH_ACCOUNT, SBATCH_PARTITION,",
        "# SBATCH_TIMELIMIT). What fails may be submitted again; `atlaswriter finish` lists what is missing.",
        "set -euo pipefail",
        f"plan={where}",
        'mkdir -p "$plan/logs"',
        "",
    ]
    for stage in plan.stages:
        lines += [*_array(plan, stage), ""]
    every = ":".join(f"${stage.name}" for stage in plan.stages)
    lines += [
        f"sbatch --job-name=atlaswriter-finish --dependency=afterok:{every} --cpus-per-task={plan.workers} \\",
        f'    --mem={max(_mib(stage.memory) for stage in plan.stages)}M --output="$plan/logs/finish-%j.log" \\',
        '    --wrap="atlaswriter finish \\"$plan\\""',
    ]
    return "\n".join(lines) + "\n"


def _array(plan: RunPlan, stage: Stage) -> list[str]:
    count = min(len(stage.tasks), _MOST_ELEMENTS)
    after = "".join(f":${name}" for name in stage.after)
    dependency = f" --dependency=afterok{after}" if after else ""
    return [
        f"# {len(stage.tasks)} tasks, about {max((task.seconds for task in stage.tasks), default=0):,.0f} s each",
        f"{stage.name}=$(sbatch --parsable --job-name=atlaswriter-{stage.name} --array=0-{count - 1}{dependency} \\",
        f"    --cpus-per-task={plan.workers} --mem={_mib(stage.memory)}M \\",
        f'    --output="$plan/logs/{stage.name}-%A-%a.log" \\',
        f'    --wrap="atlaswriter run \\"$plan\\" --stage {stage.name} --tasks \\$SLURM_ARRAY_TASK_ID/{count}")',
    ]


def _mib(size: int) -> int:
    return -(-size // 2**20) + _OTHERS_MIB
