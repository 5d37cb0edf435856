"""Networks of the ladder beside the same in PyTorch and Keras: training steps, validation, inference, memory.

python -m benchmarks.rungs [--rounds 3] [--rungs vit ...] [--precisions bfloat16] [--batches 128] [--results DIR]
python -m benchmarks.rungs --check    only compares parameter counts, and logits from the same weights

Each framework is a process for each rung and precision, which has warmed up and is idle while another works; a round
goes through all of them, and ratios are taken round by round. Before, between and after, loops on all cores measure
whether other programs run (benchmarks/idle.py): with any, nothing is measured, or a round is repeated. An image is a
uint8 array in memory for us and in float32 for the peers; all train with Adam, dropout, and no augmentation.
"""

import json
import math
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from benchmarks import idle
from benchmarks.epoch import summarise
from benchmarks.measure import (
    RESULTS,
    compiled_programs_in,
    machine,
    origin,
    run_main,
    save_images,
    write_result,
)
from benchmarks.workers import Ask, worker
from cnn.errors import ConfigError

Rung = Literal["fashion_cnn", "lstm", "alexnet", "resnet20", "efficientnet", "vit"]
Precision = Literal["float32", "bfloat16"]
Framework = Literal["ours", "keras_tensorflow", "torch", "torch_compiled"]

KEYS = ("rung", "precision", "what", "images")
"""What makes the kind of a measurement: ``what`` took its seconds for that number of images."""

VAL_IMAGES, INFERENCE_BATCHES = 1000, (1, 100)

LEAST_SECONDS = {"train step": 1.0, "validation": 0.5, "inference": 0.4}
"""Duration of a measurement, in which passes are repeated."""

LARGEST_DIFFERENCE = 1e-4
"""Of two logits from the same float32 weights and image."""

TRIES = 3
"""A round during which other programs ran is measured again; the whole is given up after so many."""

LIMIT = 600
"""Seconds for an answer: torch.compile takes minutes for a network on two cores."""


Process = Callable[..., AbstractContextManager[Ask]]
"""``worker`` without its name and precision."""

Rows = list[dict[str, Any]]


class Plan(NamedTuple):
    """What is measured of each rung and precision."""

    batches: tuple[int, ...]
    rounds: int
    images: int
    allow_busy: bool


def compare(rungs: tuple[str, ...], asks: dict[str, Ask], directory: Path) -> list[dict[str, Any]]:
    """Returns for each rung and framework the parameters, and the largest difference of a logit to ours.

    The weights are ours, with random values for all that is 0 or 1 before training. Prints each.
    """
    rows = []
    for rung in rungs:
        ours: dict[str, Any] = {}
        for name, ask in asks.items():
            answer = ask("logits", rung=rung, weights=str(directory / f"{rung}.npz"))
            ours = ours or answer
            row = {"rung": rung, "framework": name, "equal": False}
            if "failed" in answer:
                row["failed"] = answer["failed"]
            else:
                expected = np.array(ours["logits"])
                row["parameters"] = answer["parameters"]
                row["largest_difference"] = float(np.abs(np.array(answer["logits"]) - expected).max())
                row["largest_logit"] = float(np.abs(expected).max())
                same = answer["parameters"] == ours["parameters"]
                row["equal"] = same and row["largest_difference"] <= LARGEST_DIFFERENCE
            rows.append(row)
            told = row.get("failed") or (
                f"{row['parameters']:9,} parameters, largest difference of a logit {row['largest_difference']:.1e} "
                f"of {row['largest_logit']:.1f}"
            )
            print(f"{rung:12} {name:16} {told}{'' if row['equal'] else '   UNEQUAL'}", flush=True)
    return rows


def prepare(ask: Ask, rung: str, plan: Plan) -> dict[str, Any]:
    """Compiles and trains at the largest batch size; returns the seconds to compile, and the peak memory in MiB."""
    largest = {"rung": rung, "batch_size": max(plan.batches), "images": plan.images}
    answers = [ask("compile", **largest), ask("train", **largest, seconds=0), ask("memory")]
    failed = next((answer for answer in answers if "failed" in answer), None)
    return failed or {"compile_seconds": answers[0]["seconds"], "MiB": answers[2]["MiB"]}


