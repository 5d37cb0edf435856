"""The table of ``benchmarks.detectors``."""

from typing import Any

from benchmarks.markdown import footnote, spread, table
from benchmarks.measure import summary

NAMES = {"ours": "`experiments.yolo`", "torchvision": "torchvision's `ssdlite320_mobilenet_v3_large`"}


def detectors_table(result: dict[str, Any]) -> str:
    """Returns size, training and average precision of each detector."""
    header = ["detector", "parameters", "scenes seen", "seconds", "mAP", "mAP at IoU 0.5", "n"]
    rows = []
    for name, seeds in result["runs"].items():
        means = {key: summary([row[key] for row in seeds]) for key in ("scenes", "seconds", "map", "map_50")}
        scenes, seconds = (f"{means[key]['mean']:,.0f}" for key in ("scenes", "seconds"))
        reached = (spread(means[key], 3) for key in ("map", "map_50"))
        rows.append([NAMES[name], f"{seeds[0]['parameters']:,}", scenes, seconds, *reached, str(len(seeds))])
    peer, versions = result["peer"], result["runs"]["torchvision"][0]["versions"]
    notes = (
        "From scratch, on the same 2,000 test scenes, by the same program; mean ± standard deviation over n seeds. The "
        f"peer trains for the median of the seconds of our whole runs, with {peer['optimizer']} in "
        f"{peer['precision']}, on scenes that are composed before. {footnote(result)}, torch {versions['torch']}, "
        f"torchvision {versions['torchvision']}."
    )
    return table(header, rows, notes)
