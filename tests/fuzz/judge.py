"""Example and outcome -> what is wrong with it."""

import re
from typing import NamedTuple

from tests.fuzz.worker import SAME, Example, Outcome
from tests.fuzz.world import Mutation

MAX_LINE = 400
"""Characters of a line of an error: some 300, and the names that the user gave."""

KINDS = (
    "traceback",
    "hang",
    "died",
    "lost or overwritten",
    "wrongly accepted",
    "wrong status",
    "not one line",
    "left over",
)


class Finding(NamedTuple):
    """Something that an outcome should not be."""

    kind: str
    cause: str
    """The same for examples with the same cause, as far as this can be told."""


OWN = (
    r"(?:\.lock|(?:figures|export)(?:/.*)?|(?:report|live)\.html|(?:evaluation|robustness|unknown)\.json|novelty\.npz"
    r"|damaged.*|tensorboard.*)"
)
"""What commands write into a run that is there."""


def _cause(error: str) -> str:
    """The last place in the project of a traceback, and the exception."""
    places = re.findall(r'File "[^"]*?/((?:cnn|experiments)/[^"]*)", line \d+, in (\S+)', error)
    last = error.strip().splitlines()[-1] if error.strip() else ""
    name = last.partition(":")[0].rpartition(".")[2]
    where = " ".join(places[-1]) if places else "?"
    return f"{name} in {where}"


def _verb(example: Example) -> str:
    if example.call:
        return example.call.function
    return example.arguments[0] if example.module == "cnn" and example.arguments else example.module


def judge(example: Example, outcome: Outcome, good: Outcome | None = None) -> list[Finding]:
    """Returns what is wrong.

    Args:
      example: what was run.
      outcome: what became of it.
      good: of a mutation, the outcome of the same command without it.
    """
    verb = _verb(example)
    if outcome.died == "hang":
        return [Finding("hang", verb)]
    if outcome.died:
        return [Finding("died", f"{verb}: {outcome.died}")]
    found = [Finding("lost or overwritten", f"{verb} writes outside")] if outcome.outside else []
    found += _judge_changes(example, outcome, good, verb)
    if example.call:
        return found + _judge_call(example, outcome)
    if outcome.error:
        return [*found, Finding("traceback", _cause(outcome.error))]
    if outcome.status not in (0, 1, 2):
        found.append(Finding("wrong status", f"{verb}: {outcome.status}"))
    found += _judge_text(outcome, verb)
    if good is not None and outcome.status == 0:
        found += _judge_acceptance(example, outcome, good, verb)
    return found


NOTES = "error: ", "warning: ", "found ", "stopping", "getting ", "making ", "decoding ", "left out, ", "fetching "
"""How the lines begin that a command may print on stderr."""


def _judge_text(outcome: Outcome, verb: str) -> list[Finding]:
    lines = outcome.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    others = [line for line in lines if not line.startswith(NOTES)]
    found = []
    if bool(outcome.status) != (len(errors) == 1) or not outcome.stderr.endswith(("\n", "")):
        found.append(Finding("not one line", f"{verb}: status {outcome.status}, {len(errors)} errors"))
    if others := [line for line in others if not re.match(r"the cache .* is damaged|.* is torchvision's root", line)]:
        found.append(Finding("not one line", f"{verb}: {others[0][:60]!r}"))
    for line in (*lines, *outcome.stdout.splitlines()):
        if line in errors and len(line) > MAX_LINE:
            found.append(Finding("not one line", f"{verb}: {len(line)} characters: {line[:50]!r}"))
    texts = outcome.stdout + outcome.stderr
    if controls := [c for c in texts if not c.isprintable() and c not in "\n\t"]:
        found.append(Finding("not one line", f"{verb}: prints {controls[0]!r}"))
    return found


def _judge_call(example: Example, outcome: Outcome) -> list[Finding]:
    assert example.call
    name, text = outcome.raised
    where = f"{example.call.function} {example.call.parameter}"
    if name.endswith(".WronglyTaken"):
        return [Finding("wrongly accepted", where)]
    if not name or "caller's own function" in text:
        return []
    if not name.startswith("cnn.errors."):
        return [Finding("traceback", f"{example.call.function}: {_cause(outcome.error)}")]
    if len(text) > MAX_LINE or not text.isprintable():
        return [Finding("not one line", f"{where}: {text[:60]!r}")]
    return []