def requests(rung: str, plan: Plan) -> list[tuple[str, int, str, dict[str, Any]]]:
    """Returns what is measured in a round: its name, for how many images, and the request."""
    batches = {batch: {"rung": rung, "batch_size": batch, "images": plan.images} for batch in plan.batches}
    val = {"rung": rung, "batch_size": max(plan.batches), "images": VAL_IMAGES}
    return [
        *(("train step", batch, "train", request) for batch, request in batches.items()),
        ("validation", VAL_IMAGES, "validate", val),
        *(("inference", batch, "predict", {"rung": rung, "batch_size": batch}) for batch in INFERENCE_BATCHES),
    ]


def take_turns(kind: dict[str, str], asks: dict[str, Ask], plan: Plan, probes: list[dict[str, Any]]) -> Rows:
    """Returns the rows of all rounds of a rung and precision, each printed; adds a probe before and after each round.

    Raises:
      SystemExit: other programs ran in a round, and when it was repeated.
    """
    asked = requests(kind["rung"], plan)
    for ask in asks.values():
        for what, _, do, request in asked:
            if what == "train step":
                ask("compile", **request)
            if what != "inference":
                ask(do, **request, seconds=0)
    rows: Rows = []
    for number in range(plan.rounds):
        for _ in range(TRIES):
            probes.append(idle.probe())
            taken = one_round({**kind, "round": number}, asked, asks)
            probes.append(idle.probe())
            if plan.allow_busy or all(map(idle.is_idle, probes[-2:])):
                break
            print(f"others ran, so this round does not count: {probes[-2:]}", flush=True)
        else:
            raise SystemExit(idle.refusal(probes[-1]))
        rows += taken
    return rows


def one_round(kind: dict[str, Any], asked: list[tuple[str, int, str, dict[str, Any]]], asks: dict[str, Ask]) -> Rows:
    """Returns a row for each request and framework; a framework that fails is asked no more."""
    rows: Rows = []
    for what, images, do, request in asked:
        for name in list(asks):
            if (name, what) == ("torch_compiled", "inference"):
                # Compiled again for each batch size, which would double the time of the whole.
                continue
            answer = asks[name](do, **request, seconds=LEAST_SECONDS[what])
            if "failed" in answer:
                del asks[name]
            elif what == "inference":
                answer = {"seconds": images / max(answer.values())}
            rows.append({**kind, "what": what, "images": images, "framework": name, **answer})
            told = answer.get("failed") or f"{1000 * answer['seconds']:9.2f} ms"
            label = f"{kind['rung']} {kind['precision']}, round {kind['round'] + 1}   {what} of {images:4}"
            print(f"{label}   {name:16} {told}", flush=True)
    return rows


def measure(
    rungs: tuple[str, ...], precisions: tuple[str, ...], names: list[str], plan: Plan, process: Process
) -> dict[str, Any]:
    """Returns the costs, the summary and the rows of all rungs and precisions, and how idle the machine was."""
    costs, rows, probes = [], [], []
    for rung in rungs:
        for precision in precisions:
            kind = {"rung": rung, "precision": precision}
            # The first process of ours compiles, the second finds the programs.
            with process("ours", precision=precision) as ask:
                costs.append({**kind, "framework": "ours, first run", **prepare(ask, rung, plan)})
            with ExitStack() as stack:
                asks = {name: stack.enter_context(process(name, precision=precision)) for name in names}
                for name in names:
                    costs.append({**kind, "framework": name, **prepare(asks[name], rung, plan)})
                    print(costs[-1], flush=True)
                    if "failed" in costs[-1]:
                        del asks[name]
                rows += take_turns(kind, asks, plan, probes)
    return {"idle": probes, "costs": costs, "summary": summarise(rows, KEYS), "measurements": rows}


