"""Profiles: the named cluster sizes that a site offers, and what people may choose in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .base import Model
from .cluster import ClusterSpec

__all__ = ["Choice", "Profile", "ProfileField"]


@dataclass(frozen=True)
class Choice(Model):
    """One of the values of a field of the kind ``choice``; a text or a number alone is its value.

    Parameters
    ----------
    value : str, number or bool
        What people write, and what a form sends.
    title : str
        What a form shows; by default the value.
    sets : JSON-ready
        What goes to the field's path, where that is not the value itself: an image, a node selector.
    """

    value: Any
    title: str = ""
    sets: Any = None


@dataclass(frozen=True)
class ProfileField(Model):
    """What a person may change of a profile.

    Parameters
    ----------
    name : str
        As it is written: ``workers=4``. A Python name.
    path : str
        The part of the cluster that it sets: ``groups.workers.replicas``, ``groups.workers.pod.cpus``,
        ``head.memory``, ``image``. Groups go by their names. No field sets a part of what another one sets.
    kind : str
        ``integer``, ``number``, ``size`` (memory, ``8GiB``) or ``choice``.
    title : str
        What a form shows; by default the name.
    default : number, text or bool
        By default what the cluster has at the path, or the first of the choices.
    minimum : number or text
        The least that is allowed; by default 0.
    maximum : number or text
        The most that is allowed.
    choices : tuple of Choice
        What is allowed of the kind ``choice``, and of no other: a list of values, or of what stands below.
    unit : str
        What is counted, for forms: ``cores``.
    """

    name: str
    path: str = ""
    kind: str = "integer"
    title: str = ""
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Choice, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Profile(Model):
    """One size of cluster that the site offers.

    Parameters
    ----------
    name : str
        As it is written: ``--profile NAME``. Letters, digits, ``.``, ``_`` and ``-``.
    title : str
        What lists and forms show; by default the name.
    description : str
        What they show besides.
    default : bool
        Whether it is the one without ``--profile``. Without any such, the first is.
    cluster : ClusterSpec
        What differs from the setting ``kubernetes_cluster``; each of its entries (``head``, ``groups``)
        replaces that one as a whole. Memory may be written as ``8GiB``.
    fields : tuple of ProfileField
        What a person may change.
    caps : Mapping of str to number or text
        The most that the whole cluster may have, of ``cpus``, ``memory`` and ``gpus``: its head, and each
        worker times their number (with the autoscaler, their maximum).
    """

    name: str
    title: str = ""
    description: str = ""
    default: bool = False
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    fields: tuple[ProfileField, ...] = ()
    caps: Mapping[str, float] = field(default_factory=dict)
