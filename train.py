"""Door to `ssl-audio train`; see `python train.py --help`."""

import sys

from ssl_audio.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:], program="train.py"))
