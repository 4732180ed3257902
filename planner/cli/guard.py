"""From exceptions to one message on stderr and an exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from planner.errors import ExitCode, PlannerError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

DEBUG = "PLANNER_DEBUG"


def guarded(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A command that ends with one clear message for whatever goes wrong in it."""

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        try:
            result = command(*arguments, **options)
            sys.stdout.flush()
        except PlannerError as error:
            _say(f"planner: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            _say("planner: interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # whoever read our output has enough; a later flush at exit must not complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.ENVIRONMENT) from None
        except OSError as error:
            _say(f"planner: cannot write the answer: {error.strerror or error}")
            raise typer.Exit(ExitCode.ENVIRONMENT) from None
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            _say(
                f"planner: a bug: {type(error).__name__}: {error}\n"
                f"hint: please report it with the command and its input; {DEBUG}=1 shows where it happened"
            )
            raise typer.Exit(ExitCode.BUG) from None
        else:
            return result

    return run


def _say(message: str) -> None:
    from planner.render.text import printable

    sys.stderr.write(printable(message) + "\n")
