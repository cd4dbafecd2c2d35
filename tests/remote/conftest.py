from __future__ import annotations

from tests.remote.redis_fixture import (  # noqa: F401  (pytest finds fixtures by name)
    open_store,
    own_redis,
    redis_server,
    short_folder,
    store,
)
