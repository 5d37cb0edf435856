"""``python -m cnn <verb>``: each verb is one function of a module of the library."""

import sys
from pathlib import Path

from cnn.config import DataConfig
from cnn.errors import UserError
from cnn.run import exit_status, parse_options


def data(data: DataConfig) -> None:
    """Fetch, verify and cache a data set."""
    from cnn.data import prepare

    print(prepare(data))


def look(run_dir: Path, /) -> None:
    """Draw the figures of a finished run again.

    Args:
        run_dir: Directory of the run.
    """
    from cnn.pictures import draw_figures
    from cnn.train import load_result

    config, result = load_result(run_dir)
    print(*draw_figures(run_dir, config, result), sep="\n")


VERBS = {"data": data, "look": look}


def main(arguments: list[str]) -> None:
    """Runs the verb that the command line begins with."""
    verb, *rest = arguments or ["--help"]
    if verb in ("-h", "--help"):
        print("usage: python -m cnn VERB ...; python -m cnn VERB --help tells more\n")
        for name, function in VERBS.items():
            print(f"  {name:10}{(function.__doc__ or '').splitlines()[0]}")
    elif verb in VERBS:
        parse_options(VERBS[verb], f"python -m cnn {verb}", rest)()
    else:
        raise UserError(f"{verb!r} is not a verb of python -m cnn; the verbs are {', '.join(VERBS)}")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
