"""Questions about a topology: how two GPUs reach each other, what a group shares, which GPUs are interchangeable."""
