"""Errors that are for people: one line that says what is wrong, where, and what to do."""

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
# In URLs: who logs in, and what is asked. `s3://tweets-?.csv` asks nothing.
_LOGIN = re.compile(r"(?<=://)[^\s/?#]*@")
_QUESTION = re.compile(r"(https?://[^\s?]*|://[^\s?]*(?=\?[\w-]+=))\?\S*?(?=[:;,.)\]'\"]*(?:\s|$))")


class UserError(Exception):
    """A mistake that its user can mend. Ends the program with exit code 2 and no traceback.

    `found_by_one_rank` marks what only the raising rank has seen (a damaged shard in its share, say):
    that rank prints it, whichever it is. All else is found by every rank alike and printed by local rank 0.
    """

    def __init__(self, message: str, *, found_by_one_rank: bool = False):
        super().__init__(message)
        self.found_by_one_rank = found_by_one_rank


class Interrupted(UserError):
    """What kept a stage from its end was no mistake in what it was given: the same command can go on."""


class Stopped(Exception):
    """A run that was asked to stop, and has saved: the same command goes on. Ends the program with `code`."""

    # EX_TEMPFAIL of sysexits.h: try again later.
    code = 75


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the nearest of `known`, case aside, or nothing."""
    lowered = {other.lower(): other for other in known}
    near = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return f" (did you mean '{lowered[near[0]]}'?)" if near else ""


def without_secrets(text: str) -> str:
    """Text without what may be secret in its URLs: name and password before the host, and what follows the `?`."""
    return _QUESTION.sub(r"\1", _LOGIN.sub("", text))


def require_utf8(text: str) -> None:
    """Raises UserError for a word or a name that holds bytes of another encoding, as Linux allows."""
    try:
        text.encode()
    except UnicodeEncodeError:
        plain = without_secrets(text.encode("utf-8", "backslashreplace").decode())
        raise UserError(f"{plain}: holds bytes that are not UTF-8; write it in UTF-8, or rename the file") from None


def run_entry(stage: Callable[[list[str]], None], argv: list[str] | None = None) -> None:
    """Runs one stage's main and turns a `UserError` into its line and exit code 2.

    A run that was asked to stop and has saved is one line (code 75), Ctrl-C is, too (130); where nobody reads the
    output any more, it ends without a word (141).

    Args:
        stage: takes the command-line arguments.
        argv: the arguments; `sys.argv[1:]` when not given.
    """
    words = sys.argv[1:] if argv is None else argv
    set_torchrun_variables(os.environ)
    log_to_console()
    try:
        for word in words:
            require_utf8(word)
        stage(words)
        sys.stdout.flush()
    except UserError as error:
        message = without_secrets(str(error))
        _tell_torchrun(message)
        if error.found_by_one_rank or os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {message}", file=sys.stderr, flush=True)
        else:
            # torchrun stops all ranks when the first has left: let local rank 0 speak before.
            time.sleep(_PATIENCE_SECONDS)
        raise SystemExit(2) from None
    except Stopped as error:
        _tell_torchrun(str(error))
        if os.environ.get("RANK", "0") == "0":
            print_line(str(error), sys.stderr)
        raise SystemExit(error.code) from None
    except KeyboardInterrupt as error:
        print(f"stopped; {error}" if str(error) else "stopped", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; the interpreter would say so once more at its end.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _tell_torchrun(message: str) -> None:
    """Has torchrun's summary name this line as the root cause, in place of a traceback."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        details = {"py_callstack": message, "timestamp": str(int(time.time()))}
        Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": details}}), encoding="utf-8")
