"""The examples in the docstrings of the objectives run as they stand, and every objective has one."""

import doctest
import sys

import pytest

import ssl_audio.losses


@pytest.mark.parametrize("name", ssl_audio.losses.__all__)
def test_the_example_of_an_objective_runs(name):
    function = getattr(ssl_audio.losses, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=vars(sys.modules[function.__module__]))
    assert test.examples, f"{name} has no example"
    result = doctest.DocTestRunner().run(test)
    assert result.failed == 0, "see the output above"
