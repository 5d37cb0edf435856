#!/bin/sh
# Guess: safetensors.numpy.save of the same arrays and metadata gives the same bytes: the format has no timestamp.
# Instead: with two or more entries of metadata, the bytes differ from process to process, as entries are written in
# the random order of a hash map. Within one process the order differs from call to call as well.
# Versions: safetensors 0.8.0; CPU (Linux, x86-64).
# Source: own measurement. The README calls the format safe and simple, and tensors are sorted; metadata is not.
# Consequence: a digest of the file says that weights have changed where nothing has; caches, content addresses and
# reproducible builds of the same network differ.
# Avoid: one entry of metadata (a JSON text of sorted keys), or write the header oneself: it is JSON of a known length.
#
# sh findings/safetensors_metadata_order.sh runs the pinned versions; packages given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- safetensors==0.8.0 "numpy==2.5.5; python_version >= '3.12'" "numpy==2.4.6; python_version < '3.12'"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"
cd "$work"
cat > save.py <<'END'
import hashlib
import sys

import numpy as np
from safetensors.numpy import save

entries = {f"key{number}": "value" for number in range(int(sys.argv[1]))}
print(hashlib.sha256(save({"kernel": np.zeros(3, np.float32)}, entries)).hexdigest())
END
"$work/venv/bin/python" -c "import safetensors; print('safetensors', safetensors.__version__)"
for entries in 1 8; do
    for run in 1 2 3 4 5; do "$work/venv/bin/python" save.py "$entries"; done | sort -u | wc -l > "digests$entries"
done
one=$(tr -d ' ' < digests1)
eight=$(tr -d ' ' < digests8)
echo "seen: of five processes, $one digest with one entry of metadata, $eight with eight entries"
echo "expected: 1 and 1"
[ "$one" = 1 ] && [ "$eight" -gt 1 ]
