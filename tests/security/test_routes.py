"""The table of callers and operations: every route of every room refuses who has no right to it.

The operations are read from the running rooms' routers, so that a route which is added without a guard is found here.
What anybody may call is on the list below, with what it then answers; all else is refused.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cumulet.common.config import RoomName
from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE, Credential
from cumulet.instances.cleanup import cleanup
from tests.cloud import Answer, Cloud
from tests.installation import free_pod_cidr
from tests.kube.conftest import Server
from tests.security.routes import RecordingCloud, Route, of_the_door

GUID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
REFUSED = frozenset({401, 403, 404})
ROOMS: tuple[RoomName, ...] = (
    "identity",
    "registry",
    "arm",
    "instances",
    "node",
    "scheduler",
    "controllers",
    "balancer",
    "network",
)

#: What is open, and what it answers to those who bring nothing: health, what is published, and where credentials are checked.
OPEN: dict[tuple[str, str], frozenset[int]] = {
    **{(room, path): frozenset({200, 503}) for room in ROOMS for path in ("/healthz", "/readyz")},
    ("identity", "/{tenant}/v2.0/.well-known/openid-configuration"): frozenset({200}),
    ("identity", "/{tenant}/discovery/v2.0/keys"): frozenset({200}),
    # OAuth 2.0, section 5.2: what is not a request of a client is 400.
    ("identity", "/{tenant}/oauth2/v2.0/token"): frozenset({400}),
    # Docker's token protocol: a form is asked for, by POST.
    ("registry", "/oauth2/token"): frozenset({400, 405, 415}),
    ("registry", "/oauth2/exchange"): frozenset({400, 405, 415}),
}
#: What a principal of the tenant may do without any role.
FOR_PRINCIPALS: dict[str, frozenset[int]] = {
    "/tenants": frozenset({200}),
    "/subscriptions": frozenset({200}),
}

Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingCloud]:
    """All rooms of an installation, running."""
    rooms: tuple[RoomName, ...] = tuple(room for room in ("kube", *ROOMS) if room != "identity")
    made = RecordingCloud(tmp_path_factory.mktemp("routes") / "data", *rooms, pod_cidr=free_pod_cidr())
    try:
        group = f"{made.subscription}/resourceGroups/guarded"
        assert made.arm("PUT", group, {"location": "eastus"}).status == 201
        path = f"{group}/providers/Microsoft.ContainerRegistry/registries/guardedregistry"
        assert made.arm("PUT", path, {"location": "eastus", "sku": {"name": "Basic"}}).status == 201
        yield made
    finally:
        made.close()
        cleanup(made.config)


@pytest.fixture(scope="module")
def table(cloud: RecordingCloud) -> list[Route]:
    """Every route of the rooms whose routers are applications."""
    values = {
        "tenant": cloud.config.tenant_id,
        "subscription": cloud.config.subscription_id,
        "scope": f"{cloud.subscription[1:]}/resourceGroups/guarded/",
        "group": "guarded",
        "registry": "guardedregistry",
        "name": GUID,
        "id": GUID,
        "app_id": cloud.owner.client_id,
    }
    return [route for room in ROOMS for route in cloud.routes(room, values)]


@pytest.fixture(scope="module")
def least(cloud: Cloud) -> Credential:
    """A principal that has no role."""
    return cloud.principal("least")


@pytest.fixture(scope="module")
def foreign(cloud: Cloud) -> Callable[[str], str]:
    """Tokens as the owner's, signed by an authority that is not ours."""
    key = rsa.generate_private_key(65537, 2048)

    def make(audience: str) -> str:
        claims = jwt.decode(cloud.token(audience=audience), options={"verify_signature": False})
        return jwt.encode(claims, key, "RS256", headers={"kid": "foreign"})

    return make


def test_the_table_has_every_room_and_kind_of_operation(table: list[Route]) -> None:
    found = {(route.room, route.canonical) for route in table}
    assert {room for room, _ in found} == set(ROOMS)
    for room, canonical in OPEN:
        assert (room, canonical) in found, (
            f"{canonical} of {room} is on the list of open ones and there is no such route"
        )
    assert len(found) > 80
    assert {"/exec/{namespace}/{pod}/{container}", "/pods"} <= {path for room, path in found if room == "node"}


def test_nobody_may(cloud: RecordingCloud, table: list[Route]) -> None:
    _refuses(table, lambda route: _call(cloud, route))


def test_a_token_of_a_foreign_issuer_may_not(
    cloud: RecordingCloud, table: list[Route], foreign: Callable[[str], str]
) -> None:
    tokens = {audience: foreign(audience) for audience in (ARM_AUDIENCE, GRAPH_AUDIENCE)}
    _refuses(table, lambda route: _call(cloud, route, token=tokens[_audience(route)]))


