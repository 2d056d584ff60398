"""Who may do what, for expressions that ask: `authorizer` and its `check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cumulet.kube.attributes import Attributes
from cumulet.kube.authorize import Authorizer
from cumulet.kube.cel.authorizing import variable
from cumulet.kube.users import AUTHENTICATED, User

if TYPE_CHECKING:
    from cumulet.kube.admission.webhooks.asking import Question

Value = dict[str, Any]


def authority(question: Question) -> Value:
    """The variable `authorizer` of expressions about a question."""
    row = question.row
    return variable(row.group, row.plural, question.subresource, question.namespace, question.name)


def checking(authorizer: Authorizer, user: User) -> Callable[[Value, str], Value]:
    """`check` for a request of a user."""

    def check(asked: Value, verb: str) -> Value:
        who = user
        if account := asked.get("account"):
            namespace, name = account
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
            who = User(f"system:serviceaccount:{namespace}:{name}", groups)
        return {"allowed": authorizer.allows(who, Attributes.about(verb, asked)), "reason": ""}

    return check