def _judge_changes(example: Example, outcome: Outcome, good: Outcome | None, verb: str) -> list[Finding]:
    """What was there before is there still, and a refusal leaves nothing behind."""
    found = []
    usual = good.changes if good else {}
    mutated = example.mutation.file if example.mutation else ""
    run_dir = "/".join(mutated.split("/")[:3])
    for path, (what, digest) in sorted(outcome.changes.items()):
        place = re.sub(r"[0-9a-f]{32}|\d{4}-\d\d-\d\dT.*Z", "*", path)
        inner = place.removeprefix(run_dir).lstrip("/")
        if what == "added":
            if (
                outcome.status
                and not re.search(r"/(\.lock|damaged.*|novelty\.npz)$", path)
                and outcome.status in (0, 1, 2)
            ):
                found.append(Finding("left over", f"{verb}: {place}"))
            continue
        # Of what a mutation has damaged the rest may be moved aside with it.
        checkpoint = "/".join(mutated.split("/")[:5])
        expected = usual.get(path)
        same = expected is not None and (not outcome.status or expected[1] == digest)
        if same or re.fullmatch(rf"work/runs/\w+/{OWN}", path) and (outcome.status == 0 or path.endswith(".lock")):
            continue
        if mutated and place.startswith(checkpoint) and "/checkpoints/" in checkpoint:
            continue
        if mutated and not outcome.status and (same or inner == mutated.removeprefix(run_dir).lstrip("/")):
            continue
        if not mutated and not outcome.status and "runs/stopped" in path and "runs/stopped" in example.arguments:
            continue
        found.append(Finding("lost or overwritten", f"{verb}: {place} is {what}"))
    return found


TIMES = re.compile(r"^(epoch |found an unfinished|seconds: |this run has finished|writing )")


def _essence(text: str) -> list[str]:
    return [re.sub(r"\d+\.\d+ s\b", "", line) for line in text.splitlines() if line and not TIMES.match(line)]


COVERED = ("config.json", "metrics.jsonl", "result.json", "summary.txt", "kernels.jsonl", "checkpoints/")
"""What verify holds against its digests."""


WHOLE = ("flip a bit", "JSON value", "JSON surplus", "JSON without", "delete", "link to nothing", "other run's")
"""Ways after which a file may be whole, with other values, or not be there."""


def _is_another(mutation: Mutation, verb: str, name: str) -> bool:
    """Whether a mutation makes another good file, of which a command gives another result."""
    if verb == "import" and name == "export/model.safetensors":
        # It may be of others, and has no digest: other weights are another network.
        return mutation.way == "flip a bit"
    # It has no digest either, and a report without the file has no table of it.
    return verb == "report" and name == "unknown.json" and mutation.way in WHOLE


def _judge_acceptance(example: Example, outcome: Outcome, good: Outcome, verb: str) -> list[Finding]:
    """Status 0 after a mutation: the same is printed and written as of the good run."""
    assert example.mutation
    name = "/".join(example.mutation.file.split("/")[3:])
    short = re.sub(r"checkpoints/\d+", "checkpoints/N", name)
    if good.status:
        return [Finding("wrongly accepted", f"{verb}: {short}, and refuses the good run")]
    missing = example.mutation.way in ("delete", "link to nothing")
    if verb == "verify" and missing and (name == "result.json" or "runs/stopped" in example.mutation.file):
        # A process that is killed before it has written the file leaves the same; the same command writes it.
        return []
    if _is_another(example.mutation, verb, name):
        return []
    if _essence(outcome.stdout) != _essence(good.stdout):
        return [Finding("wrongly accepted", f"{verb}: prints another result after a change of {short}")]
    for path, (_, digest) in good.changes.items():
        own = re.fullmatch(r".*((?:evaluation|robustness)\.json|export/.*|result\.json|metrics\.jsonl|\.html)", path)
        # A page shows the pictures that are there.
        own = None if path.endswith(".html") and name.startswith("figures/") else own
        if own and digest and outcome.changes.get(path, ("", digest))[1] != digest:
            return [Finding("wrongly accepted", f"{verb}: writes another {path.rpartition('/')[2]} after {short}")]
    if verb == "verify" and name.startswith(COVERED) and "runs/good" in example.mutation.file:
        if example.mutation.way not in ("link to a copy", "JSON surplus") and SAME not in outcome.mutation:
            return [Finding("wrongly accepted", f"verify: {short} is good after {example.mutation.way}")]
    return []
