"""Strategies for examples: command lines of the parsers' own options, mutations of a run's files, calls with values."""

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, get_args
from unittest import mock

from hypothesis import strategies as st

from cnn import __main__ as verbs
from cnn import cli, run
from cnn.serialization import config_fields
from tests.fuzz import calls
from tests.fuzz.calls import Call
from tests.fuzz.worker import TINY, Example
from tests.fuzz.world import JSON_VALUES, JSON_WAYS, WAYS, Mutation, is_json
from tests.helpers import ROOT

EXPERIMENTS = sorted(f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("*.py"))


class Option(NamedTuple):
    """What a parser takes: an option, or without a name a positional argument."""

    names: tuple[str, ...]
    kind: str
    """int, float, str, flag, choice, or several."""
    choices: tuple[str, ...] = ()


def _option(name: str, kind: Any, positional: bool = False) -> Option:
    """The option of a parameter of this type."""
    names = () if positional else (f"--{name}",)
    if typing.get_origin(kind) is typing.Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, types.UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if kind is bool:
        group, _, last = name.rpartition(".")
        return Option((f"--{name}", f"--{group}.no_{last}" if group else f"--no_{last}"), "flag")
    if typing.get_origin(kind) is Literal:
        return Option(names, "choice", tuple(map(str, get_args(kind))))
    if typing.get_origin(kind) is tuple:
        return Option(names, "several")
    return Option(names, kind.__name__ if kind in (int, float) else "str")


def _options(function: Callable[..., Any]) -> list[Option]:
    """The options of a function, as ``parse_options`` makes them of its signature."""
    found, hints = [], typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, default = hints[name], parameter.default
        plain = get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
        if dataclasses.is_dataclass(plain):
            prefix = "" if typing.get_origin(kind) is typing.Annotated else f"{name}."
            found += _field_options(default if dataclasses.is_dataclass(default) else plain, prefix)
        else:
            found.append(_option(name, kind, parameter.kind is parameter.POSITIONAL_ONLY))
    return found


def _field_options(config: Any, prefix: str) -> list[Option]:
    """The options of a configuration's fields, those of its groups too."""
    found = []
    cls = config if isinstance(config, type) else type(config)
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        value = getattr(config, field.name, None)
        if dataclasses.is_dataclass(value):
            found += _field_options(value, f"{prefix}{field.name}.")
        else:
            found.append(_option(prefix + field.name, hints[field.name]))
    return found


@cache
def parsers() -> dict[tuple[str, ...], list[Option]]:
    """The options of every verb and experiment, by what its command line starts with."""
    found: dict[tuple[str, ...], list[Option]] = {}
    taken: list[Any] = []

    def take(function: Any, program: str, arguments: list[str]) -> Callable[[], None]:
        taken.append(function)
        return lambda: None

    for verb, function in verbs.VERBS.items():
        found["cnn", verb] = _options(function)
    with mock.patch.object(run, "parse_options", take), mock.patch.object(verbs, "parse_options", take):
        for name in EXPERIMENTS:
            with (
                mock.patch.object(sys, "argv", [name]),
                mock.patch.object(run, "leave", lambda command, status: command()),
            ):
                run.main(cli.load_experiment(name))
            found[name,] = _options(taken.pop())
            verbs.cost([name])
            found["cnn", "cost", name] = _options(taken.pop())
            fields = config_fields(cli.load_experiment(name))
            found["cnn", "sweep", name] = [
                Option((f"--{field}",), "several") for field in ("seeds", "run-dir", *fields)
            ]
    return found


RUNS = ("runs/good", "runs/other", "runs/stopped", "runs/imported", "runs/swept")

