"""The style of figures that show names of files and classes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WIDE_FONTS = ("Noto Sans CJK", "WenQuanYi", "IPAGothic", "Hiragino Sans", "Microsoft YaHei", "Arial Unicode")


@contextmanager
def literal_text_style() -> Iterator[None]:
    """Inside, or in a decorated function, figures show text literally.

    Math parsing is off, so that `$` is a dollar sign. Installed CJK fonts serve as fallbacks. Missing glyphs are drawn
    as boxes, without a warning.
    """
    from matplotlib import font_manager, rc_context

    here = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *sorted(name for name in here if name.startswith(_WIDE_FONTS))]  # the first is matplotlib's
    with rc_context({"text.parse_math": False, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
