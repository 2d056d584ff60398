"""Who may do what, for expressions that ask: `authorizer` and its `check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cumulet.kube.access.attributes import Attributes
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.access.users import AUTHENTICATED, User
from cumulet.kube.cel.patience import from_loop

Value = dict[str, Any]


def checking(authorizer: Authorizer, user: User) -> Callable[[Value, str], bool]:
    """Whether a user may do what is asked with a verb; or a service account, where one is named."""

    def check(asked: Value, verb: str) -> bool:
        who = user
        if account := asked.get("account"):
            namespace, name = account
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
            who = User(f"system:serviceaccount:{namespace}:{name}", groups)
        return authorizer.allows(who, Attributes.about(verb, asked))

    return from_loop(check)
