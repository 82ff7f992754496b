"""
Order fulfilment as a saga: it fails, is killed, resumes, and is audited.

Start with `saga.py`: the steps, their undos and the saga. `services/` is what they call, four
services with a database of their own; `worker.py` is the process that runs the sagas. The rest
is the demo around them: `python -m examples.order_fulfillment`.
"""
