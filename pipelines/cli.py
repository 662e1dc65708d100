"""The command line: `emulator STAGE CONFIG [--check] [dotted.name=value ...]`."""

import importlib
import json
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from pipelines import shells
from pipelines.commands import COMMANDS, parse

EX_PIPE = 128 + 13  # exit code of a program that SIGPIPE has ended, as shells report it
EX_TEMPFAIL = 75  # sysexits.h: try again later; schedulers requeue on it


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Expected faults end in one sentence, not a traceback."""
    if arguments is None and shells.ASKED in os.environ:
        print(shells.answer(COMMANDS))
        return 0
    options = parse(sys.argv[1:] if arguments is None else arguments)
    # What follows takes half a second to import, which a page of help need not wait for.
    from emulator.files.interruption import Interrupted
    from pipelines.messages import log_to_stderr, output_is_closed, print_error
    from pipelines.signals import ignore, stopping_at_once

    log_to_stderr(options.verbose)
    try:
        with stopping_at_once(restore=arguments is not None):
            code = ACTIONS.get(options.command, _stage)(options) or 0
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


def _print(lines: Iterable[str]) -> None:
    """Each line as soon as it is there."""
    for line in lines:
        print(line)


def _stage(options) -> None:
    from pipelines.load import load_stage

    name = options.command
    config = load_stage(name, options.config, options.overrides)
    if options.check:
        from pipelines.check import check_stage

        _print(check_stage(name, config))
        return
    more = {key: getattr(options, key) for key in ("part", "append") if hasattr(options, key)}
    getattr(importlib.import_module(f"pipelines.{name}"), name)(config, **more)


def _run(options) -> None:
    from pipelines.load import load_experiment

    experiment = load_experiment(options.config, options.overrides)
    if options.check:
        from pipelines.check import check_experiment

        _print(check_experiment(experiment))
        return
    from pipelines.run import run

    run(experiment, options.only)


def _init(options) -> None:
    from pipelines.init import init

    _print(init(options.files, options.output, options.directory or f"runs/{options.output.stem}", options.source))


def _publish(options) -> None:
    from emulator.model.published import publish

    print(f"{publish(options.model, options.output, options.licence, options.scores)}  {options.output}")


def _fetch(options) -> None:
    from emulator.model.published import fetch

    print(f"{fetch(options.url, options.output, options.sha256)} is a checkpoint; its README.md tells what of")


def _submit(options) -> None:
    from pipelines.load import load_experiment
    from pipelines.site import load_site
    from pipelines.submit import dry_run, submit

    experiment, site = load_experiment(options.config, options.overrides), load_site(options.site)
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


def _export(options) -> None:
    from emulator.exports.export import export

    print(export(options.store, options.to, options.output, options.levels))


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


def _completion(options) -> None:
    print(shells.script(COMMANDS, options.shell))


ACTIONS = {  # of all other commands `_stage`
    "init": _init,
    "publish": _publish,
    "fetch": _fetch,
    "run": _run,
    "submit": _submit,
    "status": _status,
    "report": _report,
    "gate": _gate,
    "inspect": _inspect,
    "export": _export,
    "models": _models,
    "doctor": _doctor,
    "completion": _completion,
}


if __name__ == "__main__":
    sys.exit(main())
