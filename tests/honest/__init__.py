"""Ordinary use, measured on what nobody wrote for this project: files that lie on a developer's machine."""
