#!/bin/sh
# Guess: Image.resize, a separable filter in integers, gives the same pixels in every Pillow: rows first, then columns.
# Instead: since 13.0 columns come first if the height loses more than twice as many pixels as the width, so that the
# same tall picture gives other pixels than with 12.3, by up to 18 levels where edges are sharp; wide pictures do not.
# After the first pass values are rounded and clipped to 0 ... 255, so that the order of the passes is seen.
# Versions: Pillow 13.0.0 beside 12.3.0; CPU (Linux, x86-64).
# Source: https://github.com/python-pillow/Pillow/pull/9549, which is about speed.
# Consequence: digests of resized images, caches of decoded data sets and golden tests change for tall pictures only; a
# network that was trained with one version sees other pixels with the other; a port of the filter needs the rule.
# Avoid: pin Pillow where pixels are compared or cached; resize one axis at a time, in an order of one's own.
#
# sh findings/pillow_tall_resize.sh runs the pinned versions; two versions given as arguments replace them.
set -eu
[ $# -gt 0 ] || set -- 12.3.0 13.0.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
cd "$work"
cat > resize.py <<'END'
import sys

import numpy as np
import PIL
from PIL import Image

rng = np.random.default_rng(0)
# A page with black and white squares, and a smooth picture, each tall and wide.
page = 255 * rng.integers(0, 2, (50, 20), np.uint8).repeat(8, 0).repeat(8, 1)
smooth = np.add.outer(np.linspace(0, 120, 400), np.linspace(0, 120, 160)).astype(np.uint8)
smooth = smooth + rng.integers(0, 10, smooth.shape, np.uint8)
for name, pixels in {"page": page, "smooth": smooth}.items():
    for kind, array in {"tall": pixels, "wide": pixels.T}.items():
        resized = Image.fromarray(array.copy()).resize((28, 28), Image.Resampling.BICUBIC)
        np.save(f"{sys.argv[1]}-{name}-{kind}.npy", np.asarray(resized))
print("Pillow", PIL.__version__)
END
cat > compare.py <<'END'
import numpy as np

seen = {}
for name in ("page", "smooth"):
    for kind in ("tall", "wide"):
        first, second = (np.load(f"{which}-{name}-{kind}.npy").astype(int) for which in ("old", "new"))
        away = np.abs(first - second)
        seen[name, kind] = away.max()
        print(f"seen: {name}, {kind}: {(away > 0).mean():4.0%} of the pixels differ, by at most {away.max()} levels")
print("expected: none differs")
raise SystemExit(not (seen["page", "tall"] > 5 and seen["page", "wide"] == seen["smooth", "wide"] == 0))
END
for which in old new; do
    "${PYTHON:-python3}" -m venv "$work/$which"
    "$work/$which/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "pillow==$1" numpy
    "$work/$which/bin/python" resize.py "$which"
    shift
done
"$work/old/bin/python" compare.py
