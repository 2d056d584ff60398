"""The variable `authorizer` of expressions: checks of rights, for the user or a service account."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.access.users import AUTHENTICATED, User
from cumulet.kube.cel.patience import from_loop

Value = Object


def checking(authorizer: Authorizer, user: User) -> Callable[[Value, str], bool]:
    """Return a function that checks a right of the user, or of the service account in its argument."""

    def check(requested: Value, verb: str) -> bool:
        who = user
        if account := requested.get("account"):
            namespace, name = account
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
            who = User(f"system:serviceaccount:{namespace}:{name}", groups)
        return authorizer.allows(who, Attributes.about(verb, requested))

    return from_loop(check)
