"""Sets the brokers' access control lists (KIP-11) to the table of rules, and tells where they differ from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import AuthorizationError, KafkaError, SecurityDisabledError
from kafka.protocol.admin import DescribeAclsRequest

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.kafka.operator_client import operator_client
from pipeline.topics import BY_NAME, GROUPS, OPERATOR, POOL_WORK, AclRule

_KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}
_ANY = (
    None,
    ACLOperation.ANY,
    ACLPermissionType.ANY,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)
_EVERYTHING = ACLFilter(None, *_ANY)


def apply(kafka: KafkaEndpoint, rules: Iterable[AclRule]) -> tuple[list[str], list[str]]:
    """Create what is missing and delete what the table does not grant; gives a line for each of either kind.

    Rights of the operator's own principal stay, those of others to what is not ours, and denials. Raises ConfigError
    where the brokers keep no lists or do not let this user near them, Retryable.
    """
    with _lists(kafka) as client:
        missing, surplus = _compare(client, rules, kafka.security.user)
        _create(client, missing)
        # only once everything that is granted is there: a running stage must not lose a right in between
        if surplus:
            client.delete_acls(surplus)
    return sorted(map(_line, missing)), sorted(map(_line, surplus))


def grant(kafka: KafkaEndpoint, rules: Sequence[AclRule]) -> None:
    """Have the principals in ``rules`` do what these say and no more; others keep their rights. Errors as ``apply``."""
    principals = {f"User:{rule.principal}" for rule in rules}
    with _lists(kafka) as client:
        missing, surplus = _compare(client, rules, kafka.security.user)
        _create(client, missing)
        if outdated := [acl for acl in surplus if acl.principal in principals]:
            client.delete_acls(outdated)


def withdraw(kafka: KafkaEndpoint, principal: str) -> None:
    """Take all rights of a principal away; what it sends next is refused. Errors as ``apply``."""
    with _lists(kafka) as client:
        client.delete_acls([ACLFilter(f"User:{principal}", *_ANY)])


def holds(client: KafkaAdminClient, node: int, rule: AclRule) -> bool:
    """Tell whether one broker already allows what ``rule`` says; each answers from what it has itself."""
    wanted = _acl(rule)
    request = DescribeAclsRequest(
        resource_type_filter=wanted.resource_pattern.resource_type,
        resource_name_filter=rule.name,
        pattern_type_filter=wanted.resource_pattern.pattern_type,
        principal_filter=wanted.principal,
        host_filter=wanted.host,
        operation=wanted.operation,
        permission_type=wanted.permission_type,
    )
    return bool(client._manager.run(client._manager.send, request, node).resources)


def check(kafka: KafkaEndpoint, rules: Iterable[AclRule]) -> list[str]:
    """Give a sentence with the fix for each difference, none where all is well. Errors as ``apply``."""
    with _lists(kafka) as client:
        missing, surplus = _compare(client, rules, kafka.security.user)
    faults = [f"missing: {_line(acl)}; run: sluice topics acl apply" for acl in missing]
    faults += [f"not granted by the table: {_line(acl)}; run: sluice topics acl apply" for acl in surplus]
    return sorted(faults)


@contextlib.contextmanager
def _lists(kafka: KafkaEndpoint) -> Iterator[KafkaAdminClient]:
    """Give a client that may read and change the lists."""
    client = operator_client(kafka)
    try:
        yield client
    except AuthorizationError:
        raise ConfigError(
            f"user {kafka.security.user!r} may not read or change the access control lists at {kafka.bootstrap}; run "
            "this with the settings of an operator"
        ) from None
    except SecurityDisabledError:
        raise ConfigError(
            f"the brokers at {kafka.bootstrap} keep no access control lists: whoever reaches them may do anything. "
            "Set authorizer.class.name on every broker"
        ) from None
    except KafkaError as error:
        raise Retryable(f"the access control lists at {kafka.bootstrap}: {error!r}") from error
    finally:
        client.close()


def _create(client: KafkaAdminClient, missing: list[ACL]) -> None:
    failed = client.create_acls(missing)["failed"] if missing else []
    if failed:
        raise Retryable(f"{len(failed)} rights were not created, first: {failed[0]}")


def _compare(client: KafkaAdminClient, rules: Iterable[AclRule], user: str) -> tuple[list[ACL], list[ACL]]:
    """Give what is missing and what is more than the table grants."""
    described, _ = client.describe_acls(_EVERYTHING)
    present, wanted = set(described), {_acl(rule) for rule in rules}
    ours = {*(acl.principal for acl in wanted), *(f"User:{stage}" for stage in GROUPS)}
    surplus = [
        acl
        for acl in present - wanted
        if acl.permission_type == ACLPermissionType.ALLOW
        and acl.principal not in (f"User:{OPERATOR}", f"User:{user}")
        and (acl.principal in ours or _opens_ours(acl.resource_pattern))
    ]
    return list(wanted - present), surplus


def _opens_ours(pattern: ResourcePattern) -> bool:
    """Tell whether a right to this opens a topic or group of ours; others share the brokers, and theirs stay."""
    if pattern.resource_type == ResourceType.TOPIC:
        names = [*BY_NAME, POOL_WORK]
    elif pattern.resource_type == ResourceType.GROUP:
        names = [group for groups in GROUPS.values() for group in groups]
    else:
        return bool(pattern.resource_type == ResourceType.CLUSTER)
    named = str(pattern.resource_name)
    if named == "*" or named.startswith(POOL_WORK):
        return True
    if pattern.pattern_type == ACLResourcePatternType.PREFIXED:
        return any(name.startswith(named) for name in names)
    return named in names


def _acl(rule: AclRule) -> ACL:
    pattern = ACLResourcePatternType.PREFIXED if rule.prefixed else ACLResourcePatternType.LITERAL
    return ACL(
        f"User:{rule.principal}",
        "*",
        ACLOperation[rule.operation.upper()],
        ACLPermissionType.ALLOW,
        ResourcePattern(_KINDS[rule.resource], rule.name, pattern),
    )


def _line(acl: ACL) -> str:
    pattern = acl.resource_pattern
    beginning = "..." if pattern.pattern_type == ACLResourcePatternType.PREFIXED else ""
    kind = pattern.resource_type.name.lower()
    return f"{acl.principal} {acl.operation.name.capitalize()} {kind} {pattern.resource_name}{beginning}"
