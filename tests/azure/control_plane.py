"""The control plane: signing in, and the resource manager's view of workspaces, datastores and models.

Written from the requests that azure-ai-ml and azure-identity make and the answers that they accept. What only a real
workspace can confirm is listed in docs/azure.md.
"""

from __future__ import annotations

import base64
import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from tests.azure.faults import Fault
from tests.azure.plane import Exchange

if TYPE_CHECKING:
    from tests.azure.stand_in import StandIn
    from tests.azure.workspaces import StandInWorkspace

PROVIDER = "/providers/Microsoft.MachineLearningServices"
SIGN_IN = "login.microsoftonline.com"
WORKSPACE = re.compile(
    rf"(?:/mferp/managementfrontend)?/subscriptions/([^/]+)/resourceGroups/([^/]+){PROVIDER}/workspaces/([^/]+)(/.*)?",
    re.IGNORECASE,
)
COMPUTE = re.compile(r"/computes/([^/]+)")
JOB = re.compile(r"/jobs/([^/]+)(/cancel)?")
ASSET = re.compile(r"/(models|data|codes|environments)/([^/]+)(?:/versions(?:/([^/]+)(/startPendingUpload)?)?)?")
PAGE = 5


class Refused(Exception):
    """What the resource manager answers when it refuses."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class ControlExchange(Exchange):
    """One request to the control plane."""

    stand_in: StandIn

    def serve(self) -> None:
        raw = b"".join(self.pieces())
        try:
            if self.headers.get("Host", "").startswith("login."):
                status, document = self._sign_in(raw)
            else:
                status, document = self._manage(json.loads(raw) if raw else {})
        except Refused as refused:
            status, document = refused.status, _error(refused.code, refused.message)
        self.answer_json(status, document)

    def refusal(self, fault: Fault) -> None:
        self.answer_json(fault.status, _error(fault.code, fault.message), fault.headers)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header: the service's clock, which a test may set wrong against this machine's."""
        return super().date_time_string((timestamp or time.time()) + self.stand_in.clock_ahead)

    def _sign_in(self, raw: bytes) -> tuple[int, dict[str, Any]]:
        path = urlsplit(self.path).path
        base = f"https://{SIGN_IN}/{self.stand_in.tenant}"
        if path.endswith("/discovery/instance"):
            aliases = [SIGN_IN, "login.windows.net"]
            known = {"preferred_network": SIGN_IN, "preferred_cache": aliases[1], "aliases": aliases}
            endpoint = f"{base}/v2.0/.well-known/openid-configuration"
            return 200, {"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": [known]}
        if path.endswith("openid-configuration"):
            endpoints = {"token_endpoint": "token", "authorization_endpoint": "authorize"}
            endpoints |= {"device_authorization_endpoint": "devicecode"}
            urls = {name: f"{base}/oauth2/v2.0/{last}" for name, last in endpoints.items()}
            return 200, {**urls, "issuer": f"{base}/v2.0", "jwks_uri": f"{base}/keys"}
        if path.endswith("/token"):
            return self._token(dict(parse_qsl(raw.decode())))
        raise Refused(404, "NotFound", path)

    def _token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if form.get("client_secret") != self.stand_in.client_secret:
            told = "AADSTS7000215: Invalid client secret provided. Trace ID: 0 Correlation ID: 0"
            return 401, {"error": "invalid_client", "error_description": told, "error_codes": [7000215]}
        audience = form.get("scope", "").removesuffix("/.default")
        token = _token(audience, self.stand_in)
        return 200, {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": token}

    def _manage(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self._check_token()
        url = urlsplit(self.path)
        if "/registries/" in url.path:
            return 200, self._in_registry(url.path)
        found = WORKSPACE.fullmatch(url.path)
        if not found:
            raise Refused(404, "NotFound", f"The stand-in has nothing at {url.path}")
        workspace = self.stand_in.workspaces.get(found[3])
        if found[1] != self.stand_in.subscription:
            raise Refused(404, "SubscriptionNotFound", f"The subscription '{found[1]}' could not be found.")
        if found[2] != self.stand_in.resource_group:
            raise Refused(404, "ResourceGroupNotFound", f"Resource group '{found[2]}' could not be found.")
        if workspace is None:
            what = f"The Resource 'Microsoft.MachineLearningServices/workspaces/{found[3]}'"
            raise Refused(404, "ResourceNotFound", f"{what} under resource group '{found[2]}' was not found.")
        return self._in_workspace(workspace, found[4] or "", dict(parse_qsl(url.query)), body)

    def _in_registry(self, path: str) -> dict[str, Any]:
        from tests.azure.registries import DISCOVERY, REGISTRY

        discovery, asset = DISCOVERY.fullmatch(path), REGISTRY.fullmatch(path)
        name = discovery[1] if discovery else asset[3] if asset else ""
        registry = self.stand_in.registries.get(name)
        if registry is None:
            raise Refused(404, "UserError", f"The registry '{name}' could not be found.")
        return registry.discovery() if asset is None else registry.answer(asset[4])

    def _check_token(self) -> None:
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        if scheme != "Bearer" or token.count(".") != 2:
            raise Refused(401, "AuthenticationFailed", "The 'Authorization' header is missing or invalid.")
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        if claims["exp"] < time.time():
            raise Refused(401, "ExpiredAuthenticationToken", "The access token expiry time is in the past.")

    def _in_workspace(
        self, workspace: StandInWorkspace, rest: str, query: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        store = "/datastores/workspaceblobstore"
        if rest == "":
            return 200, workspace.document()
        if rest == "/datastores":
            return 200, {"value": [workspace.datastore()]}
        if rest == store:
            return 200, workspace.datastore()
        if rest == f"{store}/listSecrets":
            return 200, workspace.secrets(bool(body.get("expirableSecret")))
        if cluster := COMPUTE.fullmatch(rest):
            return 200, workspace.compute.cluster(unquote(cluster[1]))
        if job := JOB.fullmatch(rest):
            return workspace.compute.answer(self.command, unquote(job[1]), job[2] or "", body)
        found = ASSET.fullmatch(rest)
        if not found:
            raise Refused(404, "NotFound", f"The stand-in has nothing at {rest}")
        kind, name, version = found[1], unquote(found[2]), found[3] and unquote(found[3])
        if found[4]:
            return 200, workspace.pending_upload()
        if version is None:
            return 200, self._listed(workspace, kind, name, query, "/versions" in rest)
        if self.command == "PUT":
            return workspace.put_version(kind, name, version, body["properties"])
        return 200, workspace.version(kind, name, version)

    def _listed(
        self, workspace: StandInWorkspace, kind: str, name: str, query: dict[str, str], versions: bool
    ) -> dict[str, Any]:
        if not versions:
            return workspace.container(kind, name)
        start, top = int(query.get("$skip", 0)), int(query.get("$top", PAGE))
        documents = workspace.versions(kind, name)
        page: dict[str, Any] = {"value": documents[start : start + min(top, PAGE)]}
        if "$top" not in query and len(documents) > start + PAGE:
            path = urlsplit(self.path).path
            following = urlencode({**query, "$skip": start + PAGE}, quote_via=quote)
            page["nextLink"] = f"https://{self.headers['Host']}{path}?{following}"
        return page


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _token(audience: str, stand_in: StandIn) -> str:
    """An unsigned token of the form that the services look into."""
    now = int(time.time())
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{stand_in.tenant}/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
        "oid": stand_in.tenant,
        "tid": stand_in.tenant,
    }
    parts = [{"alg": "RS256", "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return f"{encoded[0]}.{encoded[1]}.{stand_in.token_signature}"
