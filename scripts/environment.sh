# Sourced: makes .venv with Python >= 3.11 if it is not there, installs this package with the extras $1
# (one,two), and activates it. A stamp skips the installation while pyproject.toml
# and the compiled sources are those it was made from.
extras="$1"
for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python="$candidate"
        break
    fi
done
if [ -z "${python:-}" ]; then
    echo "Expected Python 3.11 or newer, found none; set PYTHON to one" >&2
    exit 1
fi
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear .venv || { echo "Could not make .venv: install Python's venv module (Debian: python3-venv)" >&2; exit 1; }
fi
stamp=".venv/installed-$extras-$(cat pyproject.toml emulator/kernels/*.[ch] | cksum | cut -d' ' -f1)"
if [ ! -e "$stamp" ]; then
    echo "Installing emulator[$extras] into .venv (a few minutes, several gigabytes)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH" VIRTUAL_ENV="$PWD/.venv"
unset PYTHONHOME PYTHONPATH
