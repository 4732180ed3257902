"""Captures → Topology. One module a source; what is not a topology is recognised by name and refused."""