def main(
    rungs: tuple[Rung, ...] = get_args(Rung),
    precisions: tuple[Precision, ...] = get_args(Precision),
    batches: tuple[int, ...] = (32, 128),
    frameworks: tuple[Framework, ...] = get_args(Framework),
    rounds: int = 3,
    images: int = 1024,
    device: Literal["cpu", "gpu"] = "cpu",
    check: bool = False,
    allow_busy: bool = False,
    results: Path = RESULTS,
) -> None:
    """Measure the rungs, print each measurement, and write rungs.json, or rungs_gpu.json.

    Args:
        rungs: Networks, by the names of their experiments; one that is not named keeps its previous result.
        precisions: Types of the layers; the peers' bfloat16 is mixed_bfloat16 and autocast.
        batches: Batch sizes; compile seconds and memory are those of the largest.
        frameworks: Frameworks that take turns, "ours" among them.
        rounds: Number of rounds.
        images: Number of images of a pass, whose steps are timed together; a multiple of the batch sizes.
        device: On a gpu, a framework that has no build for it is left out.
        check: Only compare parameter counts and logits; exit with status 1 if they differ.
        allow_busy: Measure while other programs run, too; the result says so.
        results: Directory for the JSON file.
    """
    check_options(batches, frameworks, rounds, images)
    before = {} if check else idle.wait_for_load()
    busy = bool(before) and not idle.is_idle(before, idle.MOST_LOAD)
    if busy and not allow_busy:
        raise SystemExit(idle.refusal(before))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "images.npz")
        # No more than is needed, as the peers keep them in float32.
        save_images(path, max(images, VAL_IMAGES))
        environment = {
            **compiled_programs_in(Path(directory, "xla")),
            "TORCHINDUCTOR_CACHE_DIR": f"{directory}/inductor",
            **({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
        }
        process = partial(worker, images=path, environment=environment, limit=LIMIT)
        with ExitStack() as stack:
            asks = {framework: stack.enter_context(process(framework)) for framework in frameworks}
            for framework in frameworks:
                found = asks[framework]("device")
                if found.get("device") != device:
                    print(f"{framework} is left out: {found.get('failed') or 'it has no build for a GPU'}", flush=True)
                    del asks[framework]
            versions = {framework: ask("versions") for framework, ask in asks.items()}
            # Compiling the same network once more only to compare it would take minutes.
            compared_asks = {key: ask for key, ask in asks.items() if check or key != "torch_compiled"}
            compared = compare(rungs, compared_asks, Path(directory))
        if check or not all(row["equal"] for row in compared):
            raise SystemExit(0 if all(row["equal"] for row in compared) else 1)
        plan = Plan(batches, rounds, images, allow_busy)
        measured = measure(rungs, precisions, list(asks), plan, process)
    measured["idle"] = [before, *measured["idle"]]
    name = "rungs" if device == "cpu" else f"rungs_{device}"
    values = {
        "what": "seconds of a training step, of validation and of a call for inference, by number of images; "
        "seconds to compile, and MiB of a process that trains",
        "busy": busy or not all(map(idle.is_idle, measured["idle"])),
        "frameworks": versions,
        "images": {"pass": images, "val": VAL_IMAGES, "inference": INFERENCE_BATCHES},
        "compared": compared,
        **measured,
    }
    write_result(name, with_kept(values, rungs, results / f"{name}.json"), results)


def with_kept(values: dict[str, Any], rungs: tuple[str, ...], path: Path) -> dict[str, Any]:
    """Returns the result with the rows of rungs that were not measured, from an earlier one's file, and origins."""
    here = {**origin(), "machine": machine()}
    earlier: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"busy": False}
    origins = earlier.get("origins") or {
        row["rung"]: {name: earlier[name] for name in here} for row in earlier.get("compared", [])
    }
    origins |= dict.fromkeys(rungs, here)
    joined: dict[str, Any] = {
        name: sorted(
            [*(row for row in earlier.get(name, []) if row["rung"] not in rungs), *values[name]],
            key=lambda row: get_args(Rung).index(row["rung"]),
        )
        for name in ("compared", "costs", "summary", "measurements")
    }
    kept = origins.keys() - set(rungs)
    return {**values, **joined, "origins": origins, "busy": values["busy"] or bool(kept and earlier["busy"])}


def check_options(batches: tuple[int, ...], frameworks: tuple[str, ...], rounds: int, images: int) -> None:
    """Raises ConfigError for numbers that do not fit together."""
    if not batches or min(batches) < 1:
        raise ConfigError(f"--batches are {batches}, but must be positive integers, such as 32 128")
    if images < 1 or images % math.lcm(*batches):
        raise ConfigError(f"--images is {images}, but must be a multiple of {math.lcm(*batches)}, for whole batches")
    if rounds < 1:
        raise ConfigError(f"--rounds is {rounds}, but must be at least 1")
    if "ours" not in frameworks:
        raise ConfigError(f"--frameworks are {', '.join(frameworks)}, but must include ours, the others' reference")


if __name__ == "__main__":
    run_main(main)
