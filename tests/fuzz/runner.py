"""Draws examples, runs them, and keeps what is wrong."""

import os
import time
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz import inputs
from tests.fuzz.judge import Finding, judge
from tests.fuzz.worker import Example, Outcome, Settings, Worker
from tests.fuzz.world import tree_digest

SHARES = {"line": 8, "mutation": 8, "call": 4}
"""Of the examples."""

TIMEOUT = 60.0


class Runner:
    """Runs examples in a worker; of a mutation, compares with the same command on the good run."""

    def __init__(self, options: Settings, timeout: float = TIMEOUT):
        self.worker, self.counts, self.pristine = Worker(options, timeout), Counter(), options.place / "pristine"
        self._good: dict[tuple[str, tuple[str, ...]], Outcome] = {}

    def check(self, example: Example) -> tuple[Outcome, list[Finding]]:
        """Returns an example's outcome and what is wrong with it."""
        good = self._good_of(example) if example.mutation else None
        outcome = self.worker.run(example)
        found = judge(example, outcome, good)
        if outcome.died:
            # By itself, in a process that no other example has used: a busy machine may look like a hang.
            outcome = self.worker.run(example)
            self.counts["not repeated"] += not outcome.died
            found = judge(example, outcome, good)
        self.counts[example.kind] += 1
        self.counts[f"status {outcome.status}" if not example.call else "raised" if outcome.error else "returned"] += 1
        return outcome, found

    def _good_of(self, example: Example) -> Outcome:
        command = example.module, example.arguments
        if command not in self._good:
            first, second = (self.worker.run(example._replace(mutation=None), 200) for _ in range(2))
            # What differs between the two, such as the time of an export, is not compared.
            changes = {
                path: (what, value if second.changes.get(path, ("", ""))[1] == value else "")
                for path, (what, value) in first.changes.items()
            }
            self._good[command] = first._replace(changes=changes)
        return self._good[command]


def shortest(runner: Runner, example: Example, finding: Finding) -> Example:
    """Returns the example without the arguments that the finding does not need."""
    if example.kind != "line":
        return example
    index = len(example.arguments) - 1
    while index >= 0:
        arguments = example.arguments[:index] + example.arguments[index + 1 :]
        fewer = example._replace(arguments=arguments)
        if finding in judge(fewer, runner.worker.run(fewer)):
            example = fewer
        index -= 1
    return example


def run_shard(options: tuple[Settings, int, int, str]) -> tuple[Counter, dict[Finding, list[tuple[Example, Outcome]]]]:
    """Runs a number of examples from a seed; returns counts, and examples of each finding."""
    place, examples, number, only = options
    runner = Runner(place)
    runner.worker.run(Example("line", "cnn", ("--help",)))
    strategies = {
        "line": inputs.lines(),
        "mutation": inputs.mutations(),
        "call": inputs.calls_(),
    }
    found: dict[Finding, list[tuple[Example, Outcome]]] = {}
    whole, begin = sum(share for kind, share in SHARES.items() if only in ("", kind)), time.monotonic()
    before = tree_digest(place.place / "pristine")
    slowest: list[tuple[float, str]] = []
    for kind, share in SHARES.items():
        if only not in ("", kind):
            continue

        def one(example: Example) -> None:
            start = time.monotonic()
            outcome, findings = runner.check(example)
            slowest.append((time.monotonic() - start, inputs.describe(example)))
            for finding in findings:
                runner.counts[finding.kind] += 1
                if finding not in found:
                    print(
                        f"[{finding.kind}] {finding.cause}: {inputs.describe(example)} {outcome.mutation}", flush=True
                    )
                found.setdefault(finding, []).append((example, outcome))

        checks = settings(
            max_examples=max(1, examples * share // whole),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example),
        )
        seed(number)(checks(given(strategies[kind])(one)))()
    for finding, cases in found.items():
        best = min(cases, key=lambda case: len(inputs.describe(case[0])))
        cases.insert(0, (shortest(runner, best[0], finding), best[1]))
    if tree_digest(place.place / "pristine") != before:
        runner.counts["lost or overwritten"] += 1
        print("the pristine tree has changed", flush=True)
    runner.worker.stop()
    runner.counts["seconds"] = int(time.monotonic() - begin)
    for seconds, what in sorted(slowest)[-5:] if os.environ.get("FUZZ_SLOWEST") else ():
        print(f"{seconds:.1f} s {what}")
    return runner.counts, found
