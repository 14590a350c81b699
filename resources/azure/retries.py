"""Trying again: after as long as Retry-After says, else after twice as long each time, up to half a minute.

The storage client's own policy neither tries again after 429 nor heeds Retry-After, waits 15 s at first, and cannot be
exchanged for azure-core's, so storage calls are made with `again` and its policy switched off.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

T = TypeVar("T")
RETRIES = 6
FIRST_WAIT = 0.5  # seconds
LONGEST_WAIT = 30.0
LONGEST_ASKED = 300.0  # of Retry-After
PASSING = (408, 429, 500, 502, 503, 504)


def again(action: Callable[[], T], retries: int) -> T:
    """What `action` gives; tried again up to `retries` times while it fails for a passing reason.

    That is a connection that broke, or an answer among 408, 429 and the 5xx that say so.
    """
    from azure.core.exceptions import AzureError

    for done in range(retries):
        try:
            return action()
        except AzureError as error:
            if not is_passing(error):
                raise
            wait = wait_seconds(error, done)
        time.sleep(wait)
    return action()


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    from azure.core.exceptions import (
        ClientAuthenticationError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )

    if isinstance(error, HttpResponseError) and error.status_code is not None:
        # A body that broke off is told with the status of the answer that it belongs to.
        return error.status_code in PASSING or error.status_code < 400
    return isinstance(error, ServiceRequestError | ServiceResponseError | HttpResponseError) and not isinstance(
        error, ClientAuthenticationError
    )


def wait_seconds(error: Exception, done: int) -> float:
    """How long to wait after the try number `done`, counted from 0."""
    asked = _asked_seconds(getattr(error, "response", None))
    if asked is not None:
        return min(max(asked, 0.0), LONGEST_ASKED)
    # Several threads that failed together come back one after the other.
    return min(FIRST_WAIT * 2**done, LONGEST_WAIT) * random.uniform(0.5, 1.0)


def _asked_seconds(response: Any) -> float | None:
    headers = getattr(response, "headers", None) or {}
    for name, unit in (("retry-after-ms", 1000), ("x-ms-retry-after-ms", 1000), ("Retry-After", 1)):
        value = headers.get(name)
        if value and value.strip().isdecimal():
            return int(value) / unit
    try:
        return (parsedate_to_datetime(headers.get("Retry-After", "")) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
