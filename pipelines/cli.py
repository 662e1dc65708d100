"""The command line: `emulator STAGE CONFIG [--check] [dotted.name=value ...]`."""

import argparse
import importlib
import json
import logging
import os
import select
import sys
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from emulator.files.interruption import Interrupted
from pipelines import load
from pipelines.signals import ignore, stopping_at_once
from pipelines.wording import plain

EX_PIPE = 128 + 13  # what a shell tells of a program that SIGPIPE has ended
EX_TEMPFAIL = 75  # sysexits.h: try again later; schedulers requeue on it

ABOUT = {
    "simulate": "run the embedded general circulation model as a source of data",
    "ingest": "bring NetCDF, GRIB or Zarr sources into one analysis store",
    "stats": "statistics of the training period",
    "train": "train a network",
    "rollout": "forecasts from many initial times",
    "verify": "scores of forecasts against the truth",
    "report": "one HTML page of scores, maps and budgets",
    "run": "the whole chain, skipping what is complete",
}

OVERRIDES = {
    True: "replace single values of the experiment: train.seed=1 directory=DIR",
    False: "replace single values, in the stage's section: seed=1, or from the experiment's top: train.seed=1 directory=DIR",
}

SHARED = ("ingest", "rollout", "verify")  # stages whose work can be cut into independent shares
APPENDING = ("ingest", "verify")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Expected faults end in one sentence, not a traceback."""
    options = _parser().parse_args(arguments)
    _log_to_stderr(options.verbose)
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
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return EX_PIPE
        if options.verbose:
            logging.getLogger("emulator").exception("traceback")
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error[/]: {options.command}: ", end="")
        print(_sentence(error), file=sys.stderr)
        return 1


def _nobody_reads() -> bool:
    """Whether the reader of what is printed has gone, as `head` does; then Python is kept from complaining at its end."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    gone = any(event & select.POLLERR for _, event in output.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return plain(" ".join(str(error).split())) or type(error).__name__


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


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emulator", description="Weather and climate emulators with closed budgets.")
    parser.add_argument("--version", action="version", version=f"emulator {version('emulator')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE", parser_class=_Intermixed)
    for name, about in ABOUT.items():
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("config", type=Path, help="YAML of the stage, or of an experiment that has it")
        command.add_argument("overrides", nargs="*", metavar="dotted.name=value", help=OVERRIDES[name == "run"])
        command.add_argument("--check", action="store_true", help="check configuration, files and shapes; run nothing")
        command.add_argument("-v", "--verbose", action="store_true", help="debug messages and tracebacks")
        command.set_defaults(action=_run if name == "run" else _stage)
        if name in SHARED:
            command.add_argument(
                "--part", type=_part, metavar="i/N", help="only the i-th of N shares; leaves the rest open"
            )
        if name in APPENDING:
            command.add_argument("--append", action="store_true", help="keep what is at the output, add the new times")
    commands.choices["run"].add_argument("--only", metavar="STAGE", help="one stage, whose inputs must be complete")
    submit = commands.add_parser("submit", help="the chain as dependent Slurm jobs")
    submit.add_argument("config", type=Path, help="YAML of an experiment")
    submit.add_argument("overrides", nargs="*", metavar="dotted.name=value", help="replace single values")
    submit.add_argument("--site", type=Path, required=True, help="YAML of the cluster; see conf/site")
    submit.add_argument("--dry-run", action="store_true", help="print the scripts; write and queue nothing")
    submit.add_argument("-v", "--verbose", action="store_true")
    submit.set_defaults(action=_submit)
    status = commands.add_parser("status", help="state, progress and last log lines of every stage of a run")
    status.add_argument("run", type=Path, help="the run directory")
    status.add_argument("--lines", type=int, default=3, help="of each log")
    status.add_argument("-v", "--verbose", action="store_true")
    status.set_defaults(action=_status)
    report = commands.choices["report"]
    report.usage = "emulator report CONFIG [dotted.name=value ...]  |  emulator report [NAME=]SCORES [NAME=]SCORES ..."
    report.add_argument("--output", type=Path, help="folder of the page; of compared models by default comparison")
    report.add_argument("--title", help="of the page")
    report.set_defaults(action=_report)
    gate = commands.add_parser("gate", help="exit code 1 where scores are significantly worse than a baseline's")
    gate.add_argument("scores", type=Path, help="scores.json of a report")
    gate.add_argument("baseline", type=Path, help="scores.json to compare with")
    gate.add_argument(
        "--tolerance", type=float, default=0.0, metavar="PERCENT", help="growth of the RMSE that is let pass"
    )
    gate.add_argument("--rate", type=float, default=0.05, help="false discovery rate")
    gate.add_argument("-v", "--verbose", action="store_true")
    gate.set_defaults(action=_gate)
    models = commands.add_parser("models", help="kinds of networks, their options and parameter counts")
    models.add_argument("-v", "--verbose", action="store_true")
    models.set_defaults(action=_models)
    doctor = commands.add_parser("doctor", help="devices, versions, rates of products and between processes")
    doctor.add_argument("-v", "--verbose", action="store_true")
    doctor.set_defaults(action=_doctor)
    inspect = commands.add_parser("inspect", help="what a store holds, on one screen")
    inspect.add_argument("store", type=Path)
    inspect.add_argument("--plot", type=Path, metavar="FILE.png", help="draw sample maps of its fields")
    inspect.add_argument("-v", "--verbose", action="store_true")
    inspect.set_defaults(action=_inspect)
    return parser


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected i/N with 1 <= i <= N, got {text!r}")
    return int(number), int(count)


def _stage(options) -> None:
    name = options.command
    config = load.load_stage(name, options.config, options.overrides)
    if options.check:
        from pipelines.check import check_stage

        for line in check_stage(name, config):
            print(line)
        return
    more = {"part": options.part} if name in SHARED else {}
    more |= {"append": options.append} if name in APPENDING else {}
    importlib.import_module(f"pipelines.{name}").__dict__[name](config, **more)


def _run(options) -> None:
    experiment = load.load_experiment(options.config, options.overrides)
    if options.check:
        from pipelines.check import check_experiment

        for line in check_experiment(experiment):
            print(line)
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

    found = judge(read(options.scores), read(options.baseline), options.rate, options.tolerance)
    failed = [finding for finding in found if finding.verdict in ("worse", "missing")]
    for finding in found:
        if finding.verdict != "same":
            print(finding.line())
    print(f"{len(failed)} of {len(found)} scores are significantly worse or missing")
    return 1 if failed else 0


def _doctor(options) -> None:
    from pipelines.doctor import doctor

    for line in doctor():
        print(line)


def _models(options) -> None:
    from pipelines.models import models

    print(models())


def _inspect(options) -> None:
    from pipelines.inspect import inspect

    print(inspect(options.store))
    if options.plot:
        from pipelines.inspect import plot

        print(f"{plot(options.store, options.plot)} maps in {options.plot}")


def _log_to_stderr(verbose: bool) -> None:
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
        handler.setFormatter(_Formatter("%(message)s", datefmt="%H:%M:%S"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    level = logging.DEBUG if verbose or os.environ.get("EMULATOR_DEBUG") else logging.INFO
    for name in ("emulator", "pipelines"):
        logging.getLogger(name).setLevel(level)
    # s3fs and gcsfs leave sessions to be collected, which tells asyncio to complain in the middle of what is said here
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
