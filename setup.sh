#!/bin/sh
# Makes .venv/ with the newest Python that runs, which it keeps, and all that training and the tests need, in pinned
# versions. PYTHON=/path/to/python sh setup.sh takes that one. Does nothing when all is there already.
set -eu
cd "$(dirname "$0")"

# COMMAND MINOR...: prints its path if it runs, is 3.MINOR, and can make environments. A pyenv shim may be on PATH and
# not run. Of an environment it prints the Python that it was made with, as .venv itself may be the one that is active.
real_python() {
    "$@" 2>/dev/null <<'END'
import ensurepip, os, sys, sysconfig, venv
is_wanted = str(sys.version_info[1]) in sys.argv[1:] and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(os.path.realpath(sys.executable) if is_wanted else sys.exit(1))
END
}

find_python() {
    for minor in 13 12 11; do
        for candidate in "python3.$minor" python3 python "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/3.$minor".*/bin/python; do
            real_python "$candidate" - "$minor" && return
        done
    done
}

# The Python that is asked for, else that of .venv, else the newest.
stamp=.venv/set-up
python=$(real_python "${PYTHON:-$(sed -n 2p $stamp 2>/dev/null)}" - 11 12 13 || true)
if [ -z "${PYTHON:-}$python" ]; then python=$(find_python || true); fi
if [ -z "$python" ]; then
    echo "error: ${PYTHON:-python3} is not a Python 3.11, 3.12 or 3.13 with venv;" \
        "install one (on Debian and Ubuntu: python3 python3-venv), or name it: PYTHON=/path/to/python" >&2
    exit 2
fi
# The place too, as an environment does not work elsewhere.
wanted="$(cat pyproject.toml constraints.txt | cksum) $PWD
$python"
if [ "$(cat $stamp 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then exit 0; fi
again=
if [ -f $stamp ]; then again=" again (packages that you installed there are removed: install extras such as '.[cuda]' again)"; fi
echo "setting up .venv$again with $("$python" --version), which takes a minute or two"
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
# Written last, so that an interrupted set-up is repeated.
echo "$wanted" > $stamp
