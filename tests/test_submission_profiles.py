"""The way to a cluster, which is open already or is not, with a cluster and a store in memory."""

from __future__ import annotations

import pytest

from jupyter_rayoffload.errors import UsageError
from tests.server.fake_service import Parts


@pytest.mark.asyncio
async def test_an_open_way_is_not_taken_for_one_to_a_cluster_of_another_size() -> None:
    parts = Parts()
    offloader = parts.make_service().offloader
    link = await offloader.connect("big", "large", choices={"workers": "2"})
    assert (link.info.profile, link.info.choices["workers"]) == ("large", 2)
    for profile in ("", "large"):  # it is known, and nobody has to be asked
        assert await offloader.connect("big", profile) is link
    assert parts.backend.calls == ["ensure big"]
    with pytest.raises(UsageError, match="cluster 'big' is of profile large, not of profile small"):
        await offloader.connect("big", "small")
    with pytest.raises(UsageError, match="has workers=2, not workers=3"):
        await offloader.connect("big", "large", choices={"workers": 3})
    assert await offloader.connect("big") is link
    await offloader.aclose()
