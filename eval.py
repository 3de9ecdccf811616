"""Door to `ssl-audio eval`: test an embedding on trial lists. `python eval.py --help` shows examples."""

import sys

from ssl_audio.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("eval", sys.argv[1:], program="eval.py"))
