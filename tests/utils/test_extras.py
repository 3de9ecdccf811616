"""The command that installs an extra, for each way in which pip records where a package came from (PEP 610)."""

import pytest
from packaging.requirements import Requirement

from ssl_audio.utils.extras import _words, install_command


@pytest.mark.parametrize(
    "origin,words",
    [
        ({}, "'ssl-audio[search]'"),
        ({"url": "file:///my%20code", "dir_info": {"editable": True}}, "-e '/my code[search]'"),
        ({"url": "https://x.org/a.git", "vcs_info": {"vcs": "git"}}, "'ssl-audio[search] @ git+https://x.org/a.git'"),
        ({"url": "file:///a.whl", "archive_info": {}}, "'ssl-audio[search] @ file:///a.whl'"),
    ],
)
def test_an_extra_is_installed_from_where_the_package_came_from(origin, words):
    assert _words(origin, "search") == words
    if not words.startswith("-e"):
        assert Requirement(words.strip("'")).extras == {"search"}


def test_this_installation_has_a_command():
    assert install_command("search").startswith("pip install ") and "[search]" in install_command("search")
