"""The command `atlaswriter`: one module a verb, loaded when it is asked for."""

from __future__ import annotations

import json
import logging
import sys
from importlib import import_module
from typing import NoReturn

import click

from atlaswriter import __version__
from atlaswriter.errors import AtlasWriterError, IncompleteError, InputError, OutputError

_VERBS = {
    "cellucid": "Export an AnnData to a Cellucid folder.",
    "landscape": "Export a spatial data set to Celldega LandscapeFiles.",
    "deepcell": "Write a DeepCell Label project.",
    "deepcell-export": "Turn what DeepCell Label's client sends into a project.",
    "plan": "Say what an export will take, or divide it into tasks for a cluster.",
    "run": "Do tasks of a plan.",
    "finish": "Verify the tasks of a plan, and publish the export.",
    "check": "Check an export against every rule the viewer relies on.",
    "info": "Show what an export holds, or what this installation can do.",
    "diff": "Compare two exports by content.",
    "datasets": "Write the datasets.json of a folder of exports.",
    "bench": "Measure how fast this machine exports.",
    "demo": "Make a demo atlas, export it and check it.",
}


class _Verbs(click.Group):
    """Loads a verb's module only when it runs; help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"atlaswriter.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def atlaswriter(verbose: int, quiet: bool) -> None:
    """Write the files of browser viewers for single-cell and spatial atlases."""
    level = logging.ERROR if quiet else logging.DEBUG if verbose > 1 else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    # What a report repeats at its end is not said twice.
    handler.addFilter(lambda record: not getattr(record, "in_report", False))
    logger = logging.getLogger("atlaswriter")
    logger.handlers = [handler]
    logger.setLevel(level)


def _fail(error: Exception, exit_code: int, *, as_json: bool) -> int:
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if as_json:
        problems = [vars(problem) for problem in error.problems] if isinstance(error, InputError) else []
        missing = {"missing": error.missing} if isinstance(error, IncompleteError) else {}
        click.echo(json.dumps({"ok": False, "error": text, "problems": problems, **missing}))
    if isinstance(error, click.ClickException):
        error.show()
    else:
        click.secho(f"error: {text}", err=True, fg="red" if sys.stderr.isatty() else None)
    return exit_code


def run(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code, by the table in the README."""
    words = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in words
    try:
        result = atlaswriter.main(args=words, prog_name="atlaswriter", standalone_mode=False)
    except AtlasWriterError as error:
        return _fail(error, error.exit_code, as_json=as_json)
    except OSError as error:
        return _fail(error, OutputError.exit_code, as_json=as_json)
    except click.exceptions.Abort:
        kept = "go on with --resume" if "--resume" in words else "run it again" if "run" in words else ""
        kept = f"what is done is kept: {kept}" if kept else "nothing was changed"
        click.echo(f"interrupted; {kept}", err=True)
        return 130
    except click.ClickException as error:
        return _fail(error, error.exit_code, as_json=as_json)
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """Entry point of the console script."""
    sys.exit(run())
