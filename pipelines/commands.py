"""The words of the command line: every command with what it takes, and what a person typed as options by name.

Nothing of the library is imported here, so that pages of help and the names that Tab offers come at once.
"""

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pipelines import offered, shells

ABOUT = {
    "simulate": "run the embedded general circulation model to make source data",
    "ingest": "convert NetCDF, GRIB or Zarr sources into one analysis store",
    "stats": "compute the statistics of the training period",
    "outflow": "find what leaves a limited area by its sides, from driving data",
    "train": "train a network",
    "observe": "make observations of a nature run, and read real ones from tables",
    "learn": "train a network that makes analyses",
    "assimilate": "make one analysis from a background and observations",
    "cycle": "make analyses and forecasts by turns",
    "rollout": "run forecasts from many initial times",
    "train_downscaling": "train a network from coarse fields to fine ones",
    "downscale": "write the fine fields of a coarse store",
    "verify": "score forecasts against the truth",
    "report": "write an HTML page of scores, maps and budgets",
}
PARTITIONED = ("simulate", "ingest", "rollout", "verify")  # stages whose work can be cut into independent parts
APPENDING = ("ingest", "verify")
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
PATH = click.Path(path_type=Path)


def parse(words: Sequence[str]) -> types.SimpleNamespace:
    """What was typed, as options by name, `command` among them. Options and other words may stand in any order.

    Raises `SystemExit` after a page of help, and for words that no command takes, with the usage.
    """
    try:
        with COMMANDS.make_context("emulator", list(words)) as context:
            return COMMANDS.invoke(context)
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
    except click.UsageError as error:
        of = error.ctx.command_path
        nothing = isinstance(error, click.exceptions.NoArgsIsHelpError)
        text = "expected a command, got none" if nothing else error.format_message()
        click.echo(f"{_usage(error.ctx)}\n{of}: error: {text}", err=True)
        raise SystemExit(error.exit_code) from None


def _usage(context: click.Context) -> str:
    return context.get_usage().replace("Usage:", "usage:", 1)


