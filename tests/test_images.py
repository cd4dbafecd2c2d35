"""Which image Ray's pods get."""

from __future__ import annotations

import pytest

from jupyter_rayoffload.errors import UsageError
from jupyter_rayoffload.images import bad_key, choose

SITE = {
    "py311": "site/ray:any-py311",
    "py311-ray2.60": "site/ray:2.60-py311",
    "py311-ray2.60.1": "site/ray:2.60.1-py311",
    "py312-ray2.58.0": "site/ray:2.58.0-py312",
    "py312-ray2.59.0": "site/ray:2.59.0-py312",
}


@pytest.mark.parametrize(
    "python, ray, image, there",
    [
        ((3, 11), "2.60.1", "site/ray:2.60.1-py311", "2.60.1"),
        ((3, 11), "2.60.0", "site/ray:2.60-py311", "2.60.0"),
        ((3, 11), "2.60.10", "site/ray:2.60-py311", "2.60.10"),  # no prefix of 2.60.1
        ((3, 11), "2.6.0", "site/ray:any-py311", "2.6.0"),
        ((3, 12), "2.58.0", "site/ray:2.58.0-py312", "2.58.0"),
        ((3, 12), "", "site/ray:2.59.0-py312", "2.59.0"),  # any Ray will do: the newest
        ((3, 11), "", "site/ray:2.60.1-py311", "2.60.1"),
    ],
)
def test_the_entry_that_says_most_counts(python, ray, image, there):
    assert choose(SITE, "", python, ray, "2.60.0") == (image, there)
    assert choose(dict(reversed(SITE.items())), "other", python, ray, "2.60.0") == (image, there)


def test_where_none_fits_image_counts_and_then_an_error_that_lists_them():
    assert choose(SITE, "mine", (3, 12), "2.60.0", "2.60.0") == ("mine", "2.60.0")
    with pytest.raises(UsageError) as caught:
        choose(SITE, "", (3, 12), "2.60.0", "2.60.0")
    assert "Python 3.12 and Ray 2.60.0" in str(caught.value)
    assert all(key in str(caught.value) for key in SITE)
    assert "Add py312 or py312-ray2.60.0 to images" in caught.value.hint


def test_without_a_map_it_is_image_or_the_one_of_rays_makers():
    assert choose({}, "", (3, 11), "2.58.0", "2.60.0") == ("rayproject/ray:2.58.0-py311", "2.58.0")
    assert choose({}, "", (3, 11), "", "2.60.0") == ("rayproject/ray:2.60.0-py311", "2.60.0")
    assert choose({}, "mine", (3, 11), "", "2.60.0") == ("mine", "2.60.0")


@pytest.mark.parametrize(
    "images, word",
    [
        ({"311": "x"}, "'311' is no key"),
        ({"py311-ray": "x"}, "no key"),
        ({"py311-ray2": "x"}, "no key"),
        ({"py311": ""}, "has no image"),
        ({"py311": 5}, "has no image"),
    ],
)
def test_what_is_wrong_with_a_map_is_said(images, word):
    assert word in bad_key(images)


def test_nothing_is_wrong_with_a_good_one():
    assert not bad_key(SITE) and not bad_key({}) and not bad_key({"py3.11-ray2.60.0": "x"})
