"""The command line: `emulator STAGE CONFIG [--check] [dotted.name=value ...]`."""

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from emulator.files.interruption import Interrupted
from pipelines import load
from pipelines.messages import log_to_stderr, output_is_closed, print_error
from pipelines.signals import ignore, stopping_at_once

EX_PIPE = 128 + 13  # exit code of a program that SIGPIPE has ended, as shells report it
EX_TEMPFAIL = 75  # sysexits.h: try again later; schedulers requeue on it

ABOUT = {
    "simulate": "run the embedded general circulation model to make source data",
    "ingest": "convert NetCDF, GRIB or Zarr sources into one analysis store",
    "stats": "compute the statistics of the training period",
    "train": "train a network",
    "observe": "make observations of a nature run, and read real ones from tables",
    "assimilate": "make one analysis from a background and observations",
    "cycle": "make analyses and forecasts by turns",
    "rollout": "run forecasts from many initial times",
    "verify": "score forecasts against the truth",
    "report": "write an HTML page of scores, maps and budgets",
}
PARTITIONED = ("simulate", "ingest", "rollout", "verify")  # stages whose work can be cut into independent parts
APPENDING = ("ingest", "verify")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Expected faults end in one sentence, not a traceback."""
    options = _parser().parse_args(arguments)
    log_to_stderr(options.verbose)
    try:
        with stopping_at_once(restore=arguments is not None):
            code = options.action(options) or 0
            sys.stdout.flush()
            return code
    except Interrupted as stop:
        if arguments is None:  # this process ends now
            ignore()
        logging.getLogger("emulator").warning("%s", stop)
        return EX_TEMPFAIL
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted; start again to go on", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and output_is_closed():
            return EX_PIPE
        if options.verbose:
            logging.getLogger("emulator").exception("traceback")
        print_error(options.command, error)
        return 1


class _Intermixed(argparse.ArgumentParser):
    """A command whose overrides may stand before, between and after its options.

    A plain parser gives the overrides what stands before the first option, and has no place for the rest.
    """

    _within = False

    def parse_known_args(self, args=None, namespace=None):
        if self._within:  # what is called below calls this again
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emulator", description="Weather and climate emulators with closed budgets.")
    parser.add_argument("--version", action="version", version=f"emulator {version('emulator')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE", parser_class=_Intermixed)

    def command(name, action, about):
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(action=action)
        added.add_argument("-v", "--verbose", action="store_true", help="show debug messages and tracebacks")
        return added

    for name, about in ABOUT.items():
        stage = command(name, _report if name == "report" else _stage, about)
        _configured(stage, "the stage, or of an experiment that has it", "of the section (seed=1) or the experiment")
        stage.add_argument("--check", action="store_true", help="check configuration, files and shapes; run nothing")
        if name in PARTITIONED:
            stage.add_argument("--part", type=_part, metavar="i/N", help="do only the i-th of N parts of the work")
        if name in APPENDING:
            stage.add_argument("--append", action="store_true", help="keep the output and add the new times to it")
        if name == "report":
            stage.usage = (
                "emulator report CONFIG [dotted.name=value ...]  |  emulator report [NAME=]SCORES [NAME=]SCORES ..."
            )
            stage.add_argument("--output", type=Path, help="folder of the page; by default `comparison` for SCORES")
            stage.add_argument("--title", help="title of the page")

    run = command("run", _run, "run all stages, skipping those that are complete")
    _configured(run, "an experiment", "of the experiment")
    run.add_argument("--check", action="store_true", help="check configuration, files and shapes; run nothing")
    run.add_argument("--only", metavar="STAGE", help="run one stage, whose inputs must be complete")

    submit = command("submit", _submit, "queue all stages as dependent Slurm jobs")
    _configured(submit, "an experiment", "of the experiment")
    submit.add_argument("--site", type=Path, required=True, help="YAML of the cluster; see conf/site")
    submit.add_argument("--dry-run", action="store_true", help="print the scripts; write and queue nothing")

    status = command("status", _status, "show the state, progress and last log lines of every stage of a run")
    status.add_argument("run", type=Path, help="the run directory")
    status.add_argument("--lines", type=int, default=3, help="lines of each log")

    gate = command("gate", _gate, "exit with code 1 if scores are significantly worse than a baseline's")
    gate.add_argument("scores", type=Path, help="scores.json of a report")
    gate.add_argument("baseline", type=Path, help="scores.json to compare with")
    gate.add_argument("--tolerance", type=float, default=0.0, metavar="PERCENT", help="allowed growth of the RMSE")
    gate.add_argument("--rate", type=float, default=0.05, help="false discovery rate")

    inspect = command("inspect", _inspect, "show what a store holds, on one screen")
    inspect.add_argument("store", type=Path)
    inspect.add_argument("--plot", type=Path, metavar="FILE.png", help="draw sample maps of its fields")

    models = command("models", _models, "list the kinds of networks, their options and parameter counts")
    models.add_argument("kinds", nargs="*", metavar="KIND", help="show these alone")
    command("doctor", _doctor, "show devices and versions, and measure the speed of this machine and its network")
    return parser


def _configured(command: argparse.ArgumentParser, whose: str, values: str) -> None:
    command.add_argument("config", type=Path, help=f"YAML of {whose}")
    text = f"replace single values {values} (train.seed=1 directory=DIR)"
    command.add_argument("overrides", nargs="*", metavar="dotted.name=value", help=text)


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected i/N with 1 <= i <= N, got {text!r}")
    return int(number), int(count)


def _print(lines: Iterable[str]) -> None:
    """Each line as soon as it is there."""
    for line in lines:
        print(line)


def _stage(options) -> None:
    name = options.command
    config = load.load_stage(name, options.config, options.overrides)
    if options.check:
        from pipelines.check import check_stage

        _print(check_stage(name, config))
        return
    more = {key: getattr(options, key) for key in ("part", "append") if hasattr(options, key)}
    getattr(importlib.import_module(f"pipelines.{name}"), name)(config, **more)


def _run(options) -> None:
    experiment = load.load_experiment(options.config, options.overrides)
    if options.check:
        from pipelines.check import check_experiment

        _print(check_experiment(experiment))
        return
    from pipelines.run import run

    run(experiment, options.only)


def _submit(options) -> None:
    from pipelines.site import load_site
    from pipelines.submit import dry_run, submit

    experiment, site = load.load_experiment(options.config, options.overrides), load_site(options.site)
    if options.dry_run:
        print(dry_run(experiment, site))
        return
    for name, number in submit(experiment, site).items():
        print(f"{name}: job {number}")


def _status(options) -> None:
    from pipelines.status import as_text, status

    print(as_text(status(options.run, options.lines)))


def _report(options) -> None:
    """One report from a configuration, or several files of scores compared."""
    chosen = {name: str(getattr(options, name)) for name in ("output", "title") if getattr(options, name) is not None}
    if options.config.suffix in (".yaml", ".yml"):
        options.overrides += [f"{name}={json.dumps(value)}" for name, value in chosen.items()]
        _stage(options)
        return
    from pipelines.report import compare

    compare([str(options.config), *options.overrides], Path(chosen.pop("output", "comparison")), **chosen)


def _gate(options) -> int:
    from emulator.report.gate import judge, read

    findings = judge(read(options.scores), read(options.baseline), options.rate, options.tolerance)
    failed = [finding for finding in findings if finding.verdict in ("worse", "missing")]
    for finding in findings:
        if finding.verdict != "same":
            print(finding.line())
    print(f"{len(failed)} of {len(findings)} scores are significantly worse or missing")
    return 1 if failed else 0


def _doctor(options) -> None:
    from pipelines.doctor import doctor

    _print(doctor())


def _models(options) -> None:
    from pipelines.models import models

    print(models(options.kinds))


def _inspect(options) -> None:
    from pipelines.inspect import inspect

    print(inspect(options.store))
    if options.plot:
        from pipelines.inspect import plot

        print(f"{plot(options.store, options.plot)} maps in {options.plot}")


if __name__ == "__main__":
    sys.exit(main())
