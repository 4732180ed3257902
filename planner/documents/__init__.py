"""YAML and JSON documents ⇄ core. The only rooms that know pydantic and yaml."""
