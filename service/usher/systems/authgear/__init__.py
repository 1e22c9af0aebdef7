"""Authgear."""
