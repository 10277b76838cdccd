"""serve makes room for connections."""

import resource

from smarthost.cli.serve import FILES, allow_files


def test_the_limit_of_open_files_is_raised_and_never_lowered() -> None:
    """A shell's small limit becomes what the system allows, 65,536 at most; a larger one stays."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        allow_files()
        hard = before[1]
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard)
        allow_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
