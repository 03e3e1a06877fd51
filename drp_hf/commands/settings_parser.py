"""TRL's parser, which also checks what a YAML file says, and tells a mistake in one sentence."""

from __future__ import annotations

from argparse import Action, ArgumentTypeError
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import yaml
from trl import TrlParser

from drp_hf.errors import DRPError

CONFIG = "--config"


class SettingsParser(TrlParser):
    """Reads config dataclasses from flags and from the YAML file after `--config`.

    argparse checks flags alone: what a file holds it takes as defaults, unseen.
    """

    file = ""

    def read(self, args: Sequence[str]) -> tuple[Any, ...]:
        """The config dataclasses.

        Args:
            args: the command line, without the program's name.

        Raises:
            DRPError: a flag or setting that is not there, or a value that it cannot have.
        """
        args = [part for arg in args for part in (arg.split("=", 1) if arg.startswith(f"{CONFIG}=") else [arg])]
        if CONFIG in args:
            self.file = next(iter(args[args.index(CONFIG) + 1 :]), "")
            if not self.file:
                raise DRPError(f"{CONFIG} needs a YAML file after it.")
        try:
            *configs, of_file, of_line = self.parse_args_and_config(
                args, return_remaining_strings=True, separate_remaining_strings=True
            )
        except DRPError:
            raise
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DRPError(f"{self.file} is not YAML ({' '.join(str(error).split())}): correct it.") from error
        except OSError as error:
            raise DRPError(f"{error.filename} cannot be read ({error.strerror}): correct its path.") from error
        except (TypeError, ValueError) as error:  # the dataclasses' own checks, and TRL's of the file
            raise DRPError(" ".join(str(error).split())) from error
        for source, rest in ((f"{self.file} has", of_file), ("There is", of_line)):
            if rest:
                raise DRPError(f"{source} {self._unknown(rest[0])}")
        return tuple(configs)

    def set_defaults_with_config(self, **values: Any) -> list[str]:
        for action in self._actions:
            if action.dest in values:
                values[action.dest] = self._checked(action, values[action.dest])
        return super().set_defaults_with_config(**values)

    def error(self, message: str) -> NoReturn:
        raise DRPError(f"{message}: see --help.")

    def _checked(self, action: Action, value: Any) -> Any:
        """A value of the file, as a list where the setting is one; one that a flag could not give is refused."""
        if value is None:
            return None
        if action.nargs in ("*", "+"):
            return [self._one(action, each) for each in (value if isinstance(value, list) else [value])]
        return self._one(action, value)

    def _one(self, action: Action, value: Any) -> Any:
        if value is False and "no" in (action.choices or ()):
            return "no"  # as YAML reads it without quotes
        if action.choices is not None and value not in action.choices:
            choices = ", ".join(map(str, action.choices))
            raise DRPError(f"{self.file}: {action.dest} is {value!r}, and must be one of {choices}.")
        if not _takes(action, "1"):
            return value
        try:
            return action.type(str(int(value) if isinstance(value, float) and value.is_integer() else value))
        except ValueError:
            wanted = "number" if _takes(action, "0.5") else "whole number"
            raise DRPError(f"{self.file}: {action.dest} is {value!r}, and must be a {wanted}.") from None

    def _unknown(self, word: str) -> str:
        """What is said of a word that is no setting."""
        if not word.startswith("-"):
            return f"no place for {word!r}: see --help."
        name = word.lstrip("-").partition("=")[0]
        similar = get_close_matches(name.replace("-", "_"), [action.dest for action in self._actions], n=1)
        return f"no setting {name!r}: {f'did you mean {similar[0]}?' if similar else 'see --help.'}"


def _takes(action: Action, number: str) -> bool:
    """Whether a setting makes a number of a text that is one."""
    try:
        made = action.type(number) if action.type else None
    except (TypeError, ValueError, ArgumentTypeError):
        return False
    return isinstance(made, int | float) and not isinstance(made, bool)
