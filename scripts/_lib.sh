# Sourced by the scripts beside it: finds the repository, a Python, and a virtual environment.
#
#   PYTHON        the interpreter to make the environment from (3.11 or newer)
#   RUNNER_VENV   where the environment stands (default: .venv here, or the user's cache folder
#                 when this folder can't be written)
# shellcheck shell=bash

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)

die() {
    printf '%s: %s\n' "scripts/$(basename -- "$0")" "$1" >&2
    exit "${2:-2}"
}

# Prints the interpreter to use. /usr/bin/python3 comes first because another user, and a
# process that gave up its uid, can read it: one under /root/.pyenv can't be.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        candidate=$(command -v -- "$candidate" || true)
        if [ -n "$candidate" ] &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        if [ -n "${PYTHON:-}" ]; then
            die "PYTHON=$PYTHON is not a Python 3.11 or newer; give the path of one"
        fi
    done
    die "no Python 3.11 or newer was found: apt-get install python3 python3-venv, or set PYTHON"
}

find_venv() {
    if [ -n "${RUNNER_VENV:-}" ]; then
        printf '%s\n' "$RUNNER_VENV"
    elif { [ -e "$ROOT/.venv" ] && [ -O "$ROOT/.venv" ] && [ -w "$ROOT/.venv" ]; } ||
        { [ ! -e "$ROOT/.venv" ] && [ -w "$ROOT" ]; }; then
        printf '%s\n' "$ROOT/.venv"
    else
        # A clone of somebody else's: one environment for each such clone.
        printf '%s/runner/venv-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" \
            "$(printf %s "$ROOT" | sha256sum | cut -c1-12)"
    fi
}

# Makes the environment if there is none and installs the package with its development tools
# when pyproject.toml is not the one that was installed last. Sets VENV, and PATH to it.
ensure_env() {
    local python stamp wanted
    VENV=$(find_venv)
    mkdir -p -- "$VENV"
    # Two scripts that start at once take turns.
    exec 9>"$VENV/.runner-lock"
    flock 9
    if ! "$VENV/bin/python" -c '' 2>/dev/null; then
        python=$(find_python) || exit  # it has said why
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            die "$python has no ensurepip to make an environment with: apt-get install python3-venv"
        fi
        printf 'making %s from %s\n' "$VENV" "$python" >&2
        "$python" -m venv --clear -- "$VENV" || die "no environment could be made in $VENV" 1
        exec 9>"$VENV/.runner-lock"  # --clear removed the file that the lock was on
        flock 9
    fi
    stamp=$VENV/.runner-installed
    wanted=$(printf '%s ' "$ROOT"; sha256sum < "$ROOT/pyproject.toml")
    if [ "$(cat -- "$stamp" 2>/dev/null)" != "$wanted" ]; then
        printf 'installing runner and its development tools into %s\n' "$VENV" >&2
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
            --editable "$ROOT[dev]" >&2 || die "pip could not install the package" 1
        printf '%s\n' "$wanted" > "$stamp"
    fi
    exec 9>&-
    PATH=$VENV/bin:$PATH
    export PATH
}
