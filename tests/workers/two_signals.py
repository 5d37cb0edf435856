"""Sends itself SIGTERM, and then computes for minutes in one call that does not come back to Python."""

import os
import signal
import time

import jax
import jax.numpy as jnp

from cnn.devices import signals


def main() -> None:
    with signals.owns_process(), signals.catch_signals() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        while not received():
            time.sleep(0.01)
        print("received", received(), flush=True)
        jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, x: jnp.sin(x), jnp.ones(9999)))(10**8)[0].item()
    print("survived")


if __name__ == "__main__":
    main()
