"""What Tab offers: commands, options, files, dotted keys and values, as a real bash asks for them."""

import contextlib
import os
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import shells
from pipelines.commands import ABOUT, COMMANDS
from pipelines.config import STAGES, ConfigError
from pipelines.load import load_experiment

ROOT = Path(__file__).resolve().parents[2]
QUICK = "conf/quickstart.yaml"


@pytest.fixture
def ask(monkeypatch):
    monkeypatch.chdir(ROOT)

    def words(line: str) -> list[str]:
        monkeypatch.setenv(shells.LINE, f"emulator {line}")
        monkeypatch.setenv(shells.ASKED, "bash_complete")
        return shells.answer(COMMANDS).split("\n")

    return words


def test_commands_and_options(ask):
    assert ask("") == list(COMMANDS.commands) and set(STAGES) == set(ABOUT)
    assert ask("tr") == ["train", "train_downscaling"] and ask("r") == ["rollout", "report", "run"]
    assert {"--check", "--append", "--part", "--help"} <= set(ask("verify -"))
    assert ask(f"run {QUICK} --only st") == ["stats"]


def test_configuration_files_and_folders(ask, tmp_path):
    assert ask("train conf/q") == [QUICK] and "conf/train/sfno.yaml" in ask("train conf/train/")
    assert ask("train conf/tra") == ["conf/train/"]
    assert ask("submit --site conf/site/c") == ["conf/site/cpu_cluster.yaml"]
    assert "README.md" not in ask("train ") and "README.md" in ask("report ")
    (tmp_path / ".hidden.yaml").touch()
    assert ask(f"train {tmp_path}/") == [""] and ask(f"train {tmp_path}/.") == [f"{tmp_path}/.hidden.yaml"]


def test_names_with_blanks_are_one_word_of_the_shell(ask, tmp_path):
    (tmp_path / "my run (2).yaml").touch()
    escaped = rf"{tmp_path}/my\ run\ \(2\).yaml"
    for begun in ("my", r"my\ ", r"my\ ru"):
        assert ask(f"run {tmp_path}/{begun}") == [escaped]
    assert ask(rf"run {QUICK} train.store={tmp_path}/my\ r") == [escaped]
    for begun in ("my r", "my "):
        assert ask(f'run "{tmp_path}/{begun}') == [f"{tmp_path}/my run (2).yaml"]


def test_keys_of_the_section_and_of_the_experiment(ask):
    assert ask(f"train {QUICK} optimizer.l") == ["optimizer.lr="]
    assert {"train.", "directory=", "network.", "seed="} <= set(ask(f"train {QUICK} "))
    assert "seed=" not in ask(f"run {QUICK} ") and ask(f"run {QUICK} train.se") == ["train.seed="]
    assert "rollout." not in ask("ingest conf/ingest/cds.yaml "), "a file of one stage has no other sections"
    assert ask(f"run {QUICK} train.phases.") == ["train.phases.0.", "train.phases.1.", "train.phases.2."]
    assert ask(f"run {QUICK} train.phases.1.up") == ["train.phases.1.updates="]
    for wrong in ("trian.", "train.phases.9.", "train.seed.x", "directory.x"):
        assert ask(f"run {QUICK} {wrong}") == [""], wrong
    assert ask("run nothing.yaml train.optimizer.lr") == ["train.optimizer.lr="]


def test_values_are_those_that_the_configuration_takes(ask):
    assert ask(f"run {QUICK} train.precision=") == ["float32", "bfloat16"]
    assert ask(f"run {QUICK} train.compile=f") == ["false"]
    assert ask(f"run {QUICK} train.predict=a") == ["anomaly"]
    kinds = ask(f"run {QUICK} train.network.kind=")
    assert {"sfno", "graph", "unet"} <= set(kinds) and ask("models un") == ["unet"]
    assert ask(f"run {QUICK} rollout.ensemble.kind=l") == ["lagged"]
    for key, values in {"train.precision": ask(f"run {QUICK} train.precision="), "train.network.kind": kinds}.items():
        for value in values:
            if value in ("external", "torch_harmonics"):  # need more than their name
                continue
            try:
                load_experiment(ROOT / QUICK, [f"{key}={value}"])
            except ConfigError as error:
                assert key not in str(error), (key, value, error)


