"""Several run directories -> one HTML page that compares them with the first: accuracy, curves, configuration."""

from collections.abc import Sequence
from pathlib import Path

from cnn.config import ExperimentConfig
from cnn.errors import ConfigError, RunDirError
from cnn.intervals import RESAMPLES, accuracy_interval, difference_interval
from cnn.report.page import UPLOT, escaped, fill_template, percent, render_page, table
from cnn.report.report import RETRY_HINT, EvaluatedRun, evaluate_test
from cnn.report.svg import interval_svg
from cnn.resolution import dataset_name
from cnn.runs import outputs, rundir
from cnn.serialization import config_fields
from cnn.text import printable
from cnn.training.tasks import require_task


def write_comparison(run_dirs: Sequence[Path], output: Path = Path("comparison.html")) -> Path:
    """Writes a page that compares runs with the first of them, and returns its path.

    Raises:
      UserError: a directory holds no finished run, or a detector's, or the runs use different data, or the page cannot
        be written.
      DamagedError: a checkpoint is damaged.
    """
    labels = run_labels(run_dirs)
    descriptions = [rundir.read_description(run_dir) for run_dir in run_dirs]
    for description in descriptions:
        require_task(description["config"], "classification", "a report of several runs")
    digests = [description["data_sha256"] for description in descriptions]
    for run_dir, digest in zip(run_dirs, digests, strict=True):
        if digest != digests[0]:
            raise RunDirError(
                f"{run_dir} uses other data, or another split of it, than {run_dirs[0]} "
                f"(SHA-256 {digest[:8]}, not {digests[0][:8]}); only runs on the same images can be compared"
            )
    output = outputs.check_file(output, "comparison", run_dirs)
    rundir.write_text(output, comparison_page([evaluate_test(run_dir) for run_dir in run_dirs], labels), RETRY_HINT)
    return output


def run_labels(run_dirs: Sequence[Path]) -> list[str]:
    """Returns a label for each run: the shortest ends of their paths that are all different."""
    paths = [run_dir.resolve() for run_dir in run_dirs]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        labels = [printable("/".join(path.parts[-parts:])) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    repeated = max(run_dirs, key=lambda run_dir: paths.count(run_dir.resolve()))
    raise ConfigError(f"{repeated} is named more than once; name different runs")


def comparison_page(runs: Sequence[EvaluatedRun], labels: Sequence[str]) -> str:
    """Returns the page that compares labelled runs with the first of them, all on the same test images."""
    epochs = sorted({row["epoch"] for run in runs for row in run.result.history})

    def values(run: EvaluatedRun, key: str) -> list[float | None]:
        by_epoch = {row["epoch"]: row[key] for row in run.result.history}
        return [by_epoch.get(epoch) for epoch in epochs]

    curves = {
        split: {
            "epochs": epochs,
            "best": None,
            **{
                measure: [
                    {"label": label, "values": values(run, f"{split}_{measure}")}
                    for label, run in zip(labels, runs, strict=True)
                ]
                for measure in ("loss", "accuracy")
            },
        }
        for split in ("val", "train")
    }
    body = fill_template(
        "comparison.html",
        title=f"{len(runs)} runs compared",
        first=escaped(labels[0]),
        dataset=escaped(dataset_name(runs[0].config.data)),
        test_images=f"{len(runs[0].correct):,}",
        resamples=f"{RESAMPLES:,}",
        results=_comparison_table(runs, labels),
        config=_difference_table([run.config for run in runs], labels),
        uplot=UPLOT,
    )
    return render_page(f"{', '.join(labels)} compared", body, {"curves": curves}, "charts.js")


def _comparison_table(runs: Sequence[EvaluatedRun], labels: Sequence[str]) -> str:
    intervals = [difference_interval(run.correct, runs[0].correct) for run in runs]
    reach = 100 * max(0.001, *(abs(end) for interval in intervals[1:] for end in interval))
    lines = []
    for index, (run, label, interval) in enumerate(zip(runs, labels, intervals, strict=True)):
        correct, count = int(run.correct.sum()), len(run.correct)
        low, high = accuracy_interval(correct, count)
        difference = 100 * float(run.correct.mean() - runs[0].correct.mean())
        loss = run.result.summary["test_loss"]
        verdict, kind, points, drawing, change = "the first", "", "", "", ""
        if index:
            verdict, kind = difference_verdict(*interval)
            ends = 100 * interval[0], 100 * interval[1]
            points = f"{difference:+.2f}<small>{ends[0]:+.2f} to {ends[1]:+.2f}</small>"
            drawing = interval_svg(difference, ends, reach)
            change = f"<small>{loss - runs[0].result.summary['test_loss']:+.4f}</small>"
        lines.append(
            f'<tr class="{kind}"><th scope="row">{escaped(label)}<small>{escaped(run.config.name)}</small></th>'
            f"<td>{percent(correct / count)}<small>{percent(low)} to {percent(high)}</small></td>"
            f'<td>{loss:.4f}{change}</td><td>{points}</td><td>{drawing}</td><td class="verdict text">{verdict}</td>'
            f"<td>{run.result.summary['params']:,}</td><td>{sum(run.result.summary['seconds'].values()):,.0f}</td></tr>"
        )
    heads = (
        '<th scope="col">run</th><th scope="col">test accuracy</th><th scope="col">test loss</th>'
        '<th scope="col">difference, points</th><td></td><th scope="col" class="text">more than noise?</th>'
        '<th scope="col">parameters</th><th scope="col">seconds</th>'
    )
    return f'<table class="compared"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def difference_verdict(low: float, high: float) -> tuple[str, str]:
    """Returns the verdict on an interval of a difference in words, and its kind: better, worse, or empty."""
    if low > 0:
        return "yes, it is better", "better"
    return ("yes, it is worse", "worse") if high < 0 else ("no, it may be chance", "")


def _difference_table(configs: Sequence[ExperimentConfig], labels: Sequence[str]) -> str:
    fields = [config_fields(config) for config in configs]
    values = {name: [run.get(name, "—") for run in fields] for names in fields for name in names}
    rows = [
        (f"<code>{escaped(name)}</code>", *map(escaped, row))
        for name, row in values.items()
        if any(value != row[0] for value in row)
    ]
    if not rows:
        return "<p>None: the runs have the same configuration.</p>"
    return table(("field", *map(escaped, labels)), rows, words=True)
