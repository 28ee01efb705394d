"""Cellucid export folders, layout v1."""
