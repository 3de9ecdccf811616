"""Kinds of databases. Each module is named like the scheme of its addresses."""
