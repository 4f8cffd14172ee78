"""Addresses of MLflow stores: which ones there are, and how one is shown without the secrets in it."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from ablate.registry import suggest

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "file")
_EXAMPLES = "for example sqlite:///runs/mlflow.db or http://127.0.0.1:5000"
# A password may hold "/", and "@" where it is typed as it is: up to the last "@". A path has no ":" before its "@".
_USER = re.compile(r"(?<=://)[^\s/@:]*(:\S*)?@")
_QUERY = re.compile(r"\?[\w.-]+=[^\s#]*")


def refusal_of_address(address: str) -> str | None:
    """Why an address is not that of an MLflow store, and what would work; None where it may be one."""
    if address == "databricks":
        return None
    scheme, separator, _ = address.partition("://")
    if not separator and not address.startswith(("sqlite:", "file:")):
        return f"must be the address of an MLflow store; {_EXAMPLES}"
    scheme = scheme.partition(":")[0].partition("+")[0].lower()
    known = [*_SCHEMES, *(plugin.name for plugin in entry_points(group="mlflow.tracking_store"))]
    if scheme in known:
        return None
    return f"MLflow has no store of the scheme {scheme!r}{suggest(scheme, known)}; {_EXAMPLES}"


def without_secrets(text: str) -> str:
    """A text without the users, passwords and queries in the addresses that it holds."""
    return _QUERY.sub("?***", _USER.sub("", text))
