"""Door to `ssl-audio pairs`; see `python create_speaker_pairs.py --help`."""

import sys

from ssl_audio.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("pairs", sys.argv[1:], "create_speaker_pairs.py"))
