"""Who may do what, for expressions that ask: `authorizer` and its `check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cumulet.kube.attributes import Attributes
from cumulet.kube.authorize import Authorizer
from cumulet.kube.cel.patience import from_loop
from cumulet.kube.users import AUTHENTICATED, User

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
