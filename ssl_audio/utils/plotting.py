"""What all pictures with names in them share."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WIDE_FONTS = ("Noto Sans CJK", "WenQuanYi", "IPAGothic", "Hiragino Sans", "Microsoft YaHei", "Arial Unicode")


@contextmanager
def literal_text_style() -> Iterator[None]:
    """Figures made and saved in here, or in a function that this decorates, show names letter by letter.

    A pair of dollars is no formula. Other scripts come from a font of this machine that has them, if there is one; a
    letter that none has is a box, without a warning.
    """
    from matplotlib import font_manager, rc_context

    here = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *sorted(name for name in here if name.startswith(_WIDE_FONTS))]  # the first is matplotlib's
    with rc_context({"text.parse_math": False, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield
