"""Answers to an operator's questions: who is connected, and why a client gets a document or not."""
