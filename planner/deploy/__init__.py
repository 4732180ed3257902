"""LaunchSpec → files. Shell is the only target so far."""
