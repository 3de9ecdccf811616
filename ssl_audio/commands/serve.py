"""Serve a model over HTTP: embeddings, comparison of two recordings, similar recordings of an index.

The server listens on 127.0.0.1. With another --host, clients need a token; give it in --token_file or in the
environment variable SSL_AUDIO_TOKEN. After SIGTERM or Ctrl-C, the server finishes the requests that are under way and
stops.
"""

import os
import signal
import socket
from argparse import ArgumentParser, Namespace
from pathlib import Path

EXAMPLES = """examples:
  ssl-audio serve --model byol
  ssl-audio serve --model runs/byol/0 --index music.index --port 8080
  SSL_AUDIO_TOKEN=$(cat token) ssl-audio serve --model byol --host 0.0.0.0
  curl --data-binary @song.flac http://127.0.0.1:8000/v1/embeddings
  curl -F file=@one.wav -F file=@two.wav http://127.0.0.1:8000/v1/compare
  curl --data-binary @song.flac 'http://127.0.0.1:8000/v1/similar?n=5'
"""

TOKEN = "SSL_AUDIO_TOKEN"
_SHORTEST_TOKEN = 16


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="published name, run folder, checkpoint, saved folder or Hub id")
    parser.add_argument("--source", help="a folder or Hub id in which --model is a name")
    parser.add_argument(
        "--index", metavar="FILE", help="index for /v1/similar, made by `ssl-audio index` with this model"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1); any other address needs a token"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0: any free port (8000)")
    parser.add_argument("--token_file", metavar="FILE", help=f"file with the token; default: the variable {TOKEN}")
    parser.add_argument(
        "--window", type=float, metavar="SECONDS", help="embed each file as the mean over windows of this length"
    )
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="distance between windows; default: their length")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    group = parser.add_argument_group("limits of a request")
    group.add_argument("--max_bytes", type=int, default=32_000_000, help="size of the body (32000000)")
    group.add_argument("--max_seconds", type=float, default=300.0, help="length of the audio in a file (300)")
    group.add_argument("--max_files", type=int, default=16, help="number of files (16)")
    group.add_argument(
        "--max_requests", type=int, default=64, help="number of requests under way; more get status 503 (64)"
    )
    group.add_argument("--timeout_seconds", type=float, default=60.0, help="time until the answer (60)")
    group.add_argument("--batch_files", type=int, default=16, help="number of files in a call of the model (16)")


def run(args: Namespace) -> int:
    import uvicorn

    from ssl_audio.hub import load_model
    from ssl_audio.retrieval import Index
    from ssl_audio.serving import Limits, Service, make_app

    token = _token(args.token_file, args.host)
    names = ("max_bytes", "max_seconds", "max_files", "max_requests", "timeout_seconds", "batch_files")
    limits = Limits(**{name: getattr(args, name) for name in names})
    listener = _listen(args.host, args.port)
    with listener:
        index = None if args.index is None else Index.load(args.index)
        model = load_model(args.model, **({"source": args.source} if args.source else {}))
        name = (
            args.model if not os.path.exists(args.model) else Path(args.model).resolve().name
        )  # answers must not contain a path
        service = Service(model, name, index, args.window, args.hop, args.device)
        config = uvicorn.Config(
            make_app(service, limits, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(limits.timeout_seconds) + 1,
        )
        host, port = listener.getsockname()[:2]
        print(f"serving {name} at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn sends the signal again after its shutdown; ignore it
            signal.signal(number, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Without IPPROTO_TCP, asyncio keeps Nagle's algorithm on, which costs 40 ms per answer."""
    from ssl_audio.errors import InputError

    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(f"cannot listen on {host} port {port}: {error}; give another --port or --host") from error
    return listener


def _token(path: str | None, host: str) -> str | None:
    """The token that clients must send.

    Raises:
        InputError: other machines can reach the server and there is no token; or the token is too short or has spaces.
    """
    from ssl_audio.errors import InputError
    from ssl_audio.serving.guard import is_loopback

    token = os.environ.get(TOKEN) or None
    if path is not None:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: the token cannot be read ({error}); give a text file") from error
    if token is None and not is_loopback(host):
        raise InputError(f"other machines can reach --host {host}; give --token_file, or set {TOKEN}")
    if token is not None and (
        len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token
    ):
        raise InputError(f"the token must have {_SHORTEST_TOKEN} or more ASCII characters, without spaces")
    return token
