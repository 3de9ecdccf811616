"""IEMOCAP (Busso et al., 2008): ten actors in five sessions, utterances with an emotion.

Layout: `root/Session1/dialog/EmoEvaluation/*.txt`, `root/Session1/sentences/wav/<dialog>/<utterance>.wav`, to
Session5. The folds are the sessions, which share no speaker.
"""

import os
import re

from ssl_audio.data.corpora.base import Corpus, Missing, Track, make_corpus, read_table, require, split_of_fold
from ssl_audio.errors import InputError
from ssl_audio.utils.packaged import packaged

_HOME = "https://sail.usc.edu/iemocap, by request"
SESSIONS = tuple(f"Session{number}" for number in range(1, 6))
FILES = {f"{session}/{part}": _HOME for session in SESSIONS for part in ("dialog/EmoEvaluation", "sentences/wav")}
_TABLE = read_table(packaged("metadata/labels/iemocap.csv"), ["code", "four"])
EMOTIONS = tuple(row["code"] for row in _TABLE)
FOUR = {row["code"]: row["four"] for row in _TABLE if row["four"]}
"""The usual four classes, in which excitement counts as happiness."""

_LINE = re.compile(r"\[[\d.]+ - [\d.]+\]\t(Ses0\d[FM]_\w+_([FM])\d+)\t(\w{3})\t")


def read(root: str | os.PathLike, emotions: str = "four", fold: int = 5, missing: Missing = "error") -> Corpus:
    """The corpus in folds of sessions; groups are speakers.

    Args:
        emotions: "four" (angry, happy with excited, neutral, sad: 5,531 utterances) or "all" (11, with other and
            undecided).
        fold: the session for test, where a single split is needed.
        missing: "error" refuses a corpus with utterances without audio, "skip" leaves them out.

    Raises:
        InputError: lists every missing folder; no utterance found; an unknown emotion, set of emotions or fold.
    """
    if emotions not in ("four", "all"):
        raise InputError(f"IEMOCAP has the emotions four and all, not {emotions!r}")
    root = require("IEMOCAP", root, FILES)
    folds = [session[-1] for session in SESSIONS]
    tracks = []
    for session in SESSIONS:
        split = split_of_fold(session[-1], folds, str(fold))
        for file in sorted((root / session / "dialog" / "EmoEvaluation").glob("[!.]*.txt")):
            for name, gender, emotion in _LINE.findall(file.read_text(encoding="utf-8", errors="replace")):
                if emotion not in EMOTIONS:
                    raise InputError(f"{file}: {name} has the unknown emotion {emotion!r}")
                label = FOUR.get(emotion) if emotions == "four" else emotion
                if label:
                    path = root / session / "sentences" / "wav" / name.rsplit("_", 1)[0] / f"{name}.wav"
                    tracks.append(Track(name, path, split, (label,), session + gender, session[-1]))
    labels = sorted(set(FOUR.values())) if emotions == "four" else EMOTIONS
    return make_corpus(
        "IEMOCAP", "5 sessions", tracks, labels, multi_label=False, missing=missing, audio_from=f"see {_HOME}"
    )
