"""Errors for people: one line with what is wrong, where, and what to do; and the entry point of all commands."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from .launchers import set_torchrun_variables
from .logs import log_to_console
from .terminal import print_line

_PATIENCE_SECONDS = 5
# Credentials and queries of URLs. `s3://tweets-?.csv` is a pattern without a query.
_LOGIN = re.compile(r"(?<=://)[^\s/?#]*@")
_QUERY = re.compile(r"(https?://[^\s?]*|://[^\s?]*(?=\?[\w-]+=))\?\S*?(?=[:;,.)\]'\"]*(?:\s|$))")


class UserError(Exception):
    """A mistake that the user can correct; ends the program with exit code 2 and without a traceback.

    If it is `found_by_one_rank` (a damaged shard in its part of the data), the raising rank prints it. All ranks find
    any other error, and local rank 0 prints it.
    """

    def __init__(self, message: str, *, found_by_one_rank: bool = False):
        super().__init__(message)
        self.found_by_one_rank = found_by_one_rank


class Interrupted(UserError):
    """A failure that is not a mistake in the input: the same command can resume."""


class Stopped(Exception):
    """A run that was asked to stop and has saved a checkpoint; ends the program with exit code `code`."""

    # EX_TEMPFAIL of sysexits.h: try again later.
    code = 75


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the nearest of `known`, ignoring case; empty if none is near."""
    lowered = {other.lower(): other for other in known}
    near = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return f" (did you mean '{lowered[near[0]]}'?)" if near else ""


def without_secrets(text: str) -> str:
    """Remove what may be secret in URLs: user name and password before the host, and the query after `?`."""
    return _QUERY.sub(r"\1", _LOGIN.sub("", text))


def require_utf8(text: str) -> None:
    """Raise UserError if an argument contains bytes that are not UTF-8, as Linux allows in file names."""
    try:
        text.encode()
    except UnicodeEncodeError:
        plain = without_secrets(text.encode("utf-8", "backslashreplace").decode())
        raise UserError(f"{plain}: contains bytes that are not UTF-8; write it in UTF-8, or rename the file") from None


def run_entry(stage: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Run a stage; a `UserError` becomes one line and exit code 2.

    A run that was asked to stop and has saved ends with one line and code 75, Ctrl-C with code 130, a closed output
    pipe silently with code 141.
    """
    arguments = sys.argv[1:] if argv is None else argv
    set_torchrun_variables(os.environ)
    log_to_console()
    try:
        for argument in arguments:
            require_utf8(argument)
        stage(arguments)
        sys.stdout.flush()
    except UserError as error:
        message = without_secrets(str(error))
        _tell_torchrun(message)
        if error.found_by_one_rank or os.environ.get("LOCAL_RANK", "0") == "0":
            print_line(f"error: {message}", sys.stderr)
        else:
            # torchrun stops all ranks when the first one exits: let local rank 0 print first.
            time.sleep(_PATIENCE_SECONDS)
        raise SystemExit(2) from None
    except Stopped as error:
        _tell_torchrun(str(error))
        if os.environ.get("RANK", "0") == "0":
            print_line(str(error), sys.stderr)
        raise SystemExit(error.code) from None
    except KeyboardInterrupt as error:
        print_line(f"stopped; {error}" if str(error) else "stopped", sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of the output has gone, as `head` does; else the interpreter would complain once more at exit.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _tell_torchrun(message: str) -> None:
    """Give torchrun's summary this line as the root cause, in place of a traceback."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        details = {"py_callstack": message, "timestamp": str(int(time.time()))}
        Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": details}}), encoding="utf-8")
