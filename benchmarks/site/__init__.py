"""The servers that are measured: ours and its peers, all with the same trigger and documents."""
