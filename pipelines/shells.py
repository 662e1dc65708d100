"""How bash, zsh and fish ask for what Tab offers, and in what form they are told."""

import os
import re
import shlex

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

from pipelines.offered import paths_from

ASKED = "_EMULATOR_COMPLETE"  # what the shell sets to ask, to zsh_complete of zsh
LINE = "EMULATOR_LINE"  # what is typed of the command, up to the cursor
BREAKS = "=:"  # where bash cuts words, besides blanks
SPECIAL = re.compile(r"[\s\\'\"$`&|;<>()*?!]")  # what bash would take for more than a letter of a name


class Shell(ShellComplete):
    """A shell that hands over the line as it was typed and puts the words that it is told in place of the last one.

    A name that goes on (a section, a key, a folder) is not followed by a blank.
    """

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get(LINE, "")
        words = split_arg_string(line)[1:]
        begins = not words or (line[-1].isspace() and not line.endswith("\\ ") and not _within_quotes(line))
        return (words, "") if begins else (words[:-1], words[-1])

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        if any(item.type in ("file", "dir") for item in found):  # what click leaves to the shell
            found = [CompletionItem(path) for path in paths_from(incomplete)]
        return found

    def format_completion(self, item: CompletionItem) -> str:
        return str(item.value)


class Bash(Shell):
    """Bash cuts words at `=` and `:`, which stand within ours: what stands before the last cut is taken off the answers."""

    name = "bash"
    source_template = r"""%(complete_func)s() {
    local answers
    mapfile -t answers < <(EMULATOR_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1" 2>/dev/null)
    COMPREPLY=("${answers[@]}")
    case ${answers[0]-} in *[./=]) compopt -o nospace ;; esac
}
complete -o nosort -F %(complete_func)s %(prog_name)s"""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        cut = max(incomplete.rfind(mark) for mark in BREAKS) + 1
        answers = [str(item.value)[cut:] for item in found]
        if not _within_quotes(os.environ.get(LINE, "")):
            answers = [SPECIAL.sub(r"\\\g<0>", each) for each in answers]
        return [CompletionItem(each) for each in answers]


class Zsh(Shell):
    """Zsh puts backslashes where they are needed itself, and one before `~`, so that this is kept from it.

    Its own completion is begun where the shell's configuration has not done so.
    """

    name = "zsh"
    source_template = r"""(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
%(complete_func)s() {
    local line="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX"
    local -a answers whole
    answers=(${(f)"$(EMULATOR_LINE="$line" %(complete_var)s=zsh_complete "${(Q)words[1]}" 2>/dev/null)"})
    [[ $PREFIX = \~* ]] && compset -P 1 '*/' && answers=(${answers#*/})
    whole=(${answers:#*[./=]})
    compadd -V whole -a whole
    compadd -V begun -S '' -- ${(M)answers:#*[./=]}
}
compdef %(complete_func)s %(prog_name)s"""


class Fish(Shell):
    """Fish quotes what needs it itself, and puts no blank after `.`, `/` and `=`."""

    name = "fish"
    source_template = r"""function %(complete_func)s
    set -l typed (commandline -opc)
    EMULATOR_LINE=(commandline -cp | string collect) %(complete_var)s=fish_complete $typed[1] 2>/dev/null
end
complete -c %(prog_name)s -f -k -a '(%(complete_func)s)'"""


SHELLS = {shell.name: shell for shell in (Bash, Zsh, Fish)}
for _shell in SHELLS.values():
    add_completion_class(_shell)


def answer(commands: click.Command) -> str:
    """What the shell that asks is told, line by line."""
    name = os.environ.get(ASKED, "").partition("_")[0]
    return SHELLS.get(name, Bash)(commands, {}, "emulator", ASKED).complete()


def script(commands: click.Command, shell: str) -> str:
    """What makes a shell ask."""
    return SHELLS[shell](commands, {}, "emulator", ASKED).source()


def _within_quotes(line: str) -> bool:
    """Whether a line ends within quotes that it has opened, where nothing needs a backslash."""
    try:
        shlex.split(line)
    except ValueError as error:
        return "quotation" in str(error)
    return False