PATHS = (
    *RUNS,
    *("runs/new", "new", "new/in/new", "runs", ".", "..", "", "files", "empty", "published", "files/boot.png"),
    *("files/bag.gif", "files/notes.txt", "files/values.json", "files/weights.safetensors", "files/pipe", "files/null"),
    *("files/nowhere", "files/to_good", "files/notes.txt/below", "runs/good/config.json", "runs/good/checkpoints"),
    *("runs/good/new", "runs/good/export/model.safetensors", "runs/other/result.json", "runs/good/evaluation.json"),
    *("runs/swept/table.md", "runs/good/.lock", "/", "/dev/null/x", "/proc/self/fd/0", "-", "--", "~/x"),
)
TEXTS = (
    *("", " ", "nothing", "None", "a\nb", "\x1b[31mred", "a\rb", "\u202eabc", "\udcff\udcfe", "é" * 200, "x" * 300),
    *("y" * 5000, "{}", "[1]", "null", "a b", "*", "conv*", "conv*=0.1", "conv1", "dense", "=", "*=1e400", "[", "%s"),
    *("experiments.vit", "experiments", "cnn", "os", ".", "..x", "--help", "-1", "::", "0x10"),
)
INTEGERS = (
    *("0", "1", "2", "3", "-1", "16", "17", "64", "65", "1000", "65536", str(2**31 - 1), str(2**31), str(2**32)),
    *(str(2**63), str(10**30), "9" * 400, "9" * 5000, "1.0", "1e3", "1_000", "0x10", " 1", "\uff11", "", "nan"),
)
FLOATS = (
    *("0", "1", "-1", "0.5", "1e-3", "0.999999999", "1e-45", "5e-324", "1e38", "1e39", "1e308", "1e309", "-0.0", "nan"),
    *("inf", "-inf", "1e400", "9" * 400, "9" * 5000, "1_0", "0,5", "", "\uff10.5", "1e"),
)
VALUES = {"int": INTEGERS, "float": FLOATS, "str": (*PATHS, *TEXTS), "choice": TEXTS, "several": TEXTS}


@st.composite
def _values(draw: Any, option: Option) -> list[str]:
    """What follows the name of an option: usually of its type."""
    if option.kind == "flag":
        return draw(st.sampled_from([[], [], [], ["true"], [""]]))
    pool = VALUES[option.kind]
    if option.choices and draw(st.booleans()):
        pool = option.choices
    elif draw(st.integers(0, 7)) == 7:
        pool = VALUES[draw(st.sampled_from(sorted(VALUES)))]
    if option.kind != "several":
        return draw(st.sampled_from([1, 1, 1, 1, 1, 0, 2]).flatmap(lambda n: _several(pool, n)))
    pool = draw(st.sampled_from((TEXTS, INTEGERS, FLOATS, PATHS)))
    return draw(st.integers(0, 3).flatmap(lambda n: _several(pool, n)))


def _several(pool: tuple[str, ...], number: int) -> Any:
    return st.lists(st.sampled_from(pool), min_size=number, max_size=number)


@st.composite
def lines(draw: Any, trains: bool = False) -> Example:
    """A command line of a verb or an experiment."""
    starts = sorted(parsers())
    kinds = {"verb": [s for s in starts if len(s) == 2], "other": [s for s in starts if len(s) != 2]}
    start = draw(st.sampled_from(kinds[draw(st.sampled_from(sorted(kinds)))]))
    options = parsers()[start]
    module, *arguments = start
    if start == ("experiments.fashion_cnn",) or (trains and len(start) != 2):
        module, arguments = "experiments.fashion_cnn", [*TINY]
        options = parsers()[module,]
        arguments += ["--run-dir", draw(st.sampled_from(("new", "new", *RUNS)))]
    for option in (option for option in options if not option.names):
        count = draw(st.integers(0, 2)) if option.kind == "several" else draw(st.sampled_from([1] * 9 + [0]))
        pool = st.sampled_from(RUNS) if draw(st.booleans()) else st.sampled_from((*PATHS, *TEXTS))
        arguments += [draw(pool) for _ in range(count)]
    named = [option for option in options if option.names]
    if named:
        for option in draw(st.lists(st.sampled_from(named), min_size=0, max_size=3)):
            arguments += [draw(st.sampled_from(option.names)), *draw(_values(option))]
    if draw(st.integers(0, 19)) == 19:
        arguments.insert(draw(st.integers(0, len(arguments))), draw(st.sampled_from((*TEXTS, "--surplus", "-x"))))
    # A command line cannot hold a zero byte, and none of these does.
    return Example("line", module, tuple(arguments), trains)


