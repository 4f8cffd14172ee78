"""Addresses of MLflow stores: which ones there are, what they need, and how one is shown without its secrets."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from ablate.registry import suggest

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "file")
_DATABASES = ("postgresql", "mysql", "mssql")
_INSTALL = "pip install 'ablate-lm[postgres]'"
_EXAMPLES = "for example sqlite:///runs/mlflow.db or http://127.0.0.1:5000"
# A password may hold "/", and "@" where it is typed as it is: up to the last "@". A path has no ":" before its "@".
_USER = re.compile(r"(?<=://)[^\s/@:]*(:\S*)?@")
_QUERY = re.compile(r"\?[\w.-]+=[^\s#]*")


def refusal_of_address(address: str) -> str | None:
    """Why no MLflow store can be reached at an address from here, and what would work; None where one may be."""
    if address == "databricks":
        return None
    scheme, separator, _ = address.partition("://")
    if not separator and not address.startswith(("sqlite:", "file:")):
        return f"must be the address of an MLflow store; {_EXAMPLES}"
    scheme = scheme.partition(":")[0].partition("+")[0].lower()
    known = [*_SCHEMES, *(plugin.name for plugin in entry_points(group="mlflow.tracking_store"))]
    if scheme in known:
        return _refusal_of_driver(address, scheme) if scheme in _DATABASES else None
    return f"MLflow has no store of the scheme {scheme!r}{suggest(scheme, known)}; {_EXAMPLES}"


def _refusal_of_driver(address: str, scheme: str) -> str | None:
    """What to write or to install for a database that SQLAlchemy has no driver for here."""
    # Late: few studies write to a database of their own.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        driver = make_url(address).get_dialect()
    except (ArgumentError, ValueError):  # whose text may hold a password
        return "SQLAlchemy cannot read this address; for example postgresql+psycopg://HOST:5432/mlflow"
    try:
        driver.import_dbapi()
    except ImportError as error:  # psycopg raises it too where it finds no libpq
        if driver.driver == "psycopg":
            return f"PostgreSQL needs psycopg, which cannot be imported; {_INSTALL}"
        if scheme == "postgresql":  # bare, that is SQLAlchemy 2.0's name for psycopg2
            return f"there is no {driver.driver} here; write postgresql+psycopg://…, which needs {_INSTALL}"
        return f"its driver cannot be imported ({error}); install it, or use a server, http://HOST:5000"
    return None


def without_secrets(text: str) -> str:
    """A text without the users, passwords and queries in the addresses that it holds."""
    return _QUERY.sub("?***", _USER.sub("", text))
