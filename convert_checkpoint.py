"""Door to `ssl-audio convert`; see `python convert_checkpoint.py --help`."""

import sys

from ssl_audio.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("convert", sys.argv[1:], program="convert_checkpoint.py"))
