"""The daemon: polls every repository on its own schedule until it is stopped."""
