"""The destinations of notifications, as `tagsync.notify` takes them."""

from collections.abc import Callable, Mapping
from typing import cast

from tagsync.config import Config
from tagsync.config.secret_sources import read_secret
from tagsync.config.tables import NotifyTable
from tagsync.config.values import SecretName
from tagsync.database.events import EventKind
from tagsync.notify.targets import AppriseTarget, CommandTarget, Rule, Target, WebhookTarget
from tagsync.secrets import Secret


def load_rules(config: Config, env: Mapping[str, str]) -> tuple[Rule, ...]:
    """Return the destinations in file order, with their secrets. Sends nothing.

    Args:
        config: The configuration.
        env: Environment variables that secrets may refer to.

    Raises:
        ConfigError: If a secret is missing, or a destination cannot be used as it is configured.
    """
    return tuple(load_rule(table, config, env) for table in config.file.notify)


def load_rule(table: NotifyTable, config: Config, env: Mapping[str, str]) -> Rule:
    """Return one destination, as `load_rules` does.

    Raises:
        ConfigError: If a secret is missing, or the destination cannot be used as it is configured.
    """
    # Imported lazily: HTTP, which commands that send nothing do not need.
    from tagsync.notify.senders import check_rule  # noqa: PLC0415  see above

    rule = _rule(table, lambda name: read_secret(name, env, config.folder))
    check_rule(rule)
    return rule


def rules_without_secrets(config: Config) -> tuple[Rule, ...]:
    """Return the destinations in file order, for commands that send nothing.

    Each secret is replaced by the name of its place, so that these commands need none.
    """
    return tuple(_rule(table, Secret) for table in config.file.notify)


def _rule(table: NotifyTable, read: Callable[[SecretName], Secret]) -> Rule:
    return Rule(
        name=table.name,
        target=_target(table, read),
        repositories=table.repositories,
        tags=table.tags,
        events=cast("tuple[EventKind, ...]", table.events),  # `check_notifications` checked them
        batch=table.batch,
        batch_size=table.batch_size,
        subject=table.subject,
        text=table.text,
    )


def _target(table: NotifyTable, read: Callable[[SecretName], Secret]) -> Target:
    if table.argv is not None:
        return CommandTarget(table.argv)
    assert table.url is not None, "`check_notifications` found a url or an argv"  # noqa: S101  tells the type checker
    if table.kind == "apprise":
        return AppriseTarget(read(table.url))
    key = None if table.signing_key is None else read(table.signing_key)
    return WebhookTarget(read(table.url), key)