def test_a_principal_without_a_role_may_not(cloud: RecordingCloud, table: list[Route], least: Credential) -> None:
    tokens = {audience: cloud.token(least, audience) for audience in (ARM_AUDIENCE, GRAPH_AUDIENCE)}
    # Graph lets every principal read the directory.
    closed = [route for route in table if not (route.canonical.startswith("/v1.0/") and _reads(route))]
    _refuses(closed, lambda route: _call(cloud, route, token=tokens[_audience(route)]))


@pytest.mark.parametrize("room", ["scheduler", "balancer", "registry", "metrics"])
def test_another_rooms_certificate_is_of_no_use(cloud: RecordingCloud, table: list[Route], room: Any) -> None:
    scraped = {"/metrics"} if room == "metrics" else set()
    closed = [route for route in table if route.canonical not in scraped]
    if room == "metrics":  # its group may read what the cluster lets the scraper read
        closed = [route for route in closed if not route.canonical.startswith("/metrics")]
    _refuses(closed, lambda route: _call(cloud, route, show=room))


def test_metrics_are_for_the_scraper(cloud: RecordingCloud, table: list[Route]) -> None:
    rooms = {route.room for route in table if route.canonical == "/metrics"}
    assert rooms == set(ROOMS)
    for room in sorted(rooms - {"node"}):  # what a node says is read through the API server
        assert cloud.call(room, "GET", "/metrics").status in (401, 403), room
        assert b"process_" in cloud.call(room, "GET", "/metrics", show="metrics").body, room
    assert cloud.call("node", "GET", "/metrics").status in (401, 403)
    assert cloud.call("kube", "GET", "/metrics").status == 403
    assert b"apiserver_request" in cloud.call("kube", "GET", "/metrics", show="metrics").body


def test_other_methods_of_a_route_open_nothing(cloud: RecordingCloud, table: list[Route]) -> None:
    paths = {(route.room, route.canonical): route for route in table}
    for (room, canonical), route in paths.items():
        for method in ("PUT", "PATCH", "POST", "DELETE", "PROPFIND", "TRACE", "CONNECT2", "get"):
            answer = _call(cloud, route._replace(method=method))
            assert answer.status in {*REFUSED, 400, 405, 415}, f"{method} {route.path} of {room}: {answer.status}"
            assert canonical


def test_every_provider_is_refused_through_the_front_door(
    cloud: RecordingCloud, table: list[Route], least: Credential, foreign: Callable[[str], str]
) -> None:
    own = [
        Route("arm", method, path, path)
        for path in of_the_door(cloud.subscription)
        for method in ("GET", "PUT", "DELETE")
    ]
    provided = [
        route._replace(room="arm")
        for route in table
        if route.canonical.startswith(("/{subscriptions}", "/{root}", "/{scope}"))
    ]
    assert len(provided) > 40
    wrong = (None, foreign(ARM_AUDIENCE), cloud.token(least, GRAPH_AUDIENCE))
    right = cloud.token(least)
    for route in [*own, *provided]:
        for token in wrong:
            answer = _call(cloud, route, token=token)
            assert answer.status == 401, f"{route.method} {route.path}: {answer.status}"
        answer = _call(cloud, route, token=right)
        allowed = FOR_PRINCIPALS.get(route.path, frozenset()) | ({405} if route in own else frozenset())
        if "roledefinitions" in route.path.lower() and _reads(route):
            allowed |= {200}  # what roles there are is no secret
        assert answer.status in REFUSED | allowed, f"{route.method} {route.path}: {answer.status} {answer.body!r}"
        if answer.status == 200 and route.path == "/subscriptions":
            assert answer.body == {"value": []}


# The API server has no router of routes: what it serves is in its discovery.


def test_nobody_may_use_the_cluster(cloud: RecordingCloud) -> None:
    for method, path in _of_the_cluster(cloud):
        answer = cloud.call("kube", method, path, body={} if method in ("POST", "PUT", "PATCH") else None)
        assert answer.status in REFUSED, f"{method} {path}: {answer.status}"
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert cloud.call("kube", "GET", path).status == 200


