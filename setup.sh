#!/bin/sh
# Makes .venv/ with the newest Python that runs and all that training and the tests need, in pinned versions.
# PYTHON=/path/to/python sh setup.sh takes that one. Does nothing when all is there already.
set -eu
cd "$(dirname "$0")"

wanted="${PYTHON:-newest} $(cat pyproject.toml constraints.txt | cksum)"
# Written last, so that an interrupted set-up is begun anew.
stamp=.venv/set-up
if [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then exit 0; fi

is_python() { # COMMAND MINOR...: it runs, is 3.MINOR, and can make environments; a pyenv shim may be on PATH and not run
    python=$1; shift
    "$python" -c 'import ensurepip, sys, venv; sys.exit(str(sys.version_info[1]) not in sys.argv[1:])' "$@" 2>/dev/null
}

find_python() {
    for minor in 13 12 11; do
        for python in "python3.$minor" python3 python "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor".*/bin/python; do
            if is_python "$python" "$minor"; then echo "$python"; return; fi
        done
    done
}

python=${PYTHON:-$(find_python)}
if ! is_python "${python:-none}" 11 12 13; then
    echo "error: ${python:-python3} is not a Python 3.11, 3.12 or 3.13 with venv;" \
        "install one (on Debian and Ubuntu: python3 python3-venv), or name it: PYTHON=/path/to/python" >&2
    exit 2
fi
echo "setting up .venv with $("$python" --version), which takes a minute or two"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
echo "$wanted" > $stamp
