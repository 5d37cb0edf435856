"""Images per second in user calls: a batch of NumPy uint8 images in, NumPy probabilities out, scaling included.

python -m benchmarks.inference [--rounds 3] [--seconds 3] [--results DIR]

Ours is ``cnn.predict(state, images)``; Keras' are ``model.predict(x, verbose=0)``, ``model.predict_on_batch(x)`` and
``model(x, training=False)``; PyTorch's is the model and a softmax under inference_mode. Each method is called for some
seconds, the frameworks taking turns; the method with the highest median represents its framework.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, run_main, save_images, summary, write_result
from benchmarks.workers import FRAMEWORKS, worker

BATCH_SIZES = (1, 32, 1000)


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns for each batch size and framework the fastest method, its rate, and the rates of all methods."""
    summaries = []
    for batch_size, framework in dict.fromkeys((row["batch_size"], row["framework"]) for row in rows):
        kind = {"batch_size": batch_size, "framework": framework}
        mine = [row for row in rows if kind.items() <= row.items()]
        rates = [row["images_per_second"] for row in mine if "images_per_second" in row]
        failures = [row["failed"] for row in mine if "failed" in row]
        if failures:
            kind["failed"] = failures[0]
        if rates:
            ways = {way: summary([rate[way] for rate in rates]) for way in rates[0]}
            best = max(ways, key=lambda way: ways[way]["median"])
            kind |= {"way": best, "images_per_second": ways[best], "ways": ways}
        summaries.append(kind)
    return summaries


def main(rounds: int = 3, seconds: float = 3.0, results: Path = RESULTS) -> None:
    """Measure inference, print each, and write inference.json.

    Args:
        rounds: Number of rounds.
        seconds: Duration of the calls of each method.
        results: Directory for inference.json.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory, "images.npz")
        save_images(path)
        asks = {name: stack.enter_context(worker(name, path)) for name in FRAMEWORKS}
        versions = {name: ask("versions") for name, ask in asks.items()}
        for number in range(rounds):
            for batch_size in BATCH_SIZES:
                for name, ask in asks.items():
                    answer = ask("predict", batch_size=batch_size, seconds=seconds)
                    result = answer if "failed" in answer else {"images_per_second": answer}
                    rows.append({"batch_size": batch_size, "round": number, "framework": name, **result})
                    told = ", ".join(f"{way} {value:.0f}/s" for way, value in answer.items() if way != "failed")
                    told = told or answer["failed"]
                    print(f"batch {batch_size:4}, round {number + 1}   {name:16} {told}", flush=True)
    write_result(
        "inference",
        {
            "what": "images a second, float32, from uint8 to probabilities",
            "frameworks": versions,
            "summary": summarise(rows),
            "measurements": rows,
        },
        results,
    )


if __name__ == "__main__":
    run_main(main)
