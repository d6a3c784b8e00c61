"""RayJobs in this pod's namespace, read and created through the Kubernetes API, which may not answer for a while."""

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from jobs.remote.attempts import NoAnswerError, ask_until_answered
from pipeline.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Folder in which Kubernetes mounts a pod's token, the certificate of the API, and the name of the namespace."""

_ANSWER_S = 30.0
# HTTP statuses below 500 after which a repeated request may succeed, as after every status from 500 on.
_MAY_PASS = frozenset({408, 429})
# While a control plane is being replaced, the API may know neither the service account nor the account's rights.
_MAY_PASS_LATER = _MAY_PASS | {401, 403}


class RayJobObjects:
    """The RayJob objects of one namespace.

    Raises:
        ConfigError: In each method: the API refuses the request for good, for instance since the service account lacks
            a right.
        NoAnswerError: In each method: the API gave no answer for `patience_s` seconds.
    """

    def __init__(self, patience_s: float) -> None:
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            self._tls = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
            namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
        except (KeyError, OSError) as error:
            raise ConfigError(f"this is no pod with a service account's token: {error}") from error
        # Kubernetes gives an IPv6 address without the brackets that a URL needs.
        host = f"[{host}]" if ":" in host else host
        self._url = f"https://{host}:{port}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._patience_s = patience_s

    def find(self, name: str) -> dict[str, Any] | None:
        """Returns the RayJob with this name; None if there is no such RayJob."""
        return self._ask("GET", f"{self._url}/{name}", none_at=404)

    def find_again(self, name: str) -> dict[str, Any] | None:
        """Returns a RayJob that was found or created before; None if the RayJob was deleted.

        After the statuses 401 and 403 the request is repeated, since the API has accepted the service account before.
        """
        return self._ask("GET", f"{self._url}/{name}", none_at=404, may_pass=_MAY_PASS_LATER)

    def create(self, rayjob: dict[str, Any]) -> bool:
        """Creates a RayJob; returns False if a RayJob of this name exists.

        That RayJob may come from an earlier try of the same request whose answer was lost.
        """
        return self._ask("POST", f"{self._url}?fieldValidation=Strict", rayjob, none_at=409) is not None

    def _ask(
        self,
        method: str,
        url: str,
        body: dict[str, Any] | None = None,
        *,
        none_at: int,
        may_pass: frozenset[int] = _MAY_PASS,
    ) -> dict[str, Any] | None:
        def ask_once() -> dict[str, Any] | None:
            try:
                return self._answer(method, url, body)
            except urllib.error.HTTPError as error:
                with error:
                    reason = _sentence(error)
                if error.code == none_at:
                    return None
                if error.code < 500 and error.code not in may_pass:
                    raise ConfigError(f"Kubernetes refuses {method} {url}: {reason}") from error
            except (OSError, ValueError) as error:
                reason = str(error)
            raise NoAnswerError(f"Kubernetes gives no answer to {method} {url}: {reason}", reason)

        return ask_until_answered(ask_once, self._patience_s, "kubernetes.no_answer")

    def _answer(self, method: str, url: str, body: dict[str, Any] | None) -> dict[str, Any]:
        # Each request reads the token, since Kubernetes replaces it about once an hour.
        token = (SERVICE_ACCOUNT / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=_ANSWER_S, context=self._tls) as answer:
            found = json.load(answer)
        if not isinstance(found, dict):
            raise ValueError("the answer is no object")
        return found


def _sentence(error: urllib.error.HTTPError) -> str:
    """Returns the status and the message of an error of the API, in one line."""
    try:
        message = json.loads(error.read()).get("message")
    except (OSError, ValueError, AttributeError):
        message = None
    return f"{error.code} {' '.join(str(message or error.reason).split())[:500]}"
