"""How a command ends when it fails: one sentence and an exit code of sysexits.h."""

import os


class CommandFailed(Exception):
    """Ends a command. The text is one sentence for people; `exit_code` is one of sysexits.h."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        """Keep both."""
        super().__init__(sentence)
        self.exit_code = exit_code


def misused(sentence: str) -> CommandFailed:
    """The command was given wrongly (64)."""
    return CommandFailed(sentence, os.EX_USAGE)


def unavailable(sentence: str) -> CommandFailed:
    """Something that the command needs is not there, as a rule the running relay (69)."""
    return CommandFailed(sentence, os.EX_UNAVAILABLE)


def refused(sentence: str) -> CommandFailed:
    """The system does not permit it (77)."""
    return CommandFailed(sentence, os.EX_NOPERM)


def misconfigured(sentence: str) -> CommandFailed:
    """The configuration, or a file that it names, cannot be used (78)."""
    return CommandFailed(sentence, os.EX_CONFIG)
