"""
Four services, each with its own tables, each idempotent by the key that it is called with.

They know nothing of sagas. What ties them to one is the idempotency key alone: the same for
every attempt of a step and for its undo, so a service can tell a repeated call from a new one,
and an undo can find what it undoes.
"""
