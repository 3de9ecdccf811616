"""How to install what a command needs and this installation lacks."""

import json
import shlex
from importlib.metadata import Distribution, PackageNotFoundError


def install_command(extra: str) -> str:
    """The pip command that installs an extra of this package from where the package itself was installed.

    Example:
        install_command("search")    # pip install -e '/home/me/ssl_audio[search]', from a clone
    """
    try:
        content = json.loads(Distribution.from_name("ssl-audio").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        content = {}
    return f"pip install {_words(content, extra)}"


def _words(origin: dict, extra: str) -> str:
    """What pip is to install.

    Args:
        origin: `direct_url.json` of PEP 610; empty for a package from an index.
        extra: name of the extra.
    """
    url = origin.get("url", "")
    if url.startswith("file://") and origin.get("dir_info", {}).get("editable"):
        from urllib.parse import urlparse
        from urllib.request import url2pathname

        return "-e " + shlex.quote(f"{url2pathname(urlparse(url).path)}[{extra}]")
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}"
    return shlex.quote(f"ssl-audio[{extra}]" + (f" @ {url}" if url else ""))
