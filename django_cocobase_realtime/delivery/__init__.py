"""From the log to subscriptions: topics, filters, permissions, frames, snapshots, catch-up."""
