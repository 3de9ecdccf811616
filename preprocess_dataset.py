"""Door to `ssl-audio preprocess`; see `python preprocess_dataset.py --help`."""

import sys

from ssl_audio.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("preprocess", sys.argv[1:], "preprocess_dataset.py"))
