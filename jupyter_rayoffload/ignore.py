"""Which files stay behind: ignore files as git reads them, caches, and what looks like a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pathspec import GitIgnoreSpec

__all__ = ["DEFAULT_EXCLUDES", "SECRETS", "Rules", "Scope", "holds_private_key", "is_secret"]

#: Left out unless a ``.rayignore`` brings it back, in git's own pattern syntax: history, environments,
#: caches, what editors and operating systems leave lying about. Notebooks are among them because a notebook
#: is saved while it runs: each save would change the digest, and an unchanged workspace would be sent again.
#: ``!data.ipynb`` in a ``.rayignore`` lets one travel. Environments under another name are known by their
#: ``pyvenv.cfg`` or ``conda-meta``.
DEFAULT_EXCLUDES = (
    *(".git", ".hg", ".svn", ".bzr", ".jj"),
    *(".venv/", "venv/", ".pixi/", "site-packages/", "node_modules/", "__pypackages__/"),
    *("__pycache__/", "*.pyc", "*.pyo", ".eggs/", ".tox/", ".nox/", ".direnv/"),
    *(
        ".mypy_cache/",
        ".pytest_cache/",
        ".ruff_cache/",
        ".hypothesis/",
        ".ipynb_checkpoints/",
        ".virtual_documents/",
    ),
    *("*.ipynb", ".~*", "*.swp", ".idea/", ".vscode/", ".DS_Store", "Thumbs.db", ".Trash-*/", "lost+found/"),
)

#: Looks like a secret, and stays unless a ``.rayignore`` names it (``!tests/fake.pem``). In lower case.
SECRETS = (
    *(".env", ".env.*", "*.env", ".envrc", "!.env.example", "!.env.template", "!.env.sample", "!.env.dist"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "!id_*.pub"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.p8", "*.ppk", "*.jks", "*.keystore", "*.kdbx"),
    *(
        ".netrc",
        "_netrc",
        ".pgpass",
        ".my.cnf",
        ".npmrc",
        ".pypirc",
        ".git-credentials",
        ".dockercfg",
        ".htpasswd",
    ),
    *("credentials.json", "client_secret*.json", "application_default_credentials.json"),
    *("service-account*.json", "service_account*.json", "secrets.json", "secrets.toml", "secrets.y*ml"),
    *("token.json", "token.pickle", "*.token", ".token", ".vault-token", "auth_token", "access_token"),
    *(
        "kubeconfig",
        "*.kubeconfig",
        "kaggle.json",
        "rclone.conf",
        ".boto",
        ".s3cfg",
        ".databrickscfg",
        "*.tfstate",
    ),
    "!*.py",  # a module is not a secret by its name
    *(".aws/", ".azure/", ".ssh/", ".kube/", ".gnupg/", "**/.config/gcloud/", "**/.docker/config.json"),
)

#: A private key is some kilobytes; a larger file that has such a line is about keys, and not one.
KEY_FILE_BYTES = 64 << 10
# A line of its own with base64 under it (PEM, RFC 7468; OpenPGP, RFC 9580; old ones have headers between), or
# the one-line form in the JSON of a service account. Code that merely names the marker has it in a longer
# line.
_PRIVATE_KEY = re.compile(
    rb"^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\r?\n"
    rb"(?:[\w-]+: [^\n]*\n|\r?\n)*[A-Za-z0-9+/=]{20,}\r?$"
    rb"|\"private_key\"\s*:\s*\"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    re.MULTILINE,
)

# pathspec marks by this group that a pattern matched a folder above the path, and not the path itself.
_ABOVE = "ps_d"
_SPECIAL = re.compile(r"[*?\[\]\\]")


class Match(NamedTuple):
    """What the last matching pattern says of an entry.

    Parameters
    ----------
    stays : bool
    named : bool
        Whether it names what it means. ``!*`` and ``!*/`` do not: in a list that begins with ``*`` they bring
        back what that took, and not what stays for reasons of its own.
    """

    stays: bool
    named: bool


class Rules:
    """The patterns of one ignore file: what the last one that matches an entry says of it.

    Folders are judged before what is in them, as git does, so only the entry itself is matched here. The
    patterns' meaning is pathspec's; they are looked up by name or suffix first, for a hundred patterns
    against ten thousand files are a million regular expressions.

    Parameters
    ----------
    lines : iterable of str
        Patterns in gitignore syntax; what git would skip is skipped.
    source : str, optional
        Where they stand, for people: ``data/.gitignore``.
    folder : str, optional
        The folder that they are relative to, as a path in the workspace; ``""`` for its root.
    """

    def __init__(self, lines: Iterable[str], source: str = "", folder: str = "") -> None:
        self.source = source
        self._skip = len(folder) + 1 if folder else 0
        self._patterns: list[tuple[Any, bool]] = []  # (pattern, only for folders)
        self._says: list[Match] = []
        self._names: dict[str, list[int]] = {}
        self._suffixes: dict[str, list[int]] = {}
        self._starts: dict[str, list[int]] = {}
        self._rest: list[int] = []
        for line in lines:
            self._add(line)

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._patterns)

    def _add(self, line: str) -> None:
        line = re.sub(r"(?<!\\) +$", "", line.rstrip("\r\n"))
        if not line or line.startswith("#"):
            return
        # The slash behind is ours, because pathspec would take it for "all that is in the folder".
        body = line[:-1] if line.endswith("/") else line
        try:
            pattern = GitIgnoreSpec.from_lines([body]).patterns[0]
        except ValueError:  # git skips an invalid pattern too
            return
        if pattern.include is None:
            return
        index = len(self._patterns)
        last = body.removeprefix("!").rpartition("/")[2]
        self._patterns.append((pattern, body != line))
        self._says.append(Match(pattern.include, bool(last.strip("*"))))
        suffix = last.rpartition(".")[2]
        if not _SPECIAL.search(last):
            self._names.setdefault(last, []).append(index)
        elif "." in last and not _SPECIAL.search(suffix):
            self._suffixes.setdefault(suffix, []).append(index)
        elif not _SPECIAL.match(last):
            self._starts.setdefault(last[0], []).append(index)
        else:
            self._rest.append(index)

    def match(self, path: str, name: str, is_folder: bool) -> Match | None:
        """Give what the patterns say of an entry; None if they do not speak of it.

        Parameters
        ----------
        path : str
            In the workspace, with ``/``.
        name : str
            Its last part.
        is_folder : bool
        """
        suffix, first = name[name.rfind(".") + 1 :], name[0]
        # Most names end here, ten thousand times in a scan.
        if not (self._rest or name in self._names or suffix in self._suffixes or first in self._starts):
            return None
        candidates: list[int] = [
            *self._names.get(name, ()),
            *self._suffixes.get(suffix, ()),
            *self._starts.get(first, ()),
            *self._rest,
        ]
        relative = path[self._skip :]
        for index in sorted(candidates, reverse=True):
            pattern, folders_only = self._patterns[index]
            found = pattern.match_file(relative) if is_folder or not folders_only else None
            if found is not None and not found.match.groupdict().get(_ABOVE):
                return self._says[index]
        return None


class Verdict(NamedTuple):
    """Whether an entry stays, where that is said, and whether it is said to us (not to git)."""

    stays: bool
    source: str
    deliberate: bool = False


_DEFAULT = Rules(DEFAULT_EXCLUDES, "by default")
_SECRET = Rules(SECRETS)
#: Of which nothing is said.
_GOES = Verdict(False, _DEFAULT.source)


@dataclass(frozen=True)
class Scope:
    """The rules that hold in one folder.

    ``--exclude`` outranks ``.rayignore``, that outranks ``.gitignore``, that the defaults; a deeper file
    outranks a higher one of its kind.

    Parameters
    ----------
    option : Rules
        Of ``--exclude``.
    ray, git : tuple of Rules
        Of ignore files, the deepest first.
    """

    option: Rules
    ray: tuple[Rules, ...] = ()
    git: tuple[Rules, ...] = ()

    @cached_property
    def _ours(self) -> tuple[Rules, ...]:
        """Those that speak to us, and not to git."""
        return tuple(rules for rules in (self.option, *self.ray) if rules)

    def inside(self, folder: str, rayignore: str | None, gitignore: str | None) -> Scope:
        """Give the scope of `folder`, whose own ignore files have these texts (None: it has none)."""
        ray, git = self.ray, self.git
        where = f"{folder}/" if folder else ""
        if rayignore is not None:
            ray = (Rules(rayignore.split("\n"), f"{where}.rayignore", folder), *ray)
        if gitignore is not None:
            git = (Rules(gitignore.split("\n"), f"{where}.gitignore", folder), *git)
        return Scope(self.option, ray, git)

    def judge(self, path: str, name: str, is_folder: bool) -> Verdict:
        """Say whether an entry stays behind."""
        says, source = _first(self._ours, path, name, is_folder)
        if says is not None and (says.stays or says.named):
            return Verdict(says.stays, source, deliberate=True)
        if says is None:
            says, source = _first(self.git, path, name, is_folder)
            if says is not None and says.stays:
                return Verdict(True, source)
        # What .gitignore brings back concerns git, which never has what stays by default.
        says = _DEFAULT.match(path, name, is_folder)
        return Verdict(True, _DEFAULT.source) if says is not None and says.stays else _GOES


def _first(several: Iterable[Rules], path: str, name: str, is_folder: bool) -> tuple[Match | None, str]:
    for rules in several:
        says = rules.match(path, name, is_folder)
        if says is not None:
            return says, rules.source
    return None, ""


def is_secret(path: str, is_folder: bool) -> bool:
    """Say whether a path looks like a secret by its name."""
    path = path.lower()
    says = _SECRET.match(path, path[path.rfind("/") + 1 :], is_folder)
    return says is not None and says.stays


def holds_private_key(data: bytes) -> bool:
    """Say whether a small file holds a private key."""
    return len(data) <= KEY_FILE_BYTES and b"PRIVATE KEY" in data and _PRIVATE_KEY.search(data) is not None
