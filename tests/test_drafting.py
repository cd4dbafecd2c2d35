"""What is refused before anything is sent."""

from __future__ import annotations

import sys
import types
import xml.etree

import pytest

from jupyter_rayoffload.drafting import Origin, draft_code
from jupyter_rayoffload.errors import InputError
from jupyter_rayoffload.models import JobOptions
from jupyter_rayoffload.remote.signing import Signer

ORIGIN = Origin("me", "", ".", {}, Signer(bytes(32)), 1 << 20)


def test_a_module_that_only_this_process_has_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("made_here")
    inputs = {"dm": made, "xml": xml, "json": sys.modules["json"], "sys": sys, "m": sys.modules["__main__"]}
    draft_code(ORIGIN, "dm", JobOptions(), "", values=inputs)  # as a value it travels
    monkeypatch.setitem(sys.modules, "made_here", made)
    with pytest.raises(InputError, match=r"input dm cannot travel: the module made_here was made in this"):
        draft_code(ORIGIN, "dm", JobOptions(), "", values=inputs)
