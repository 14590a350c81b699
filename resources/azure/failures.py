"""What Azure's errors mean, in words of ours.

Nothing of the SDK's own texts is passed on: an address in them may carry a signature that opens the storage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from resources.errors import StageError

MOST_SKEW = 300  # seconds; signing in is refused at five minutes, signatures at fifteen
LATER = "What arrived is kept: run it again later and it goes on from there"
SIGN_IN = "Sign in with az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
STATUS_REMEDIES = {
    401: SIGN_IN,
    403: "Ask for the roles named in docs/azure.md; what arrived is kept",
    404: "Check the names in the experiment's section azure; what arrived is kept",
    409: "Remove what is in its place, or choose another name",
}


@contextmanager
def azure_errors(place: str, remedies: Mapping[int, str] = STATUS_REMEDIES) -> Iterator[None]:
    """Turn every error of the Azure SDKs inside the block into a StageError of `place`.

    remedies: status → what to do about it; 401 is also for nobody being signed in, 0 for no answer.
    """
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        what, remedy = in_words(error, remedies)
        raise StageError(place, what, remedy) from None


def in_words(error: Exception, remedies: Mapping[int, str] = STATUS_REMEDIES) -> tuple[str, str]:
    """What happened and what to do about it."""
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    skew = clock_skew(getattr(error, "response", None))
    if abs(skew) > MOST_SKEW:
        return skew_in_words(skew)
    status = getattr(error, "status_code", None)
    if isinstance(error, HttpResponseError) and isinstance(status, int):
        code = error_code(error)
        remedy = remedies.get(status, LATER)
        return f"Azure answered {status}" + (f" {code}" if code else ""), remedy
    if isinstance(error, ClientAuthenticationError):
        return f"signing in failed{sign_in_code(error)}", remedies.get(401, SIGN_IN)
    return f"there is no connection to Azure ({type(error).__name__})", remedies.get(0, LATER)


def error_code(error: Any) -> str:
    """Azure's code for the error, such as AuthorizationFailed; empty where it gave none."""
    inner = getattr(error, "error", None)
    code = getattr(error, "error_code", None) or getattr(inner, "code", None)
    plain = str(getattr(code, "value", code) or "")
    return plain if re.fullmatch(r"\w{1,80}", plain) else ""


def sign_in_code(error: Exception) -> str:
    """The code of the sign-in service in brackets, such as " (AADSTS7000215)"; empty where there is none."""
    found = re.search(r"AADSTS\d+", str(error))
    return f" ({found[0]})" if found else ""


def clock_skew(response: Any) -> float:
    """Seconds by which this machine's clock is ahead of the service's that gave `response`; 0 where it does not say."""
    date = response.headers.get("Date") if response is not None and getattr(response, "headers", None) else None
    if not date:
        return 0.0
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def skew_in_words(skew: float) -> tuple[str, str]:
    """What a wrong clock is called, and what to do about it."""
    if abs(skew) <= MOST_SKEW:  # the sign-in service only says that the times do not agree
        return "this machine's clock and Azure's do not agree", "Set the clock, then run again"
    side = "ahead of" if skew > 0 else "behind"
    return f"this machine's clock is {abs(skew) / 60:.0f} minutes {side} Azure's", "Set the clock, then run again"
