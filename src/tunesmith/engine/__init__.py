"""The engine: a child process that computes tokens and speaks the OpenAI protocol. Nobody imports it but itself.

    server      HTTP: requests in, answers out            core       one thread: schedule, compute, append, deliver
    requests, responses, tools   OpenAI's shapes          scheduler, sequence, text   decide; no torch
    runner, cache, adapters, sampler   compute; torch
"""

import os

# Before torch is imported. OpenMP's threads otherwise spin while they wait, and beside one busy process (a training run)
# two spinning threads fell from 144 to 6 tokens/s.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
