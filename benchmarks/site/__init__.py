"""The measured ASGI applications, all with the same trigger and documents."""