class _Commands(click.Group):
    """Commands in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class _Part(click.ParamType):
    name = "i/N"

    def convert(self, value: Any, param, ctx) -> tuple[int, int]:
        number, slash, count = str(value).partition("/")
        if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
            self.fail(f"expected i/N with 1 <= i <= N, got {value!r}", param, ctx)
        return int(number), int(count)


class _Numbers(click.ParamType):
    name = "numbers"

    def convert(self, value: Any, param, ctx) -> list[float]:
        try:
            return [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"expected numbers with commas between, such as 500,850, got {value!r}", param, ctx)


def _command(name: str, about: str, parameters: Sequence[click.Parameter] = (), words: str = "") -> None:
    """Adds a command. `words`: what its words besides options are, for its page of help."""

    def typed(**given: Any) -> types.SimpleNamespace:
        return types.SimpleNamespace(command=name, **given)

    verbose = _flag("show debug messages and tracebacks", "-v", "--verbose")
    COMMANDS.add_command(
        click.Command(name, SETTINGS, typed, [*parameters, verbose], help=about, epilog=words, short_help=about)
    )


def _flag(about: str, *names: str) -> click.Option:
    return click.Option(names, is_flag=True, help=about)


def _several(name: str, metavar: str, **more: Any) -> click.Argument:
    return click.Argument([name], nargs=-1, metavar=metavar, callback=lambda ctx, own, value: list(value), **more)


def _configuration() -> list[click.Argument]:
    values = _several("overrides", "[dotted.name=value ...]", shell_complete=offered.overrides)
    return [click.Argument(["config"], type=PATH, shell_complete=offered.configurations), values]


def _configured(whose: str, values: str) -> str:
    """What CONFIG and the words after it are."""
    return (
        f"CONFIG: YAML of {whose}. dotted.name=value: replace single values {values} (train.seed=1 directory=DIR); they may "
        "stand before, between and after options."
    )


def _version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from importlib.metadata import version  # 30 ms, which nothing else here needs

        click.echo(f"emulator {version('emulator')}")
        context.exit()


def _add_stages() -> None:
    check = _flag("check configuration, files and shapes; run nothing", "--check")
    for name, about in ABOUT.items():
        own = [*_configuration(), check]
        words = _configured("the stage, or of an experiment that has it", "of the section (seed=1) or the experiment")
        if name in PARTITIONED:
            own.append(click.Option(["--part"], type=_Part(), help="do only the i-th of N parts of the work"))
        if name in APPENDING:
            own.append(_flag("keep the output and add the new times to it", "--append"))
        if name == "report":
            own.append(
                click.Option(["--output"], type=PATH, help="folder of the page; by default `comparison` for SCORES")
            )
            own.append(click.Option(["--title"], help="title of the page"))
            words += " Or in place of both [NAME=]SCORES ...: several files of scores, or run directories, compared."
        _command(name, about, own, words)
    only = click.Option(
        ["--only"],
        metavar="STAGE",
        help="run one stage, whose inputs must be complete",
        shell_complete=lambda context, own, begun: [name for name in ABOUT if name.startswith(begun)],
    )
    words = _configured("an experiment", "of the experiment")
    _command("run", "run all stages, skipping those that are complete", [*_configuration(), check, only], words)
    site = click.Option(["--site"], type=PATH, required=True, help="YAML of the cluster; see conf/site")
    dry = _flag("print the scripts; write and queue nothing", "--dry-run")
    _command("submit", "queue all stages as dependent Slurm jobs", [*_configuration(), site, dry], words)


def _add_files() -> None:
    files = _several("files", "FILES...", required=True, shell_complete=offered.paths)
    output = click.Option(
        ["--output"], type=PATH, required=True, metavar="FILE.yaml", help="where the experiment is written"
    )
    directory = click.Option(["--directory"], help="the run directory; by default runs/ and the experiment's name")
    source = click.Option(
        ["--source"],
        multiple=True,
        metavar="NAME=VALUE",
        help="option of the sources that the files do not tell (rename.NAME=temperature, units.level=hPa)",
    )
    words = "FILES: NetCDF, GRIB or Zarr as files, folders, patterns or URLs, which together are the data."
    _command(
        "init", "look into data and write an experiment that trains on them", [files, output, directory, source], words
    )
    published = click.Argument(["model"], type=PATH, shell_complete=offered.paths)
    target = click.Option(["--output"], type=PATH, required=True, metavar="NAME.tar|FOLDER", help="where it is written")
    licence = click.Option(
        ["--licence", "--license"], metavar="IDENTIFIER", help="such as cc-by-4.0; by default none is stated"
    )
    scores = click.Option(["--scores"], type=PATH, help="scores.json of a report; by default that of the run")
    _command(
        "publish",
        "pack a checkpoint with its model card and checksums, to hand it on",
        [published, target, licence, scores],
        "MODEL: a checkpoint, or the directory of a run.",
    )
    folder = click.Option(
        ["--output"], type=PATH, metavar="FOLDER", help="a new folder; by default the name in the URL, here"
    )
    digest = click.Option(["--sha256"], metavar="HEX", help="what publish has printed, to know the model by")
    _command(
        "fetch",
        "get a published model from a path or URL, checked, as a checkpoint",
        [click.Argument(["url"], shell_complete=offered.paths), folder, digest],
        "URL: a file .tar or a folder that publish has written, at any URL of fsspec (https, s3, gs, file).",
    )


def _add_others() -> None:
    lines = click.Option(["--lines"], type=int, default=3, help="lines of each log")
    about = "show the state, progress and last log lines of every stage of a run"
    _command("status", about, [click.Argument(["run"], type=PATH), lines], "RUN: the run directory.")
    _command(
        "gate",
        "exit with code 1 if scores are significantly worse than a baseline's",
        [
            click.Argument(["scores"], type=PATH),
            click.Argument(["baseline"], type=PATH),
            click.Option(
                ["--tolerance"], type=float, default=0.0, metavar="PERCENT", help="allowed growth of the RMSE"
            ),
            click.Option(["--rate"], type=float, default=0.05, help="false discovery rate"),
        ],
        "SCORES: scores.json of a report. BASELINE: scores.json to compare with.",
    )
    plot = click.Option(["--plot"], type=PATH, metavar="FILE.png", help="draw sample maps of its fields")
    _command("inspect", "show what a store holds, on one screen", [click.Argument(["store"], type=PATH), plot])
    to = click.Option(["--to"], required=True, metavar="TARGET", help="anemoi, cmip6, grib, netcdf or weatherbench")
    output = click.Option(["--output"], type=PATH, required=True, help="where nothing lies yet; a folder is made")
    levels = "pressures in hPa, such as 500,850, to interpolate sigma or hybrid levels to"
    levels = click.Option(["--levels"], type=_Numbers(), metavar="HPA,...", help=levels)
    about = "write an analysis or forecast store for other tools"
    _command("export", about, [click.Argument(["store"], type=PATH), to, output, levels], "STORE: a finished one.")
    kinds = _several("kinds", "[KIND ...]", shell_complete=offered.networks)
    about = "list the kinds of networks, their options and parameter counts"
    _command("models", about, [kinds], "KIND: show these alone.")
    _command("doctor", "show devices and versions, and measure the speed of this machine and its network")
    shell = click.Argument(["shell"], type=click.Choice(list(shells.SHELLS)))
    words = (
        'Words complete on Tab after eval "$(emulator completion bash)", best in ~/.bashrc, of zsh in ~/.zshrc after '
        "compinit; in fish after emulator completion fish | source, best in config.fish."
    )
    _command("completion", "print what makes a shell complete words on Tab", [shell], words)


COMMANDS = _Commands(
    "emulator",
    context_settings=SETTINGS,
    help="Weather and climate emulators with closed budgets.",
    subcommand_metavar="STAGE ...",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="show the version and exit",
        )
    ],
)
_add_stages()
_add_files()
_add_others()
