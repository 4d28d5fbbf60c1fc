"""Entry script of the process that becomes a browser: puts two pipes where `--remote-debugging-pipe` looks for them. Standard library only.

Its arguments are the descriptors of the commands' and the messages' pipe, and the program with its arguments.
"""

import fcntl
import os
import sys

# The browser reads commands from the first and writes messages to the second.
COMMANDS, MESSAGES = 3, 4


def main(commands, messages, *program):
    """Becomes the program."""
    # First to descriptors above both, as either may be one of the two that are wanted.
    moved = [fcntl.fcntl(int(descriptor), fcntl.F_DUPFD, MESSAGES + 1) for descriptor in (commands, messages)]
    os.dup2(moved[0], COMMANDS)
    os.dup2(moved[1], MESSAGES)
    for descriptor in {int(commands), int(messages), *moved} - {COMMANDS, MESSAGES}:
        os.close(descriptor)
    os.execv(program[0], program)


if __name__ == "__main__":
    main(*sys.argv[1:])
