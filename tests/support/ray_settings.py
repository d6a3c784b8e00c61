"""Settings with which the tests start Ray."""

# No token is written anywhere; and workers are as eager as their driver: on a busy machine Ray's own choice, a niceness
# of 15, leaves them nothing.
RAY_SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
