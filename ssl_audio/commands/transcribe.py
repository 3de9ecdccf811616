"""Write the notes of a recording as MIDI, one track per instrument, and a picture of the piano roll.

The model is a folder that `ssl-audio fit-transcriber` wrote.
"""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  piece.mid and piece.png:
    ssl-audio transcribe piece.wav --model transcribers/cpc -o piece.mid
  ssl-audio transcribe piece.flac --model transcribers/cpc -o out/piece.mid --image roll.svg --threshold 0.3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recording", help="an audio file of any format")
    add("--model", required=True, help="folder of a transcriber")
    add("-o", "--output", required=True, type=Path, help="MIDI file to write")
    add("--image", type=Path, help="picture of the piano roll (default: the name of --output with .png)")
    add("--no_image", action="store_true", help="write no picture")
    add("--threshold", type=float, help="probability above which a note sounds (default: the transcriber's own)")
    add("--min_seconds", type=float, default=0.03, help="drop notes that are shorter (0.03)")
    add("--batch_size", type=int, default=8, metavar="N", help="windows per pass (8)")
    add("--device", help="cpu, cuda, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    """Read, transcribe, write."""
    from ssl_audio import audio
    from ssl_audio.errors import InputError
    from ssl_audio.transcription import load_transcriber
    from ssl_audio.transcription.output import write_image, write_midi
    from ssl_audio.utils.device import best_device

    if args.output.suffix.lower() not in (".mid", ".midi"):
        raise InputError(f"--output {args.output} must be the name of a MIDI file, such as {args.output.stem}.mid")
    if args.threshold is not None and not 0 < args.threshold < 1:
        raise InputError(f"--threshold is {args.threshold:g}; it must be a probability between 0 and 1")
    if args.batch_size < 1:
        raise InputError(f"--batch_size is {args.batch_size}; it must be at least 1")
    if not args.min_seconds >= 0:
        raise InputError(f"--min_seconds is {args.min_seconds:g}; it must be at least 0")
    transcriber = load_transcriber(args.model).to(best_device(args.device))
    transcriber.threshold = transcriber.threshold if args.threshold is None else args.threshold
    samples = audio.read(args.recording, transcriber.sample_rate)
    try:
        probabilities = transcriber.probabilities(samples, args.batch_size, progress=True)
    except InputError as error:
        raise InputError(f"{args.recording}: {error}") from error
    notes = transcriber.notes(probabilities, args.min_seconds)
    write_midi(notes, args.output)
    written = str(args.output)
    if not args.no_image:
        image = args.image or args.output.with_suffix(".png")
        write_image(probabilities[0], transcriber.frame_rate, notes, image)
        written += f", {image}"
    print(f"{len(notes)} notes of {len(samples) / transcriber.sample_rate:.1f} s: {written}")
    return 0
