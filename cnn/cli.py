"""Shared by all commands: options, exit status, compiler settings."""

import contextlib
import errno
import functools
import importlib
import io
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from cnn.config import ExperimentConfig
from cnn.data.cache import cache_directory
from cnn.devices.signals import owns_process
from cnn.errors import ConfigError, DamagedError, DataError, UserError
from cnn.serialization import config_fields
from cnn.text import one_line, printable, reason, shown


def parse_options(function: Callable[..., None], program: str, arguments: list[str]) -> Callable[[], None]:
    """Returns the function with its parameters bound to the options of a command line.

    Args:
      function: its parameters are the options (one per field of a dataclass); docstrings are the help texts.
      program: name of the program in the help.
      arguments: the command line, such as ``["--train.epochs", "3", "--run-dir", "runs/short"]``.

    Raises:
      UserError: an option is unknown, or its value is not allowed.
      SystemExit: help was requested and printed.
    """
    import tyro

    # Bound rather than called, so that an error in the function is not reported as a wrong option.
    bind = functools.wraps(function)(lambda *args, **kwargs: functools.partial(function, *args, **kwargs))
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            # An experiment fixes its model family; only the fields of that family are options.
            config = (tyro.conf.AvoidSubcommands,)
            return tyro.cli(bind, prog=program, args=arguments, use_underscores=True, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_first_message(errors.getvalue())}; --help lists what is allowed") from None


_NEEDS = {
    "optim.adam_learning_rate": (lambda config: config.optim.name == "muon", "with --optim.name muon"),
    "optim.warmup": (
        lambda config: config.optim.schedule in ("warmup_cosine", "one_cycle"),
        "with --optim.schedule warmup_cosine or one_cycle",
    ),
    **{
        f"distill.{name}": (lambda config: bool(config.distill.teacher), "with --distill.teacher")
        for name in ("temperature", "weight")
    },
}
"""When an option has an effect, as a condition and in words."""


def refuse_idle(experiment: ExperimentConfig, config: ExperimentConfig, idle: tuple[str, ...] = ()) -> None:
    """Raises ConfigError if an option that the command line changes has no effect.

    Args:
      experiment: the configuration without the options.
      config: the configuration with them.
      idle: options, or beginnings of them, that have no effect on the command.
    """
    before = config_fields(experiment)
    for name, value in config_fields(config).items():
        if value != before[name]:
            if name.startswith(idle):
                raise ConfigError(f"--{name} has no effect here; leave it out")
            has_effect, when = _NEEDS.get(name, (bool, ""))
            if not has_effect(config):
                raise ConfigError(f"--{name} has an effect only {when}; name that, or leave it out")


def split_experiment(arguments: list[str]) -> tuple[str, ExperimentConfig, list[str]]:
    """Returns the name and configuration of the experiment that a command line starts with, and its other arguments.

    Raises:
      ConfigError: it does not start with one.
    """
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError("no experiment is named; name its module first, such as experiments.fashion_cnn")
    return arguments[0], load_experiment(arguments[0]), arguments[1:]


def import_family(experiment: str | None) -> None:
    """Imports the module of an experiment, so that a run finds its network; only the user's word does that."""
    if experiment is not None:
        load_experiment(experiment)


def load_experiment(name: str) -> ExperimentConfig:
    """Returns the CONFIG of an experiment's module.

    Raises:
      ConfigError: there is no such module, or it has none.
    """
    hint = "name a module such as experiments.fashion_cnn"
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{shown(name)} is not the name of a module; {hint}")
    try:
        config = getattr(importlib.import_module(name), "CONFIG", None)
    # It runs the user's code, which may even end the process.
    except (Exception, SystemExit) as error:
        raise ConfigError(f"cannot import {shown(name)} ({type(error).__name__}: {reason(error)}); {hint}") from error
    if not isinstance(config, ExperimentConfig):
        raise ConfigError(f"{shown(name)} has no CONFIG; {hint}")
    return config


def _first_message(box: str) -> str:
    """Returns the message in the box that tyro draws around it, on one line, without the colours of a terminal."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]:
        text = line.strip("│╭╮╰╯ ")
        if not text.strip("─"):
            break
        lines.append(text)
    # Without the help text of what is missing: its allowed values say enough.
    return re.sub(r"(--[\w-]+ \{.*?\}).* \(required\)", r"\1 (required)", " ".join(lines))


def exit_status(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit status; an error that the user can fix is a line on stderr, no traceback."""
    _open_streams()
    # A command only writes files. A notebook exports its own backend to all that it starts, installed there or not.
    os.environ["MPLBACKEND"] = "agg"
    with _quiet_libraries():
        try:
            with owns_process():
                check_settings()
                command()
                sys.stdout.flush()
        except KeyboardInterrupt as stop:
            return 128 + getattr(stop, "number", signal.SIGINT)
        except BrokenPipeError:
            # The reader of our output has gone.
            _discard_output()
            return 1
        except Exception as error:
            message, status = _explained(error)
            if not status:
                raise
            with contextlib.suppress(OSError):
                print(f"error: {message}", file=sys.stderr, flush=True)
            # For example, the disk is full that our output is redirected to.
            try:
                sys.stdout.flush()
            except OSError:
                _discard_output()
            return status
    return 0


