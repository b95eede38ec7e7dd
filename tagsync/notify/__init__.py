"""Notifications: send the events of the outbox to webhooks, chats and commands."""
