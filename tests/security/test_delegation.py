"""Rights to give rights: roles under conditions, wrong tokens, and principals that are no more."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE, REGISTRY_AUDIENCE, Credential
from tests.cloud import Answer, Cloud

TYPE = "Microsoft.Authorization/roleAssignments"
OWNER, PULL = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "7f951dda-4ed3-4680-a7ca-43fe172d538d"
ADMIN = "Role Based Access Control Administrator"

#: As Azure's portal writes "Constrain roles": these roles may be given and taken, and no other.
ONLY_PULL = f"""
(
 (
  !(ActionMatches{{'{TYPE}/write'}})
 )
 OR
 (
  @Request[{TYPE}:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {{{PULL}}}
  AND
  @Request[{TYPE}:PrincipalType] ForAnyOfAnyValues:StringEqualsIgnoreCase {{'ServicePrincipal'}}
 )
)
AND
(
 (
  !(ActionMatches{{'{TYPE}/delete'}})
 )
 OR
 (
  @Resource[{TYPE}:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {{{PULL}}}
 )
)
"""
#: The same as "all but": nothing may be granted because the attribute is missing.
NO_OWNER = f"""
(!(ActionMatches{{'{TYPE}/write'}}) OR !(@Request[{TYPE}:RoleDefinitionId] GuidEquals {OWNER}))
AND
(!(ActionMatches{{'{TYPE}/delete'}}) OR @Resource[{TYPE}:RoleDefinitionId] ForAnyOfAllValues:GuidNotEquals {{{OWNER}}})
"""


def _give(cloud: Cloud, who: Credential, role: str, to: str, scope: str, name: str = "", **more: Any) -> Answer:
    path = f"{scope}/providers/{TYPE}/{name or uuid.uuid4()}"
    definition = f"{cloud.subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}"
    properties = {"roleDefinitionId": definition, "principalId": to, **more}
    return cloud.arm("PUT", path, {"properties": properties}, as_=who)


@pytest.mark.parametrize("condition", [ONLY_PULL, NO_OWNER], ids=["only these", "all but these"])
def test_a_delegate_gives_what_the_condition_lets_it_give(cloud: Cloud, group: str, condition: str) -> None:
    delegate, other = cloud.principal("delegate"), cloud.principal("other")
    given = cloud.assign(delegate.object_id, ADMIN, group, condition=condition, conditionVersion="2.0")
    assert given.status == 201, given.body
    kept = cloud.assign(other.object_id, "Owner", group)
    assert _give(cloud, delegate, OWNER, delegate.object_id, group).code == "AuthorizationFailed"
    assert _give(cloud, delegate, OWNER.upper(), other.object_id, group).code == "AuthorizationFailed"
    made = _give(cloud, delegate, PULL, other.object_id, group)
    assert made.status == 201, made.body
    assert cloud.arm("DELETE", kept.body["id"], as_=delegate).code == "AuthorizationFailed"
    assert cloud.arm("DELETE", made.body["id"], as_=delegate).status == 200
    assert cloud.arm("GET", kept.body["id"]).status == 200


@pytest.mark.parametrize("condition", [ONLY_PULL, NO_OWNER], ids=["only these", "all but these"])
def test_a_condition_is_not_talked_round(cloud: Cloud, group: str, condition: str) -> None:
    delegate = cloud.principal("delegate")
    name = str(uuid.uuid4())
    definition = cloud.arm("GET", f"{group}/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20'"
                           f"{ADMIN.replace(' ', '%20')}'").body["value"][0]["id"]  # fmt: skip
    own = {"roleDefinitionId": definition, "principalId": delegate.object_id, "condition": condition}
    path = f"{group}/providers/{TYPE}/{name}"
    assert cloud.arm("PUT", path, {"properties": {**own, "conditionVersion": "2.0"}}).status == 201
    if condition == ONLY_PULL:  # its own assignment, without the condition
        freed = {**own, "condition": None}
        assert cloud.arm("PUT", path, {"properties": freed}, as_=delegate).code == "AuthorizationFailed"
    role = f"{cloud.subscription}/providers/Microsoft.Authorization/roleDefinitions/"
    to = delegate.object_id
    for body in (
        b'{"properties":{"roleDefinitionId":"%s","roleDefinitionId":"%s","principalId":"%s"}}'
        % (f"{role}{PULL}".encode(), f"{role}{OWNER}".encode(), to.encode()),
        b'{"properties":{"roleDefinitionId":"%s","principalId":"%s"},"properties":{"roleDefinitionId":"%s","principalId":"%s"}}'
        % (f"{role}{PULL}".encode(), to.encode(), f"{role}{OWNER}".encode(), to.encode()),
        json.dumps({"properties": {"roleDefinitionId": f"{role}{OWNER.upper()}", "principalId": to}}).encode(),
        json.dumps({"properties": {"roleDefinitionId": OWNER, "principalId": to}}).encode(),
        b"{}",
        b"[]",
        b"",
    ):
        answer = cloud.arm("PUT", f"{group}/providers/{TYPE}/{uuid.uuid4()}", body or None, as_=delegate)
        assert answer.status in (400, 403), (body, answer.body)
    assert _owners(cloud, group, delegate) == []
    # Graph asks for the same right, with no role to compare.
    assert cloud.graph("POST", "/applications", {"displayName": "no"}, as_=delegate).status == 403


def test_roles_are_changed_at_their_own_type_only(cloud: Cloud, group: str) -> None:
    name, role = str(uuid.uuid4()), str(uuid.uuid4())
    definition = f"{cloud.subscription}/providers/Microsoft.Authorization/roleDefinitions/{role}"
    permission = {"actions": ["*"], "notActions": [f"{TYPE}/write", f"{TYPE}/DELETE"]}
    properties = {"roleName": role, "assignableScopes": [cloud.subscription], "permissions": [permission]}
    assert cloud.arm("PUT", definition, {"properties": properties}).status == 201
    who = cloud.principal("excluded", **{role: group})
    owner = f"{cloud.subscription}/providers/Microsoft.Authorization/roleDefinitions/{OWNER}"
    body = {"properties": {"roleDefinitionId": owner, "principalId": who.object_id}}
    for path in (
        f"{group}/providers/{TYPE}/{name}",
        f"{group}/providers/{TYPE.lower()}/{name}",
        f"{group}/providers/Microsoft.Authorization/ROLEASSIGNMENTS/{name}",
        f"{group}/providers/{TYPE}/providers/{TYPE}/{name}",
        f"{group}/providers/{TYPE}/{name}/{name}",
        f"{group}/providers/Microsoft.Authorization/x/y/roleAssignments/{name}",
        f"{group}/providers/Microsoft.Authorization%20/roleAssignments/{name}",
        f"{group}/providers/Microsoft.Authorization./roleAssignments/{name}",
        f"{group}/providers/Microsoft.Authorization/roleAssignments%20/{name}",
    ):
        assert cloud.arm("PUT", path, body, as_=who).status in (400, 403, 404), path
    assert _owners(cloud, group, who) == []


def test_only_one_assignment_is_deleted_at_a_time(cloud: Cloud, group: str) -> None:
    for path in (f"{group}/providers/{TYPE}", f"{group}/providers/{TYPE.upper()}/"):
        assert cloud.arm("DELETE", path).status in (404, 405)
    assert cloud.call("arm", "POST", "/metadata/endpoints", body={}).code == "MethodNotAllowed"


def test_a_token_for_somebody_else_is_refused(cloud: Cloud, registry: str) -> None:
    for audience in (GRAPH_AUDIENCE, REGISTRY_AUDIENCE, "api://any", f"{ARM_AUDIENCE}.evil", f"{ARM_AUDIENCE}/x"):
        answer = cloud.call("arm", "GET", registry, token=cloud.token(audience=audience))
        assert (answer.status, answer.code) == (401, "InvalidAuthenticationToken"), audience
    assert cloud.call("identity", "GET", "/v1.0/applications", token=cloud.token()).status == 401


def test_no_algorithm_but_the_authoritys(cloud: Cloud, registry: str) -> None:
    keys = cloud.call("identity", "GET", f"/{cloud.config.tenant_id}/discovery/v2.0/keys").body
    known = jwt.PyJWKSet.from_dict(keys).keys[0]
    public = known.key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    claims = jwt.decode(cloud.token(), options={"verify_signature": False})
    mine = rsa.generate_private_key(65537, 2048)
    head = {"kid": known.key_id}

    def signed(header: dict[str, Any], signature: bytes) -> str:
        parts = [json.dumps(part).encode() for part in (header, claims)]
        return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))

    forged = [
        jwt.encode(claims, mine, "RS256", headers=head),
        jwt.encode(claims, mine, "RS256", headers={**head, "jku": "https://127.0.0.1:1/keys", "x5u": "https://x"}),
        jwt.encode(claims, mine, "PS256", headers=head),
        signed({"alg": "none", "typ": "JWT", **head}, b""),
        signed({"alg": "None", "typ": "JWT", **head}, b"x"),
        signed({"alg": "HS256", "typ": "JWT", **head}, _hmac(claims, {"alg": "HS256", "typ": "JWT", **head}, public)),
        signed({"typ": "JWT", **head}, b"x"),
        signed({"alg": "RS256", "kid": ["x"]}, b"x"),
        signed({"alg": "RS256", "kid": "../../etc/passwd"}, b"x"),
        cloud.token()[:-10],
        f"{cloud.token()}.x",
    ]
    for token in forged:
        assert cloud.call("arm", "GET", registry, token=token).status == 401, token
        assert cloud.call("identity", "GET", "/v1.0/applications", token=token).status == 401, token


def test_a_token_of_another_issuer_or_time_is_refused(cloud: Cloud, registry: str, foreign: Any) -> None:
    for changed in ({}, {"iss": "https://sts.windows.net/x/"}, {"exp": int(time.time()) - 3600}):
        assert cloud.call("arm", "GET", registry, token=foreign(**changed)).status == 401


def test_a_deleted_principal_may_do_nothing(cloud: Cloud, group: str, registry: str) -> None:
    who = cloud.principal("leaver", Owner=group)
    token, graph = cloud.token(who), cloud.token(who, GRAPH_AUDIENCE)
    assert cloud.call("arm", "GET", registry, token=token).status == 200
    principal = cloud.graph("GET", f"/servicePrincipals(appId='{who.client_id}')").body["id"]
    assert cloud.graph("DELETE", f"/servicePrincipals/{principal}").status == 204
    deadline = time.monotonic() + 10
    while cloud.call("arm", "GET", registry, token=token).status == 200:  # roles are remembered for a second
        assert time.monotonic() < deadline
    for method, path in (("GET", registry), ("DELETE", group), ("POST", f"{registry}/listCredentials")):
        assert cloud.call("arm", method, path, token=token).status == 403
    assert cloud.call("arm", "GET", "/subscriptions", token=token).body["value"] == []
    assert cloud.call("identity", "GET", "/v1.0/applications", token=graph).status == 401
    assert cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret).body["error_codes"] == [7000229]
    # Nobody can give it a role again, and a new principal of the application is another.
    assert cloud.assign(who.object_id, "Owner", group).code == "PrincipalNotFound"
    assert cloud.graph("POST", "/servicePrincipals", {"appId": who.client_id}).body["id"] != principal
    assert cloud.call("arm", "GET", registry, token=token).status == 403


def _owners(cloud: Cloud, group: str, who: Credential) -> list[str]:
    found = cloud.arm("GET", f"{group}/providers/{TYPE}?$filter=principalId%20eq%20'{who.object_id}'").body["value"]
    return [item["id"] for item in found if item["properties"]["roleDefinitionId"].endswith(OWNER)]


def _hmac(claims: dict[str, Any], header: dict[str, Any], key: bytes) -> bytes:
    import hashlib
    import hmac

    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    return hmac.digest(key, b".".join(parts), hashlib.sha256)
