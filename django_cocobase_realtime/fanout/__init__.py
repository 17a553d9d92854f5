"""From one event to the connections that asked for it: broker, hub, subscriptions, writer."""
