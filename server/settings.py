"""Options of `penstock serve` that are set in a file or in the environment, and where each that is in force comes from.

What the command line says goes before the environment (`PENSTOCK_PORT` for `--port`), that before the file
(`penstock.toml` here, or `--config`), that before what holds without any. Knows ConfigArgParse, which does the work.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn, cast

import configargparse

from .errors import ConfigError

FILE, TABLE, PREFIX = "penstock.toml", "serve", "PENSTOCK_"
# Read from the environment where they are needed.
_READ_ELSEWHERE = ("api_key", "threads")
_KEY = PREFIX + "API_KEY"
# No options of a server: where fetched models lie, and what a demo and the tests read.
_NO_OPTIONS = tuple(PREFIX + name for name in ("CACHE", "STARTED", "TESTS"))
# What Kubernetes tells every container of a service that is called penstock.
_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")
_NOT_TOLD = ("help", "config", "json", "model_option")


class OneLineParser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments; keeps the lines of examples as they are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=_Formatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Options begin in one column, where there is room behind the longest."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class _SettingsFile(configargparse.TomlConfigParser):
    """The file's table, in errors by name."""

    def __init__(self) -> None:
        super().__init__([TABLE])

    def parse(self, stream: Any) -> Any:
        try:
            return super().parse(stream)
        except configargparse.ConfigFileParserException as error:
            raise configargparse.ConfigFileParserException(f"{stream.name}: {error}") from None


class SettingsParser(OneLineParser, configargparse.ArgumentParser):
    """A parser whose options may also be set in the file and in the environment."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **options,
            default_config_files=[FILE],
            config_file_parser_class=_SettingsFile,
            add_config_file_help=False,
            add_env_var_help=False,
            allow_abbrev=False,
        )
        self.add_argument("--config", is_config_file=True, metavar="FILE", help=f"options, TOML (default {FILE})")

    def take_environment(self) -> None:
        """Let the environment set the options that have been added."""
        for action in self._actions:
            if action.option_strings and action.dest not in ("help", "config", *_READ_ELSEWHERE):
                cast(Any, action).env_var = _variable(_name(action))  # a field of ConfigArgParse

    def from_file(self, dest: str) -> bool:
        """After parsing: whether the file says what this option is."""
        found = self.get_source_to_settings_dict().items()
        files = (settings for source, settings in found if source.startswith("config_file|"))
        return any(action is not None and action.dest == dest for one in files for action, _ in one.values())

    def check_names(self) -> None:
        """After parsing: raise ConfigError where the file or the environment has a name that is no option."""
        for source, found in self.get_source_to_settings_dict().items():
            kind, _, path = source.partition("|")
            for name, (action, _) in found.items():
                if kind == "config_file" and action is None:
                    raise ConfigError(f"{path}: expected options of penstock serve under [{TABLE}], got {name!r}")
        known = {cast(Any, action).env_var for action in self._actions} - {None}
        known |= {_variable(name) for name in _READ_ELSEWHERE} | {*_NO_OPTIONS}
        for name in sorted(os.environ):
            if name.startswith(PREFIX) and name not in known and not _OF_A_SERVICE.search(name):
                near = get_close_matches(name[len(PREFIX) :], [one[len(PREFIX) :] for one in known], 1) or ["PORT"]
                such = PREFIX + near[0]
                raise ConfigError(f"environment: expected options of penstock serve, such as {such}, got {name!r}")


class InForce(NamedTuple):
    """A value that is in force, and what says so."""

    name: str
    value: Any
    source: str


def in_force(parser: SettingsParser, options: argparse.Namespace) -> Iterator[InForce]:
    """Every option that `parser` has parsed into `options`, in the order of `--help`. Of secrets: whether they are."""
    found = parser.get_source_to_settings_dict()
    said = found.get("command_line", {}).get("", (None, []))[1]
    sources = {action.dest: "default" for action in parser._actions} | {"model": "command line"}
    for source, settings in found.items():
        for action, _ in settings.values():
            if action is not None and source == "environment_variables":
                sources[action.dest] = f"{action.env_var} in the environment"
            elif action is not None and source.startswith("config_file|"):
                sources[action.dest] = source.partition("|")[2]
    for action in parser._actions:
        if action.option_strings and configargparse.already_on_command_line(said, action.option_strings, "-"):
            sources[action.dest] = "command line"
    if options.model is None or options.model == options.model_option:
        sources["model"] = sources["model_option"]
    for action in parser._actions:
        if action.dest not in _NOT_TOLD:
            value = getattr(options, action.dest)
            if action.dest == "api_key" and key_in_environment(options) is not None:
                value, sources[action.dest] = "", f"{_KEY} in the environment"
            told = "set" if action.dest == "api_key" and value is not None else value
            name = _name(action)
            yield InForce(name, value is False if name.startswith("no-") else told, sources[action.dest])


def key_in_environment(options: argparse.Namespace) -> str | None:
    """The key that the environment says, where the command line says none: it goes before the file's."""
    parser: SettingsParser | None = getattr(options, "settings", None)
    for dest in ("api_key", "api_key_file"):
        if getattr(options, dest) is not None and not (parser is not None and parser.from_file(dest)):
            return None
    return os.environ.get(_KEY)


def _name(action: argparse.Action) -> str:
    """What an option is called in the file."""
    return action.option_strings[-1].lstrip("-") if action.option_strings else action.dest


def _variable(name: str) -> str:
    """What an option is called in the environment."""
    return PREFIX + name.replace("-", "_").upper()
