"""The command line: finds and runs a command; what goes wrong becomes a sentence and an exit code."""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

from smarthost import __version__
from smarthost.cli.exits import CommandFailed
from smarthost.cli.parser import Parser

# Command -> what it does. The file is cli/COMMAND.py, with _ for -; it is imported only when the command is given.
COMMANDS: Mapping[str, str] = {
    "serve": "run the relay",
    "check": "read the configuration, the keys and the permissions, and say what is wrong",
    "demo": "run a relay and an upstream together, and follow one message through them",
    "sink": "run a test upstream that misbehaves on request",
    "queue": "list, show, flush, hold, release, retry, fail, delete or export queued messages",
    "suppress": "list, add, remove, import or export addresses to which nothing is sent",
    "trace": "tell the whole story of a message",
    "explain": "say what would become of a message to a recipient, and when it would leave; sends nothing",
    "why": "say what a message waits for, since when and until when",
    "diagnose": "look for what keeps mail from going: disk, clock, DNS, keys, certificates, upstreams, listeners",
    "doctor": "the same as diagnose",
    "check-loop": "say whether delivery goes on: what moves, what waits and why, what is stuck",
    "test-dispatch": "send one test message through the running relay, and follow it until it is taken or put off",
    "suspend": "let a site, a route or a user send nothing for now, or list what is suspended",
    "resume": "let a site, a route or a user that was suspended send again",
    "status": "say how the running relay is",
    "reload": "make the running relay read its configuration again",
    "user": "hash a password for the configuration",
    "dlq": "list, send again or delete messages by HTTP that failed and are kept for a time",
    "batch": "send a template to the recipients of a file; show, suspend, resume or cancel batches",
    "key": "make, list or revoke API keys, which open the HTTP door and the SMTP door",
    "template": "list, add, show, fill in or remove templates, from which the HTTP door makes messages",
    "seed": "make a test key and a sample template, and say how to send a first message with them",
    "dkim": "make, show or check DKIM keys",
    "oauth": "log in by OAuth 2.0 for a route, to obtain its refresh token",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code of sysexits.h."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(_help(), file=sys.stderr)
        return os.EX_USAGE
    if words[0] in ("--help", "-h", "help"):
        print(_help())
        return os.EX_OK
    if words[0] in ("--version", "-V"):
        print(f"smarthost {__version__}")
        return os.EX_OK
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else "; smarthost --help lists the commands"
        print(f"smarthost: there is no command {name!r}{hint}", file=sys.stderr)
        return os.EX_USAGE
    try:
        return _run(name, words[1:])
    except CommandFailed as failure:
        print(f"smarthost: {failure}", file=sys.stderr)
        return failure.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough (a pager, head): nothing to complain about, and nowhere to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    except KeyboardInterrupt:
        return 130
    except Exception as bug:
        print(f"smarthost: internal error: {type(bug).__name__}: {bug}", file=sys.stderr)
        if os.environ.get("SMARTHOST_DEBUG"):
            traceback.print_exc()
        else:
            print("smarthost: SMARTHOST_DEBUG=1 shows where", file=sys.stderr)
        return os.EX_SOFTWARE


def _run(name: str, words: Sequence[str]) -> int:
    command = importlib.import_module(f"smarthost.cli.{name.replace('-', '_')}")
    parser = Parser(prog=f"smarthost {name}", description=_sentence(COMMANDS[name]))
    command.configure(parser)
    chosen = parser.parse_args(words)
    exit_code: int = command.run(chosen)
    sys.stdout.flush()
    return exit_code


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"""usage: smarthost COMMAND [OPTIONS]

The SMTP relay that applications point at: durable, signing, fast, and able to say why a message waits.

commands:
{commands}

options:
  -h, --help     show this text; smarthost COMMAND --help shows a command's own
  -V, --version  show the version

The configuration is the file named by --config, else by SMARTHOST_CONFIG, else /etc/smarthost/smarthost.toml; without
any, every setting has its default. First steps: smarthost demo."""


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


if __name__ == "__main__":
    sys.exit(main())