def commands(run_dir: str) -> list[tuple[str, tuple[str, ...]]]:
    """Every command on a run directory."""
    verb_lines = (
        *("verify {}", "evaluate {}", "look {} --layer conv1", "look {}", "report {}"),
        "export {} --format safetensors",
        *(
            "export {} --format onnx",
            "export {} --format stablehlo",
            "predict {} files/boot.png",
            "predict {} files --json",
        ),
        *("report runs/imported {} --output new.html", "look {} --image files/boot.png --output new"),
    )
    found = [("cnn", tuple(line.format(run_dir).split())) for line in verb_lines]
    resume = (*TINY, "--run-dir", run_dir)
    fashion = "experiments.fashion_cnn"
    found += [
        (fashion, resume),
        (fashion, (*resume, "--train.epochs", "3")),
        (fashion, (*TINY, "--transfer.source", run_dir, "--run-dir", "new")),
    ]
    if run_dir == "runs/good":
        found.append(("cnn", ("import", f"{run_dir}/export/model.safetensors", "--run-dir", "new")))
    return found


SLOW = ("report", "look", "evaluate")
"""Verbs that take most of a second where nothing is refused."""


CHECKPOINT = (
    *("_CHECKPOINT_METADATA", "commit_success.txt", "sha256.json", "state/_METADATA", "state/_sharding", "state/d/*"),
    *("state/array_metadatas/process_0", "state/commit_success.txt", "state/manifest.ocdbt"),
    *("state/ocdbt.process_0/manifest.ocdbt", "state/ocdbt.process_0/d/*"),
)
FILES = ("config.json", "metrics.jsonl", "summary.txt", "kernels.jsonl", ".lock")
EXPORTED = ("export/model.safetensors", "export/README.md")
MEASURED = ("evaluation.json", "unknown.json", "novelty.npz", "figures/confusion_matrix.png")
FINISHED = (*FILES, *EXPORTED, "result.json", *MEASURED)
LABELS = {
    "runs/good": (*FINISHED, *(f"checkpoints/{step}/{name}" for step in (4, 8) for name in CHECKPOINT)),
    "runs/stopped": (*FILES, *(f"checkpoints/4/{name}" for name in CHECKPOINT)),
}
"""Every file of a finished run, and of an unfinished one, by its label; a test compares them with those of the tree."""


@st.composite
def mutations(draw: Any, only_quick: bool = False) -> Example:
    """A command after a mutation of a file of the run that it names."""
    run_dir = draw(st.sampled_from(("runs/good", "runs/good", "runs/stopped")))
    file = f"work/{run_dir}/{draw(st.sampled_from(LABELS[run_dir]))}"
    ways = st.sampled_from(WAYS)
    number = draw(st.one_of(st.integers(0, 40), st.integers(0, 100_000)))
    if is_json(file) and draw(st.integers(0, 3)):
        ways = st.sampled_from(JSON_WAYS)
    way = draw(ways)
    value = draw(st.sampled_from(sorted(JSON_VALUES))) if way in ("JSON value", "JSON surplus") else ""
    every = commands(run_dir)
    quick = [command for command in every if not set(command[1][:1]) & set(SLOW)]
    if only_quick:
        resume = TINY[0], ("--run-dir", run_dir)
        quick = [(module, a) for module, a in quick if a[:1] == ("verify",) or (a[0], a[-2:]) == resume]
    module, arguments = draw(st.sampled_from(quick if only_quick or draw(st.integers(0, 7)) < 7 else every))
    return Example("mutation", module, arguments, mutation=Mutation(file, way, number, value))


@st.composite
def calls_(draw: Any) -> Example:
    """A public function with a wrong value."""
    known = calls.parameters()
    configs = sorted(name for name in known if name.endswith("Config"))
    functions = sorted(known.keys() - set(configs))
    name = draw(st.sampled_from(functions if draw(st.integers(0, 2)) else configs))
    parameter, value = draw(st.sampled_from(known[name])), draw(st.sampled_from(sorted(calls.VALUES)))
    return Example("call", call=Call(name, parameter, value))


def describe(example: Example) -> str:
    """An example as a user would repeat it."""
    if example.call:
        return f"cnn.{example.call.function}({example.call.parameter}: {example.call.value})"
    shown = " ".join(_shortened(argument) for argument in example.arguments)
    mutated = f" after {' '.join(map(str, example.mutation))}" if example.mutation else ""
    return f"python -m {example.module} {shown}{mutated}".replace(" ".join(TINY), "TINY")


def _shortened(argument: str) -> str:
    text = argument if argument.isprintable() and argument and " " not in argument else repr(argument)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(argument)} characters)"
