"""From command line to config, and from a user's mistake to one sentence."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from drp_hf.errors import DRPError


def parse(dataclass_types: Any, argv: Sequence[str] | None, positional: str | None = None) -> Any:
    """Parses flags and `--config file.yaml` into config dataclasses with TRL's parser.

    Args:
        dataclass_types: one config dataclass or a tuple of them.
        argv: the arguments, `sys.argv[1:]` if None.
        positional: field that a leading argument without dashes fills (`drp prune TRACES …`).

    Returns:
        The config, or a tuple of them in the order of `dataclass_types`.

    Raises:
        DRPError: a flag or setting that is not there, or a value that it cannot have.
    """
    from drp_hf.commands.settings_parser import SettingsParser

    args = list(sys.argv[1:] if argv is None else argv)
    if positional and args and not args[0].startswith("-"):
        args.insert(0, f"--{positional}")
    parsed = SettingsParser(dataclass_types).read(args)
    return parsed if isinstance(dataclass_types, tuple) else parsed[0]


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room: on the disk, in the user's share of it, or in the size that a file may have."""
GOES_ON = "interrupted: what is done is kept, and the same command goes on from there."


def run(main: Callable[..., Any], *configs: Any, interrupted: str = GOES_ON) -> Any:
    """Calls `main(*configs)`; a user's mistake is printed as one sentence, with exit status 2; Ctrl-C ends with 130.

    Mistakes are every `DRPError`, a file or folder that cannot be read or written, and a full disk.

    Args:
        main: does the work.
        *configs: its arguments.
        interrupted: what is said after Ctrl-C.
    """
    try:
        return main(*configs)
    except DRPError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno in FULL:  # where the write itself fails, the error names no file
            _refuse(
                f"{error.filename or 'A file'} cannot be written ({os.strerror(error.errno)}): make room, and start "
                "the same command again."
            )
        if error.filename is None:
            raise
        _refuse(f"{error.filename} cannot be used ({error.strerror}): correct its path or permissions.")
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True).print(interrupted)
        gc.freeze()  # else Python goes once more through every object of every library, for a second, before it ends
        raise SystemExit(130) from None


def _refuse(message: str) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escape(message)}")
    raise SystemExit(2)


def parse_and_run(
    main: Callable[..., Any], dataclass_types: Any, positional: str | None = None, interrupted: str = GOES_ON
) -> None:
    """What an entry point does: [`parse`] and then `main`, in a [`run`]."""

    def parsed() -> None:
        configs = parse(dataclass_types, None, positional)
        main(*configs if isinstance(dataclass_types, tuple) else [configs])

    run(parsed, interrupted=interrupted)