def _open_streams() -> None:
    """Makes the standard streams show any name, and opens those that are closed on nothing.

    The next file to be opened would take the number of a closed one, and get what is written there.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", encoding="utf-8"))
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            # A file name may hold characters that the terminal cannot show.
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Redirects standard output to nothing: at exit, the interpreter must not try to write the rest."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hides what libraries log and warn of, which a user of a command cannot mend, unless Python's -W asks for it."""
    warnings.filterwarnings("default", category=UserWarning, module=r"cnn\.", append=True)
    warnings.filterwarnings("ignore", append=True)
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)


_MEMORY = "out of memory", "use a smaller network or --optim.batch_size, or end other programs"

_LIMITS = {
    "out of memory": _MEMORY,
    "resource_exhausted": _MEMORY,
    "cannot allocate memory": _MEMORY,
    "too many open files": ("too many open files", "allow more, such as by ulimit -n 1024"),
    "can't start new thread": ("too many threads", "allow more, such as by ulimit -u"),
    "no space left on device": ("no space left", "free some of the disk"),
}
"""By what an error says that comes from a limit of the machine, in lower case: the problem and the hint."""


def _explained(error: Exception) -> tuple[str, int]:
    """Returns the line that reports an error, and the exit status: 2 for the user's input, 0 for a bug."""
    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, (FloatingPointError, DamagedError)):
        return one_line(error), 1
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return one_line(f"{printable(error.filename or '', 100)}: {error.strerror}; use a shorter name"), 2
    cause = error
    while cause is not None:
        text = "out of memory" if isinstance(cause, MemoryError) else str(cause).lower()
        for words, (problem, hint) in _LIMITS.items():
            if words in text:
                return one_line(f"{problem} ({type(cause).__name__}: {reason(cause)}); {hint}"), 1
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OSError):
        return one_line(f"{type(error).__name__}: {error}"), 1
    if problem := _missing_platform():
        return one_line(problem), 2
    return "", 0


def _missing_platform() -> str:
    """Returns what is wrong if the environment names a platform on which JAX cannot start, else ""."""
    named = [f"{name} is {os.environ[name]!r}" for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if name in os.environ]
    if not named:
        return ""
    try:
        jax.devices()
    except Exception as error:
        return (
            f"{', '.join(named)}, but must be a platform that JAX finds, such as cpu; change or unset it "
            f"({reason(error)})"
        )
    return ""


_REFUSED = {
    "jax_disable_jit": (True,),
    "jax_no_tracing": (True,),
    "jax_numpy_dtype_promotion": ("strict",),
    "jax_numpy_rank_promotion": ("raise",),
    **dict.fromkeys(
        ("jax_transfer_guard", *(f"jax_transfer_guard_{way}" for way in ("host_to_device", "device_to_host"))),
        ("disallow", "disallow_explicit"),
    ),
}
"""Settings of JAX that make it refuse what training needs."""


def check_settings() -> None:
    """Raises ConfigError if the environment sets one of JAX's settings so that no command can work."""
    for name, values in _REFUSED.items():
        if (value := getattr(jax.config, name, None)) in values:
            raise ConfigError(f"{name.upper()} is {value!r}, by which JAX refuses what training needs; unset it")


def enable_compilation_cache() -> None:
    """Caches compiled programs next to the data, so that the next run starts seconds sooner, with the same bits.

    A directory that the user names (``JAX_COMPILATION_CACHE_DIR``) takes precedence; if ours is not writable, or there
    is no home directory, nothing is cached.
    """
    # A program that cannot be cached is compiled again the next time, which need not be reported to the user.
    warnings.filterwarnings("ignore", "Error (writing|reading) persistent compilation cache entry")
    with contextlib.suppress(OSError, DataError):
        directory = cache_directory("xla")
        directory.mkdir(parents=True, exist_ok=True)
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ and os.access(directory, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(directory))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


ONEDNN = "--xla_cpu_experimental_onednn_custom_call"
ONEDNN_FLAGS = f"{ONEDNN}=true --xla_cpu_experimental_ynn_fusion_type=reduce"
"""oneDNN for convolutions and products, of which XLA would otherwise give most to YNN; YNN keeps the reductions."""


def enable_onednn_bfloat16(*configs: ExperimentConfig, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Lets XLA call oneDNN for bfloat16 where the processor supports it; call this before JAX's first use.

    Only then is bfloat16 the faster type on a CPU. Does nothing for another processor or type, or if the user has set
    the flag in ``XLA_FLAGS``.

    Raises:
      ConfigError: another configuration of this process uses float32, whose results the flag would change.
    """
    flags, dtypes = os.environ.get("XLA_FLAGS", ""), {config.model.dtype for config in configs}
    if "bfloat16" in dtypes and ONEDNN not in flags:
        with contextlib.suppress(OSError):
            if "avx512_bf16" in cpuinfo.read_text():
                if len(dtypes) > 1:
                    raise ConfigError(
                        "--model.dtype is float32 and bfloat16, but must be one here, as the flag that makes bfloat16 "
                        "fast on this processor changes float32 results; run a command for each"
                    )
                os.environ["XLA_FLAGS"] = f"{flags} {ONEDNN_FLAGS}".strip()
