"""Shared by all commands: options, exit status, compiler settings."""

import contextlib
import functools
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import jax

from cnn.config import ExperimentConfig
from cnn.data.cache import cache_directory
from cnn.devices.signals import owns_process
from cnn.errors import ConfigError, DamagedError, DataError, UserError


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


def _first_message(box: str) -> str:
    """Returns the message in the box that tyro draws around it, on one line, without the colours of a terminal."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]:
        text = line.strip("│╭╮╰╯ ")
        if not text.strip("─"):
            break
        lines.append(text)
    return " ".join(lines)


def exit_status(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit status; an error that the user can fix is a line on stderr, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold characters that the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A command only writes files. A notebook exports its own backend to all that it starts, installed there or not.
    os.environ["MPLBACKEND"] = "agg"
    try:
        with owns_process():
            command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (FloatingPointError, DamagedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        return 128 + getattr(stop, "number", signal.SIGINT)
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not try to write the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # For example, the disk is full that our output is redirected to.
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except Exception:
        if not (problem := _missing_platform()):
            raise
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def _missing_platform() -> str:
    """Returns what is wrong if the environment names a platform on which JAX cannot start, else ""."""
    named = [f"{name} is {os.environ[name]!r}" for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if name in os.environ]
    if not named:
        return ""
    try:
        jax.devices()
    except Exception as error:
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        return f"{', '.join(named)}, but must be a platform that JAX finds, such as cpu; change or unset it{reason}"
    return ""


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
                os.environ["XLA_FLAGS"] = f"{flags} {ONEDNN}=true".strip()