def test_a_stranger_may_not_use_the_cluster(cloud: RecordingCloud, foreign: Callable[[str], str]) -> None:
    """A foreign issuer's token, an Entra token of the tenant that the cluster gives no role, and one for another audience."""
    stranger = cloud.principal("stranger")
    tokens = (
        foreign("6dae42f8-4368-4678-94ff-3960e28e3630"),
        cloud.token(stranger, "6dae42f8-4368-4678-94ff-3960e28e3630"),
        cloud.token(),
    )
    for method, path in _of_the_cluster(cloud):
        if "selfsubject" in path:
            continue  # everybody who is known may ask who they are
        for token in tokens:
            body: Any = {} if method in ("POST", "PUT", "PATCH") else None
            answer = cloud.call("kube", method, path, token=token, body=body)
            assert answer.status in REFUSED, f"{method} {path}: {answer.status}"


def test_another_rooms_certificate_may_not_use_the_cluster(cloud: RecordingCloud) -> None:
    """It is refused before HTTP begins, so that the path does not matter: this one is open to everybody."""
    assert cloud.call("kube", "GET", "/version").status == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        cloud.call("kube", "GET", "/version", show="registry")


def test_the_cluster_says_whose_token_reads_its_metrics(cloud: RecordingCloud) -> None:
    who = cloud.principal("prometheus")
    token = cloud.token(who, "6dae42f8-4368-4678-94ff-3960e28e3630")
    assert cloud.call("kube", "GET", "/metrics", token=token).status == 403
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rule = {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
    server = Server(cloud)
    server.make(f"{rbac}/clusterroles", {"metadata": {"name": "scrape"}, "rules": [rule]})
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": who.object_id}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scrape"}
    binding = {"metadata": {"name": "scrape"}, "roleRef": role, "subjects": [subject]}
    server.make(f"{rbac}/clusterrolebindings", binding)
    assert b"apiserver_request" in cloud.call("kube", "GET", "/metrics", token=token).body
    for method in ("POST", "DELETE", "PUT"):
        assert cloud.call("kube", method, "/metrics", token=token).status == 403
    for path in ("/metrics/", "//metrics", "/%6Detrics", "/metrics/x", "/x/../metrics", "/METRICS"):
        assert cloud.call("kube", "GET", path).status in REFUSED, path


def _of_the_cluster(cloud: Cloud) -> list[tuple[str, str]]:
    """A method and a path for every verb of every resource and sub-resource, and what else is at `/`, that asks for rights."""
    server = Server(cloud)
    public = ("/healthz", "/livez", "/readyz", "/version")
    found = []
    for path in server.call("GET", "/").body["paths"]:
        # Discovery is for everybody who is known.
        if not path.startswith((*public, "/api", "/openapi", "/.well-known", "/openid")):
            found.append(("GET", path))
    groups = server.call("GET", "/apis").body["groups"]
    versions = ["/api/v1", *(f"/apis/{version['groupVersion']}" for group in groups for version in group["versions"])]
    for version in versions:
        for resource in server.call("GET", version).body["resources"]:
            name, _, subresource = resource["name"].partition("/")
            space = "/namespaces/default" if resource["namespaced"] else ""
            whole = f"{version}{space}/{name}"
            one = f"{whole}/thing{'/' + subresource if subresource else ''}"
            for verb in resource["verbs"]:
                collection = verb in ("list", "watch", "deletecollection") or (verb == "create" and not subresource)
                method = _METHODS[verb]
                found.append((method, f"{whole}{'?watch=true' if verb == 'watch' else ''}" if collection else one))
    assert len(found) > 300
    return list(dict.fromkeys(found))


_METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}


def _refuses(table: list[Route], call: Callable[[Route], Answer]) -> None:
    wrong = []
    for route in table:
        allowed = REFUSED | OPEN.get((route.room, route.canonical), frozenset())
        if (route.room, route.canonical) == ("arm", "/{path}"):
            allowed |= {405}
        status = call(route).status
        if status not in allowed:
            wrong.append(f"{route.method} {route.path} of {route.room}: {status}")
    assert not wrong, "\n".join(wrong)


def _call(cloud: Cloud, route: Route, **more: Any) -> Answer:
    body: Any = {} if route.method in ("POST", "PUT", "PATCH") else None
    if "/oauth2/" in route.path:
        body = None if body is None else b"grant_type=client_credentials&scope=x%2F.default"
        more["headers"] = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        return cloud.call(route.room, route.method, route.path, body=body, **more)
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
        # A certificate of another authority is refused before HTTP begins.
        if "show" not in more:
            raise
        with contextlib.suppress(KeyError):
            del more["show"]
        return Answer(401, {}, b"")


def _reads(route: Route) -> bool:
    return route.method in ("GET", "HEAD") or route.path.endswith("/getByIds")


def _audience(route: Route) -> str:
    return GRAPH_AUDIENCE if route.path.startswith("/v1.0/") else ARM_AUDIENCE
