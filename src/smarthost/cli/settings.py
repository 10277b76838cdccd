"""Settings: the configuration as a command needs it, with what is wrong said in one way everywhere."""

import argparse
import os
from pathlib import Path

from smarthost.cli.exits import CommandFailed, misconfigured
from smarthost.config import Config, ConfigError, load


def load_config(chosen: argparse.Namespace, needs_tokens: bool = True) -> Config:
    """Read the configuration that the command line or the environment names; raises CommandFailed (78).

    Without `needs_tokens` the files of refresh tokens may be missing.
    """
    try:
        return load(chosen.config, os.environ, needs_tokens=needs_tokens)
    except ConfigError as error:
        raise misconfigured(f"the configuration cannot be used:\n{error.render()}") from None


def find_data_directory(chosen: argparse.Namespace) -> Path:
    """Give the relay's data directory, from the command line or the configuration; raises CommandFailed (78)."""
    if chosen.data_directory is not None:
        folder: Path = chosen.data_directory
        return folder
    try:
        return load_config(chosen).data_directory
    except CommandFailed as fault:
        # Whoever is in the midst of editing it may have to hold mail at once.
        raise misconfigured(f"{fault}\n--data-directory DIR finds the running relay without it") from None