def test_keys_of_a_network_are_those_of_its_kind(ask):
    assert ask(f"run {QUICK} train.network.scale") == ["train.network.scale_factor="]
    assert ask(f"run {QUICK} train.network.kind=unet train.network.scale") == [""]
    assert ask(f"run {QUICK} train.network.kind=unet train.network.dep") == ["train.network.depth="]


TYPED = r"""
eval "$(emulator completion bash)"
tab() {
    COMP_LINE="$1" COMP_POINT=${#1}
    COMPREPLY=()
    _emulator_completion emulator 2>/dev/null
    printf '%s|' "${COMPREPLY[@]}"; echo
}
tab "emulator mod"
tab "emulator run QUICK train.precision=b"
tab "emulator run FOLDER/my\\ ru"
"""


@pytest.fixture
def shell(tmp_path):
    """What finds `emulator`, and a folder with a name that has to be quoted."""
    (tmp_path / "emulator").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipelines.cli "$@"\n')
    (tmp_path / "emulator").chmod(0o755)
    (tmp_path / "my run (2).yaml").touch()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "HOME": str(tmp_path), "TERM": "xterm"}


def ran(words: list[str], environment: dict[str, str]) -> list[str]:
    ended = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert not ended.stderr, ended.stderr
    return ended.stdout.splitlines()


def test_bash_itself_completes(shell, tmp_path):
    """The script that `emulator completion bash` prints, run by bash: what stands before `=` is not put there twice."""
    typed = TYPED.replace("QUICK", QUICK).replace("FOLDER", str(tmp_path))
    found = ran(["bash", "-c", typed], shell)
    assert found == ["models|", "bfloat16|", rf"{tmp_path}/my\ run\ \(2\).yaml|"]


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_itself_completes(shell, tmp_path):
    """Fish compares whole words with what is typed, and quotes what it puts there itself."""
    typed = ["mod", f"run {QUICK} train.precision=b", rf"run {tmp_path}/my\ ru", f"run {QUICK} train.see", "run ~/my"]
    lines = [f"complete -C {shlex.quote(f'emulator {words}')}" for words in typed]
    found = ran(["fish", "--no-config", "-c", "\n".join(["emulator completion fish | source", *lines])], shell)
    first = f"{tmp_path}/my run (2).yaml"
    assert found == ["models", "train.precision=bfloat16", first, "train.seed=", "~/my run (2).yaml"]


ZSH = """PS1=
eval "$(emulator completion zsh)"
tell() { print -r -- "$BUFFER|" >> told; BUFFER= }
zle -N tell
bindkey '^O' tell
bindkey '^I' complete-word
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_itself_completes(shell, tmp_path):
    """Keys as they are typed into a terminal: what the line is after Tab. A blank follows what is finished."""
    (tmp_path / ".zshrc").write_text(ZSH)
    typed = ["mod", "run QUICK train.precision=b", r"run my\ ru", 'run "my r', "run QUICK train.see", "run ~/my"]
    lines = [f"emulator {words}".replace("QUICK", str(ROOT / QUICK)) for words in typed]
    terminal, end = os.openpty()
    shell |= {"ZDOTDIR": str(tmp_path)}
    process = subprocess.Popen(
        ["zsh", "-i"], stdin=end, stdout=end, stderr=end, cwd=tmp_path, env=shell, start_new_session=True
    )
    os.close(end)
    os.write(terminal, "".join(f"{line}\t\x0f" for line in lines).encode() + b"exit\n")
    shown = b""
    with contextlib.suppress(OSError):  # as Linux says that nobody holds the other end
        while select.select([terminal], [], [], 60)[0]:
            shown += os.read(terminal, 1024)
    process.kill()  # one that waits for more
    process.wait()
    os.close(terminal)
    made = [line.removeprefix("emulator ") for line in (tmp_path / "told").read_text().splitlines()]
    quick = ROOT / QUICK
    assert made == [
        "models |",
        f"run {quick} train.precision=bfloat16 |",
        r"run my\ run\ \(2\).yaml |",
        'run "my run (2).yaml" |',
        f"run {quick} train.seed=|",
        r"run ~/my\ run\ \(2\).yaml |",
    ], shown


def test_pages_of_help_load_nothing_of_the_library():
    code = (
        "import sys, pipelines.cli as cli\n"
        "for words in (['--help'], ['train', '--help']):\n"
        "    try: cli.main(words)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'xarray', 'numpy', 'pydantic', 'emulator', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
